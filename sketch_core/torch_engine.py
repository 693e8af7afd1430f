"""The sampler on a GPU (CUDA, Apple's MPS) or wherever PyTorch runs: the same drawings as the CPU engine's.

A GPU is kept busy by asking it for several steps at a time: :data:`CHUNK` steps run without a word between host and
device, on CUDA as one captured graph, and their points come back in one transfer. Drawings that end meanwhile idle
to the end of the chunk, and drawings that join wait for it. Buffers come in a few sizes (:data:`BUCKETS`), so that
few graphs are captured.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sketch_core.engine import PEN_END, PEN_GUIDANCE, PEN_STATES, Engine, Floats, State, Step, gate_order
from sketch_core.mixture import CANDIDATES, MAX_LOG_SIGMA, MAX_RHO, MIN_LOG_SIGMA, PEN_FLOOR, RATIO_FLOOR, Temperatures
from sketch_core.model import POSITION_SCALE, SketchRNNConfig
from sketch_core.strokes import START_TOKEN

log = logging.getLogger("sketch_core.torch_engine")

CHUNK = 8
"""Steps between two words with the host."""
BUCKETS = (1, 4, 12, 32, 96, 256, 768, 1024)
"""Numbers of drawings that buffers are made for; more take the next multiple of the last."""


class TorchEngine(Engine):
    """The decoder's step loop in PyTorch, behind the interface of :class:`sketch_core.engine.CpuEngine`.

    Args:
        config: the architecture.
        weights: parameters by their names in :class:`sketch_core.model.SketchRNN`, float32.
        device: where the steps run.
        graphs: capture chunks as CUDA graphs (on CUDA alone); without, the same operations are launched one by one.
    """

    def __init__(
        self, config: SketchRNNConfig, weights: Mapping[str, Floats], device: torch.device, *, graphs: bool = True
    ) -> None:
        self.config, self.device = config, device
        self.graphs = graphs and device.type == "cuda"
        self.prefix_steps = 0
        """Steps that :meth:`read` has run so far."""
        size, points = config.decoder_size, config.point_size
        w_ih, w_hh = weights["decoder.lstm.weight_ih_l0"], weights["decoder.lstm.weight_hh_l0"]
        bias = weights["decoder.lstm.bias_ih_l0"] + weights["decoder.lstm.bias_hh_l0"]
        order = gate_order(size)
        self._w = self._tensor(np.hstack([w_hh, w_ih[:, :points]])[order].T)  # (H + P, 4H)
        self._w_condition = self._tensor(w_ih[order, points:].T)  # (C, 4H)
        self._bias = self._tensor(bias[order])
        self._w_out = self._tensor(weights["decoder.output.weight"].T)  # (H, 6M + 3)
        self._b_out = self._tensor(weights["decoder.output.bias"])
        if config.condition_size:
            self._w_initial = self._tensor(weights["decoder.initial.weight"].T)  # (C, 2H)
            self._b_initial = self._tensor(weights["decoder.initial.bias"])
        self.min_log_sigma = max(np.log(config.min_sigma), MIN_LOG_SIGMA) if config.min_sigma > 0 else MIN_LOG_SIGMA
        self._pen_states = self._tensor(PEN_STATES)
        self._pools: dict[tuple[int, int, bool], list[_Slots]] = {}

    def _tensor(self, array: Floats) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)).to(self.device)

    # -- states ------------------------------------------------------------------------------------

    @torch.inference_mode()
    def start(self, condition: Floats) -> State:
        """States before the first point; see :meth:`CpuEngine.start`."""
        batch, size = len(condition), self.config.decoder_size
        if self.config.condition_size:
            given = self._tensor(condition)
            h, c = torch.tanh(given @ self._w_initial + self._b_initial).chunk(2, dim=1)
            constant = given @ self._w_condition + self._bias
        else:
            h = c = torch.zeros(batch, size)
            constant = self._bias.expand(batch, -1)
        previous = np.tile(START_TOKEN, (batch, 1))
        place = np.zeros((batch, 4), dtype=np.float32)
        return State(*(t.cpu().numpy().copy() for t in (h, c, constant)), previous, place)  # type: ignore[call-arg]

    @torch.inference_mode()
    def read(self, state: State, points: Floats, lengths: NDArray[np.int64] | None = None) -> tuple[State, Floats]:
        """Feed known points; see :meth:`CpuEngine.read`."""
        batch, steps, _ = points.shape
        self.prefix_steps += batch * steps
        ends = self._device_lengths(np.full(batch, steps) if lengths is None else lengths)
        rows = _Rows(*(self._tensor(array) for array in state))
        done = rows
        given = self._tensor(points)
        outputs = torch.empty(batch, steps, self.config.decoder_size, device=self.device)
        for t in range(steps):
            h, c = self._advance(rows)
            outputs[:, t] = h
            place = _moved(rows.place, rows.previous, given[:, t, :2])
            rows = _Rows(h, c, rows.constant, given[:, t], place)
            ended = (ends == t + 1).unsqueeze(1)  # rows that go on as padding stay as they are now
            done = _Rows(*(torch.where(ended, new, old) for old, new in zip(done, rows, strict=True)))
        y = outputs @ self._w_out + self._b_out
        return State(*(tensor.cpu().numpy() for tensor in done)), y.cpu().numpy()

    @torch.inference_mode()
    def predict(self, state: State) -> Floats:
        """y (B, 6M + 3) for the next point; the state stays as it is."""
        h, _ = self._advance(_Rows(*(self._tensor(array) for array in state)))
        y: Floats = (h @ self._w_out + self._b_out).cpu().numpy()
        return y

    def _device_lengths(self, lengths: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.asarray(lengths)).to(self.device)

    def _advance(self, rows: _Rows) -> tuple[Tensor, Tensor]:
        """One LSTM step: h and c, (B, H) each."""
        size = self.config.decoder_size
        inputs = [rows.h, rows.previous]
        if self.config.positions:
            place = rows.place
            inputs += [place[:, :2] * POSITION_SCALE, (place[:, :2] - place[:, 2:]) * POSITION_SCALE]
        gates = torch.addmm(rows.constant, torch.cat(inputs, dim=1), self._w)  # (B, 4H): i, f, o, candidate
        i, forget, o = torch.sigmoid(gates[:, : 3 * size]).chunk(3, dim=1)
        c = forget * rows.c + i * torch.tanh(gates[:, 3 * size :])
        return o * torch.tanh(c), c

    # -- sampling ----------------------------------------------------------------------------------

    def batch(self) -> TorchBatch:
        """An empty batch of drawings in the making."""
        return TorchBatch(self)

    def _borrow(self, n: int, life: int, guided: bool) -> _Slots:
        """Buffers of a size that suffices, used before if there are any: their graph is captured already."""
        last = BUCKETS[-1]
        size = next((bucket for bucket in BUCKETS if bucket >= n), -(-n // last) * last)
        life += -life % 64
        pool = self._pools.setdefault((size, life, guided), [])
        return pool.pop() if pool else _Slots(self, size, life, guided)

    def _return(self, slots: _Slots) -> None:
        pool = self._pools[slots.size, slots.life, slots.guided]
        if len(pool) < 2:
            pool.append(slots)


def _moved(place: Tensor, previous: Tensor, offsets: Tensor) -> Tensor:
    """Where the pen and its stroke's first point (B, 4) are after a move of (B, 2)."""
    pen = place[:, :2] + offsets
    lifted = previous[:, 3:4] > 0.5  # the pen lifted before this point, so a stroke starts here
    return torch.cat([pen, torch.where(lifted, pen, place[:, 2:])], dim=1)


class _Rows(NamedTuple):
    """:class:`State` as tensors on the device."""

    h: Tensor
    c: Tensor
    constant: Tensor
    previous: Tensor
    place: Tensor


class _Slots:
    """Buffers for ``size`` drawings that stay in one place, as a captured graph needs.

    With ``guided`` each drawing has a second row of the network, its reference; rows 0 to size - 1 are the
    drawings', and the references' follow in the same order.
    """

    def __init__(self, engine: TorchEngine, size: int, life: int, guided: bool) -> None:
        self.engine, self.size, self.life, self.guided = engine, size, life, guided
        config, device = engine.config, engine.device
        n_rows = size * (2 if guided else 1)
        self.rows = _Rows(
            *(
                torch.zeros(n_rows, width, device=device)
                for width in (config.decoder_size, config.decoder_size, 4 * config.decoder_size, 5, 4)
            )
        )
        self.noise = torch.zeros(size, life, 2 + 3 * CANDIDATES if guided else 5, device=device)
        self.settings = torch.zeros(size, 7, device=device)
        """1/τ of π, 1/τ of the pen, √τ of σ, guidance of offsets, of the pen, steps to live, may end at once."""
        self.ages = torch.zeros(size, dtype=torch.int64, device=device)
        self.drawn = torch.zeros(CHUNK, size, 4, device=device)
        """Δx, Δy, pen, gain of each step."""
        self._graph: torch.cuda.CUDAGraph | None = None

    def run(self) -> NDArray[np.float32]:
        """CHUNK steps: (CHUNK, size, 4)."""
        with torch.inference_mode():
            if self.engine.graphs and self._graph is None:
                self._capture()
            if self._graph is not None:
                self._graph.replay()
            else:
                self._steps()
            drawn: NDArray[np.float32] = self.drawn.cpu().numpy().copy()  # the one wait for the device
        return drawn

    def _capture(self) -> None:
        """Record a chunk once. It is run before, as libraries allocate at their first call, so all is put back."""
        kept = [*(tensor.clone() for tensor in self.rows), self.ages.clone()]
        try:
            side: torch.cuda.Stream = torch.cuda.Stream(self.engine.device)  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream(self.engine.device))
            with torch.cuda.stream(side):
                self._steps()
            torch.cuda.current_stream(self.engine.device).wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._steps()
            self._graph = graph
        except RuntimeError as error:
            log.warning("CUDA graphs cannot be had here (%s); steps are launched one by one.", error)
            self.engine.graphs = False
        for tensor, saved in zip([*self.rows, self.ages], kept, strict=True):
            tensor.copy_(saved)

    def _steps(self) -> None:
        """CHUNK steps in place, without a look at any value."""
        engine, rows, size = self.engine, self.rows, self.size
        for t in range(CHUNK):
            h, c = engine._advance(rows)
            y = torch.addmm(engine._b_out, h, engine._w_out)
            noise = self.noise.gather(
                1, self.ages.clamp(max=self.life - 1).view(-1, 1, 1).expand(-1, 1, self.noise.shape[2])
            ).squeeze(1)
            offsets, pens, gains = _sample(
                y[:size], y[size:] if self.guided else None, noise, self.settings, self.ages, engine.min_log_sigma
            )
            self.ages += 1
            pens = torch.where(self.ages >= self.settings[:, 5], PEN_END, pens)
            torch.stack([offsets[:, 0], offsets[:, 1], pens.float(), gains], dim=1, out=self.drawn[t])
            states = engine._pen_states[pens]
            if self.guided:
                offsets, states = offsets.repeat(2, 1), states.repeat(2, 1)
            place = _moved(rows.place, rows.previous, offsets)
            for tensor, new in (
                (rows.h, h),
                (rows.c, c),
                (rows.place, place),
                (rows.previous, torch.cat([offsets, states], dim=1)),
            ):
                tensor.copy_(new)


class TorchBatch:
    """Drawings in the making on a device; see :class:`sketch_core.engine.SampleBatch` for what each call does."""

    def __init__(self, engine: TorchEngine) -> None:
        self.engine = engine
        self._numbers: list[int] = []  # of the drawings in the slots, in order
        self._guided: list[bool] = []
        self._lives: list[int] = []
        self._slots: _Slots | None = None
        self._ready: deque[Step] = deque()
        self._joining: list[_Joining] = []
        self._gone: set[int] = set()  # dropped or ended, and still in a slot
        self._here: dict[int, int] = {}  # numbers that the caller knows to be in: rows of the network
        self._next = 0

    def __len__(self) -> int:
        return len(self._here)

    @property
    def cell_rows(self) -> int:
        """Rows of the recurrent network in use, references included."""
        return sum(self._here.values())

    def add(
        self,
        state: State,
        noise: Sequence[Floats],
        temperatures: Sequence[Temperatures],
        *,
        reference: State | None = None,
        guidance: float = 0.0,
        allow_empty: bool = True,
    ) -> NDArray[np.int64]:
        """Let drawings join at the next chunk; returns their numbers."""
        guided = reference is not None and guidance > 0
        if guided and any(item.shape[1] < 2 + 3 * CANDIDATES for item in noise):
            raise ValueError(f"A guided drawing needs noise for {CANDIDATES} candidates.")
        numbers = np.arange(self._next, self._next + len(state))
        self._next += len(state)
        weights = (guidance, guidance * PEN_GUIDANCE) if guided else (0.0, 0.0)
        settings = np.array(
            [
                (1.0 / t.pi, 1.0 / t.pen, np.sqrt(t.sigma), *weights, len(item), allow_empty)
                for t, item in zip(temperatures, noise, strict=True)
            ],
            dtype=np.float32,
        )
        self._joining.append(
            _Joining(numbers.tolist(), state, reference if guided else None, list(noise), settings.reshape(-1, 7))
        )
        self._here.update(dict.fromkeys(numbers.tolist(), 2 if guided else 1))
        return numbers

    def drop(self, rows: Sequence[int] | NDArray[np.int64]) -> None:
        """Let drawings leave before their end."""
        for number in map(int, rows):
            if self._here.pop(number, None) is not None:
                self._gone.add(number)

    def step(self) -> Step:
        """Draw one point of each; drawings that end leave the batch."""
        if not self._here:
            return _no_step()
        while not self._ready:
            self._run()
        step = self._ready.popleft()
        kept = np.array([number in self._here for number in step.rows.tolist()], dtype=bool)
        if not kept.all():  # dropped since that chunk was run
            step = Step(step.rows[kept], step.offsets[kept], step.pens[kept], step.gains[kept])
        for number in step.rows[step.pens == PEN_END].tolist():
            self._here.pop(number, None)
        return step

    def _run(self) -> None:
        """Another chunk, cut into steps."""
        if self._joining or self._gone:
            self._resettle()
        slots = self._slots
        if slots is None:
            self._ready.append(_no_step())
            return
        drawn = slots.run()[:, : len(self._numbers)]
        numbers = np.array(self._numbers, dtype=np.int64)
        alive = np.ones(len(numbers), dtype=bool)
        for points in drawn:  # (n, 4)
            if not alive.any():
                break
            pens = points[alive, 2].astype(np.int64)
            self._ready.append(Step(numbers[alive], points[alive, :2].copy(), pens, points[alive, 3].copy()))
            alive[alive] = pens != PEN_END
        self._gone.update(numbers[~alive].tolist())

    @torch.inference_mode()
    def _resettle(self) -> None:
        """Let the gone leave their slots and those that wait join."""
        engine, old = self.engine, self._slots
        joining = [item.without(self._gone) for item in self._joining]
        self._joining = []
        kept = [k for k, number in enumerate(self._numbers) if number not in self._gone]
        numbers = [self._numbers[k] for k in kept]
        guided = [self._guided[k] for k in kept]
        lives = [self._lives[k] for k in kept]
        self._gone.clear()
        n_old = len(kept)
        for item in joining:
            numbers += item.numbers
            guided += [item.reference is not None] * len(item.numbers)
            lives += [len(noise) for noise in item.noise]
        self._numbers, self._guided, self._lives = numbers, guided, lives
        if not numbers:
            self._slots = None
            if old is not None:
                engine._return(old)
            return
        new = engine._borrow(len(numbers), max(lives), any(guided))
        if old is not None and n_old:
            places = torch.tensor(kept, device=engine.device)
            for target, source in zip(new.rows, old.rows, strict=True):
                target[:n_old] = source[places]
                if new.guided and old.guided:
                    target[new.size : new.size + n_old] = source[places + old.size]
            life, width = min(new.life, old.life), min(new.noise.shape[2], old.noise.shape[2])
            new.noise[:n_old, :life, :width] = old.noise[places, :life, :width]
            new.settings[:n_old], new.ages[:n_old] = old.settings[places], old.ages[places]
        begin = n_old
        for item in joining:
            end = begin + len(item.numbers)
            for k, array in enumerate(item.state):
                new.rows[k][begin:end] = engine._tensor(array)
                if item.reference is not None:
                    new.rows[k][new.size + begin : new.size + end] = engine._tensor(item.reference[k])
            for slot, noise in enumerate(item.noise, begin):
                width = min(noise.shape[1], new.noise.shape[2])
                new.noise[slot, : len(noise), :width] = engine._tensor(noise[:, :width])
            new.settings[begin:end] = engine._tensor(item.settings)
            new.ages[begin:end] = 0
            begin = end
        new.settings[begin:, 5] = 0.0  # empty slots: at their end already
        if old is not None:
            engine._return(old)
        self._slots = new


class _Joining(NamedTuple):
    numbers: list[int]
    state: State
    reference: State | None
    noise: list[Floats]
    settings: Floats

    def without(self, gone: set[int]) -> _Joining:
        kept = [k for k, number in enumerate(self.numbers) if number not in gone]
        return _Joining(
            [self.numbers[k] for k in kept],
            self.state.take(kept),
            self.reference and self.reference.take(kept),
            [self.noise[k] for k in kept],
            self.settings[kept],
        )


def _no_step() -> Step:
    none = np.zeros(0, dtype=np.int64)
    return Step(none, np.zeros((0, 2), dtype=np.float32), none, np.zeros(0, dtype=np.float32))


# -- the distribution, as in sketch_core.engine -------------------------------------------------------


def _sample(  # noqa: PLR0917
    y: Tensor, y_reference: Tensor | None, noise: Tensor, settings: Tensor, ages: Tensor, min_log_sigma: float
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`engine.sample_point`, or :func:`engine.sample_guided` where a drawing is guided: offsets, pens, gains.

    Unguided drawings of a guided batch (guidance 0) take the first candidate, as they do alone.
    """
    pen_logits = y[:, :3] * settings[:, 1:2]
    if y_reference is not None:
        q, q_reference = (torch.softmax(each[:, :3], 1) + PEN_FLOOR for each in (y, y_reference))
        pen_logits = pen_logits + settings[:, 4:5] * torch.log(q / q_reference)
    no_end = (ages == 0) & (settings[:, 6] < 0.5)
    pen_logits = pen_logits.masked_fill(
        torch.stack([torch.zeros_like(no_end), torch.zeros_like(no_end), no_end], 1), -torch.inf
    )
    pens = _choose(pen_logits, noise[:, 0:1])
    n_candidates = 1 if y_reference is None else CANDIDATES
    draws = noise[:, 2 : 2 + 3 * n_candidates].reshape(-1, n_candidates, 3)  # (B, K, 3)
    candidates = _offsets(y, draws, settings, min_log_sigma)  # (B, K, 2)
    if y_reference is None:
        return candidates[:, 0], pens, torch.zeros_like(ages, dtype=y.dtype)
    ratio = torch.log(_density(y, candidates, min_log_sigma) / _density(y_reference, candidates, min_log_sigma))
    guided = settings[:, 3] > 0
    chosen = torch.where(guided, _choose(settings[:, 3:4] * ratio, noise[:, 1:2]), 0).unsqueeze(1)  # (B, 1)
    offsets = candidates.gather(1, chosen.unsqueeze(2).expand(-1, -1, 2)).squeeze(1)
    pen_gain = torch.log_softmax(y[:, :3], 1) - torch.log_softmax(y_reference[:, :3], 1)
    gains = pen_gain.gather(1, pens.unsqueeze(1)) + ratio.gather(1, chosen) * (pens != PEN_END).unsqueeze(1)
    return offsets, pens, gains.squeeze(1) * guided


def _parameters(y: Tensor, min_log_sigma: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """π logits, μx, μy, log σx, log σy, ρ of (B, 6M + 3): (B, M) each."""
    pi, mu_x, mu_y, log_x, log_y, rho = y[:, 3:].reshape(len(y), 6, -1).unbind(1)
    log_x, log_y = (value.clamp(min_log_sigma, MAX_LOG_SIGMA) for value in (log_x, log_y))
    return pi, mu_x, mu_y, log_x, log_y, torch.tanh(rho).clamp(-MAX_RHO, MAX_RHO)


def _offsets(y: Tensor, draws: Tensor, settings: Tensor, min_log_sigma: float) -> Tensor:
    """(B, K, 2) offsets from draws (B, K, 3): uniform for the component, two normals."""
    pi, *rest = _parameters(y, min_log_sigma)
    logits = (pi * settings[:, 0:1]).unsqueeze(1).expand(-1, draws.shape[1], -1)  # (B, K, M)
    component = _choose(logits, draws[:, :, 0:1])  # (B, K)
    mu_x, mu_y, log_x, log_y, rho = (value.gather(1, component) for value in rest)  # (B, K) each
    root, normal_x, normal_y = settings[:, 2:3], draws[:, :, 1], draws[:, :, 2]
    x = mu_x + root * torch.exp(log_x) * normal_x
    return torch.stack(
        [x, mu_y + root * torch.exp(log_y) * (rho * normal_x + torch.sqrt(1.0 - rho * rho) * normal_y)], dim=2
    )


def _density(y: Tensor, offsets: Tensor, min_log_sigma: float) -> Tensor:
    """(B, K) densities of offsets (B, K, 2) at τ = 1, plus the floor."""
    pi, mu_x, mu_y, log_x, log_y, rho = (value.unsqueeze(1) for value in _parameters(y, min_log_sigma))  # (B, 1, M)
    dx = (offsets[:, :, 0:1] - mu_x) * torch.exp(-log_x)
    dy = (offsets[:, :, 1:2] - mu_y) * torch.exp(-log_y)
    rest = 1.0 - rho * rho
    squared = (dx * dx + dy * dy - 2.0 * rho * dx * dy) / rest
    norm = torch.softmax(pi, 2) * torch.exp(-log_x - log_y) / (2.0 * np.pi * torch.sqrt(rest))
    return (norm * torch.exp(-0.5 * squared)).sum(dim=2) + RATIO_FLOOR


def _choose(logits: Tensor, uniform: Tensor) -> Tensor:
    """Index drawn from softmax(logits) (..., ·) by the inverse of its cumulative sum; uniform (..., 1)."""
    cumulative = torch.exp(logits - logits.amax(dim=-1, keepdim=True)).cumsum(dim=-1)
    # The threshold lies below the total, so an index always exists; rounding must not name one too many.
    return (cumulative <= uniform * cumulative[..., -1:]).sum(dim=-1).clamp(max=logits.shape[-1] - 1)
