"""The fast sampler: one interface over the decoder's weights, without autograd and per-step bookkeeping.

A drawing in the making is one row of a :class:`SampleBatch`. Rows know nothing of each other: each has its
own condition, temperature, noise and age, may join at any step and leaves when its drawing ends, which is
what makes nine endings cost little more than one and lets requests of many users share a batch.

What is constant over a drawing (z, category, biases) enters the gates once; the recurrent and the input
weights are one matrix; noise is drawn up front, so that a drawing depends on its own seed alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sketch_core.mixture import MAX_LOG_SIGMA, MAX_RHO, MIN_LOG_SIGMA, Temperatures
from sketch_core.model import POSITION_SCALE, SketchRNNConfig
from sketch_core.strokes import START_TOKEN

Floats = NDArray[np.float32]

PEN_DOWN, PEN_LIFT, PEN_END = 0, 1, 2
NOISE_SIZE = 4  # component, pen, and two normals for the offset


class State(NamedTuple):
    """Decoder states after some points, for B drawings. Arrays are never written to once they are here."""

    h: Floats
    """(B, H)"""
    c: Floats
    """(B, H)"""
    constant: Floats
    """(B, 4H): what z, the category and the biases give to the gates."""
    previous: Floats
    """(B, 5): the last point in stroke5, the next step's input."""
    place: Floats
    """(B, 4): where the pen is, and the first point of its stroke, both from the drawing's first point."""

    def __len__(self) -> int:
        return len(self.h)

    def take(self, indices: Any) -> State:
        """The states of some rows (repeats allowed)."""
        return State(*(array[indices] for array in self))

    @staticmethod
    def join(states: Sequence[State]) -> State:
        return State(*(np.concatenate(arrays) for arrays in zip(*states, strict=True)))


@dataclass(frozen=True)
class Step:
    """What one step of a batch drew, for the rows that were in it."""

    rows: NDArray[np.int64]
    """(B,) row numbers as given by :meth:`SampleBatch.add`."""
    offsets: Floats
    """(B, 2) normalised Δx, Δy; meaningless where the pen state is PEN_END."""
    pens: NDArray[np.int64]
    """(B,) PEN_DOWN, PEN_LIFT or PEN_END."""


def draw_noise(seed: int, index: int, n_steps: int) -> Floats:
    """The noise of drawing ``index`` of ``seed``: (n_steps, 4) float32, of which a longer one is a continuation.

    Columns: uniform for the component, uniform for the pen, two standard normals.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed & (2**64 - 1), index]))
    noise = generator.random((n_steps, NOISE_SIZE))
    radius = np.sqrt(-2.0 * np.log1p(-noise[:, 2:3]))  # Box-Muller: a fixed number of draws a step
    angle = 2.0 * np.pi * noise[:, 3]
    normal = radius * np.column_stack([np.cos(angle), np.sin(angle)])
    # 1 - 2**-24 is the largest float32 below 1: a uniform must not round up to 1.
    return np.column_stack([np.minimum(noise[:, :2], 1 - 2**-24), normal]).astype(np.float32)


class CpuEngine:
    """The decoder in NumPy, one thread of BLAS calls and nothing else.

    Args:
        config: the architecture.
        weights: parameters by their names in :class:`sketch_core.model.SketchRNN`, float32.
    """

    def __init__(self, config: SketchRNNConfig, weights: Mapping[str, Floats]) -> None:
        self.config = config
        self.prefix_steps = 0
        """Steps that :meth:`read` has run so far: what caching is meant to save."""
        size, points = config.decoder_size, config.point_size
        w_ih, w_hh = weights["decoder.lstm.weight_ih_l0"], weights["decoder.lstm.weight_hh_l0"]  # (4H, ·), i f g o
        bias = weights["decoder.lstm.bias_ih_l0"] + weights["decoder.lstm.bias_hh_l0"]
        # Gate order i, f, o, g, and half the weight for the first three: σ(x) = (1 + tanh(x / 2)) / 2, so that
        # one tanh serves all four.
        order = np.concatenate([np.arange(0, 2 * size), np.arange(3 * size, 4 * size), np.arange(2 * size, 3 * size)])
        half = np.where(np.arange(4 * size) < 3 * size, np.float32(0.5), np.float32(1.0))
        self._w = np.ascontiguousarray((np.hstack([w_hh, w_ih[:, :points]])[order] * half[:, None]).T)  # (H + P, 4H)
        self._w_condition = np.ascontiguousarray((w_ih[:, points:][order] * half[:, None]).T)  # (C, 4H)
        self._bias = bias[order] * half  # (4H,)
        self._w_out = np.ascontiguousarray(weights["decoder.output.weight"].T)  # (H, 6M + 3)
        self._b_out = weights["decoder.output.bias"]
        if config.condition_size:
            self._w_initial = np.ascontiguousarray(weights["decoder.initial.weight"].T)  # (C, 2H)
            self._b_initial = weights["decoder.initial.bias"]
        self.min_log_sigma = max(np.log(config.min_sigma), MIN_LOG_SIGMA) if config.min_sigma > 0 else MIN_LOG_SIGMA

    # -- states ------------------------------------------------------------------------------------

    def start(self, condition: Floats) -> State:
        """States before the first point.

        Args:
            condition: (B, condition_size), as :meth:`SketchRNN.condition` gives it.
        """
        batch, size = len(condition), self.config.decoder_size
        if self.config.condition_size:
            initial = np.tanh(condition @ self._w_initial + self._b_initial)
            h, c = initial[:, :size].copy(), initial[:, size:].copy()
            constant = condition @ self._w_condition + self._bias
        else:
            h, c = np.zeros((2, batch, size), dtype=np.float32)
            constant = np.tile(self._bias, (batch, 1))
        previous = np.tile(START_TOKEN, (batch, 1))
        return State(h, c, constant.astype(np.float32), previous, np.zeros((batch, 4), dtype=np.float32))

    def read(self, state: State, points: Floats, lengths: NDArray[np.int64] | None = None) -> tuple[State, Floats]:
        """Feed known points: the state after them, and what was predicted for each.

        Args:
            state: B drawings.
            points: (B, T, 5) normalised stroke5 rows that follow ``state``.
            lengths: (B,) how many of them each drawing has; T by default.

        Returns:
            The state whose next step predicts the point after the last one read, and y (B, T, 6M + 3), where
            y[:, t] is the prediction *for* points[:, t].
        """
        batch, steps, _ = points.shape
        size = self.config.decoder_size
        self.prefix_steps += batch * steps
        lengths = np.full(batch, steps) if lengths is None else np.asarray(lengths)
        cell = _Cell(self, state)
        outputs = np.empty((batch, steps, size), dtype=np.float32)
        done = list(state)
        for t in range(steps):
            outputs[:, t] = cell.advance()
            cell.feed(points[:, t])
            ended = np.flatnonzero(lengths == t + 1)
            if len(ended) and t + 1 < steps:  # rows that go on as padding: keep them as they are now
                now = cell.state()
                done = [_merge(old, new, ended) for old, new in zip(done, now, strict=True)]
        now = cell.state()
        last = np.flatnonzero(lengths == steps)
        done = [_merge(old, new, last) for old, new in zip(done, now, strict=True)]
        y = outputs.reshape(-1, size) @ self._w_out + self._b_out
        return State(*done), y.reshape(batch, steps, -1)

    def predict(self, state: State) -> Floats:
        """y (B, 6M + 3) for the next point; the state stays as it is."""
        return self._output(_Cell(self, state).advance())

    def _output(self, h: Floats) -> Floats:
        y: Floats = h @ self._w_out + self._b_out
        return y

    # -- sampling ----------------------------------------------------------------------------------

    def batch(self) -> SampleBatch:
        """An empty batch of drawings in the making."""
        return SampleBatch(self)

    def sample(
        self,
        state: State,
        noise: Sequence[Floats],
        temperatures: Sequence[Temperatures],
        *,
        allow_empty: bool = True,
    ) -> Iterator[Step]:
        """Draw B drawings to their ends, yielding each step; see :class:`SampleBatch`."""
        batch = self.batch()
        batch.add(state, noise, temperatures, allow_empty=allow_empty)
        while len(batch):
            yield batch.step()


def _merge(old: Floats, new: Floats, rows: NDArray[np.int64]) -> Floats:
    merged = old.copy()
    merged[rows] = new[rows]
    return merged


class _Cell:
    """The recurrent step over a number of rows, in buffers that are used again."""

    def __init__(self, engine: CpuEngine, state: State) -> None:
        self.engine = engine
        size = engine.config.decoder_size
        self._size = size
        batch = len(state)
        self.inputs = np.empty((batch, size + engine.config.point_size), dtype=np.float32)  # [h, point, places]
        self.inputs[:, :size] = state.h
        self.c = state.c.copy()
        self.constant = state.constant
        self.place = state.place.copy()
        self.previous = state.previous.copy()
        self._set_inputs()

    def _set_inputs(self) -> None:
        size, inputs = self._size, self.inputs
        inputs[:, size : size + 5] = self.previous
        if self.engine.config.positions:
            np.multiply(self.place[:, :2], POSITION_SCALE, out=inputs[:, size + 5 : size + 7])
            inputs[:, size + 7 :] = (self.place[:, :2] - self.place[:, 2:]) * POSITION_SCALE

    def advance(self) -> Floats:
        """One LSTM step: h (B, H), a view into the buffers."""
        size = self._size
        gates = self.inputs @ self.engine._w
        gates += self.constant
        np.tanh(gates, out=gates)
        sigmoids = gates[:, : 3 * size]
        sigmoids += 1.0
        sigmoids *= 0.5
        candidate = gates[:, 3 * size :]
        self.c *= gates[:, size : 2 * size]
        candidate *= gates[:, :size]
        self.c += candidate
        h = self.inputs[:, :size]
        np.tanh(self.c, out=h)
        h *= gates[:, 2 * size : 3 * size]
        return h

    def feed(self, point: Floats) -> None:
        """Take (B, 5) as the point that was drawn."""
        place = self.place
        place[:, :2] += point[:, :2]
        lifted = self.previous[:, 3] > 0.5  # the pen lifted before this point, so a stroke starts here
        if lifted.any():
            place[lifted, 2:] = place[lifted, :2]
        self.previous[:] = point
        self._set_inputs()

    def state(self) -> State:
        return State(
            self.inputs[:, : self._size].copy(), self.c.copy(), self.constant, self.previous.copy(), self.place.copy()
        )

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Go on with some rows only."""
        self.inputs, self.c, self.constant = self.inputs[rows], self.c[rows], self.constant[rows]
        self.place, self.previous = self.place[rows], self.previous[rows]

    def join(self, other: _Cell) -> None:
        """Go on with the rows of both."""
        self.inputs = np.concatenate([self.inputs, other.inputs])
        self.c = np.concatenate([self.c, other.c])
        self.constant = np.concatenate([self.constant, other.constant])
        self.place = np.concatenate([self.place, other.place])
        self.previous = np.concatenate([self.previous, other.previous])


class SampleBatch:
    """Drawings in the making that share their steps. Rows join and leave at any step."""

    def __init__(self, engine: CpuEngine) -> None:
        self.engine = engine
        self._cell: _Cell | None = None
        self._rows = np.zeros(0, dtype=np.int64)
        self._ages = np.zeros(0, dtype=np.int64)
        self._noise: list[Floats] = []
        self._lives = np.zeros(0, dtype=np.int64)
        self._allow_empty = np.zeros(0, dtype=bool)
        self._temperatures = np.zeros((0, 3), dtype=np.float32)
        self._next = 0

    def __len__(self) -> int:
        return len(self._rows)

    def add(
        self,
        state: State,
        noise: Sequence[Floats],
        temperatures: Sequence[Temperatures],
        *,
        allow_empty: bool = True,
    ) -> NDArray[np.int64]:
        """Let drawings join.

        Args:
            state: B drawings.
            noise: B arrays (n_steps, 4) of :func:`draw_noise`; a drawing longer than that is ended.
            temperatures: B.
            allow_empty: whether a drawing may end at its first step.

        Returns:
            (B,) row numbers, never used twice.
        """
        n = len(state)
        rows = np.arange(self._next, self._next + n)
        self._next += n
        cell = _Cell(self.engine, state)
        if self._cell is None or not len(self):
            self._cell = cell
        else:
            self._cell.join(cell)
        self._rows = np.concatenate([self._rows, rows])
        self._ages = np.concatenate([self._ages, np.zeros(n, dtype=np.int64)])
        self._lives = np.concatenate([self._lives, [len(item) for item in noise]]).astype(np.int64)
        self._noise.extend(noise)
        self._allow_empty = np.concatenate([self._allow_empty, np.full(n, allow_empty)])
        added = np.array([(1.0 / t.pi, 1.0 / t.pen, np.sqrt(t.sigma)) for t in temperatures], dtype=np.float32)
        self._temperatures = np.concatenate([self._temperatures, added.reshape(-1, 3)])
        return rows

    def drop(self, rows: Sequence[int] | NDArray[np.int64]) -> None:
        """Let drawings leave before their end (cancelled)."""
        self._keep(np.flatnonzero(~np.isin(self._rows, rows)))

    def _keep(self, kept: NDArray[np.int64]) -> None:
        if len(kept) == len(self._rows):
            return
        if self._cell is not None:
            self._cell.keep(kept)
        self._noise = [self._noise[i] for i in kept]
        self._rows, self._ages, self._lives = self._rows[kept], self._ages[kept], self._lives[kept]
        self._allow_empty, self._temperatures = self._allow_empty[kept], self._temperatures[kept]

    def step(self) -> Step:
        """Draw one point of each; drawings that end leave the batch."""
        cell = self._cell
        if cell is None or not len(self):
            none = np.zeros(0, dtype=np.int64)
            return Step(none, np.zeros((0, 2), dtype=np.float32), none)
        y = self.engine._output(cell.advance())  # (B, 6M + 3)
        noise = np.stack([item[age] for item, age in zip(self._noise, self._ages, strict=True)])  # (B, 4)
        ended_by_age = self._ages + 1 >= self._lives
        no_end = (self._ages == 0) & ~self._allow_empty
        offsets, pens = sample_point(y, noise, self._temperatures, self.engine.min_log_sigma, no_end)
        pens[ended_by_age] = PEN_END
        result = Step(self._rows, offsets, pens)
        point = np.zeros((len(pens), 5), dtype=np.float32)
        point[:, :2] = offsets
        point[np.arange(len(pens)), 2 + pens] = 1.0
        cell.feed(point)
        self._ages = self._ages + 1
        alive = np.flatnonzero(pens != PEN_END)
        if len(alive) < len(pens):
            self._keep(alive)
        return result


def sample_point(
    y: Floats,
    noise: Floats,
    temperatures: Floats,
    min_log_sigma: float,
    no_end: NDArray[np.bool_] | None = None,
) -> tuple[Floats, NDArray[np.int64]]:
    """One point from each row's distribution (paper, equation 8 and section 3.3 for τ).

    Args:
        y: (B, 6M + 3) raw outputs.
        noise: (B, 4): uniform for the component, uniform for the pen, two normals.
        temperatures: (B, 3): 1/τ of π, 1/τ of the pen, √τ of σ.
        min_log_sigma: floor of log σ.
        no_end: (B,) rows that must not end here.

    Returns:
        offsets (B, 2) and pen states (B,).
    """
    batch = len(y)
    n_mixtures = (y.shape[1] - 3) // 6
    pen_logits = y[:, :3] * temperatures[:, 1:2]
    if no_end is not None and no_end.any():
        pen_logits[no_end, PEN_END] = -np.inf
    pens = _choose(pen_logits, noise[:, 1])
    component = _choose(y[:, 3 : 3 + n_mixtures] * temperatures[:, 0:1], noise[:, 0])
    rows = np.arange(batch)
    column = 3 + n_mixtures + component  # μx of the chosen component; the others follow M apart
    chosen = y[rows[:, None], column[:, None] + n_mixtures * np.arange(5)]  # (B, 5): μx, μy, log σx, log σy, ρ̂
    sigma = np.exp(np.clip(chosen[:, 2:4], min_log_sigma, MAX_LOG_SIGMA)) * temperatures[:, 2:3]
    rho = np.clip(np.tanh(chosen[:, 4]), -MAX_RHO, MAX_RHO)
    normal = noise[:, 2:4]
    offsets = chosen[:, :2].copy()
    offsets[:, 0] += sigma[:, 0] * normal[:, 0]
    offsets[:, 1] += sigma[:, 1] * (rho * normal[:, 0] + np.sqrt(1.0 - rho * rho) * normal[:, 1])
    return offsets, pens


def _choose(logits: Floats, uniform: Floats) -> NDArray[np.int64]:
    """Index drawn from softmax(logits) of each row by the inverse of its cumulative sum."""
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    cumulative = np.cumsum(weights, axis=1)
    threshold = uniform[:, None] * cumulative[:, -1:]
    # The last entry equals the total and the threshold lies below it, so an index always exists.
    index: NDArray[np.int64] = (cumulative > threshold).argmax(axis=1)
    return index
