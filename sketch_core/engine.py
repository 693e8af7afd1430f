"""The fast sampler: one interface over the decoder's weights, without autograd and per-step bookkeeping.

A drawing in the making is one row of a :class:`SampleBatch`. Rows know nothing of each other: each has its
own condition, temperature, noise and age, may join at any step and leaves when its drawing ends, which is
what makes nine endings cost little more than one and lets requests of many users share a batch.

What is constant over a drawing (z, category, biases) enters the gates once; the recurrent and the input
weights are one matrix, packed in half precision where that loses nothing; noise is drawn up front, so that a
drawing depends on its own seed alone. A row or two take a whole step in one compiled call, which reads the recurrent
weights as bf16. Without Numba a lone row is sampled in plain Python numbers: NumPy's price for a call is a microsecond.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from sketch_core import kernels
from sketch_core.mixture import CANDIDATES, MAX_LOG_SIGMA, MAX_RHO, MIN_LOG_SIGMA, PEN_FLOOR, RATIO_FLOOR, Temperatures
from sketch_core.model import POSITION_SCALE, SketchRNNConfig
from sketch_core.strokes import START_TOKEN

Floats = NDArray[np.float32]

PEN_DOWN, PEN_LIFT, PEN_END = 0, 1, 2
ONE, HALF = np.float32(1.0), np.float32(0.5)
FEW = 2
"""Rows up to which a compiled product of our own, that reads bf16, is faster than FBGEMM's."""
MIDDLING = 40
"""Rows up to which all that follows the product is done in one compiled call; more are worth PyTorch's own product."""
FEW_READ = 4
"""Rows up to which known points are read in one compiled call."""
PEN_GUIDANCE = 0.25
"""Weight of the pen's log ratio for each unit of guidance; two and four times as much make nothing better named."""
PEN_STATES = np.eye(3, dtype=np.float32)  # (p1, p2, p3) of PEN_DOWN, PEN_LIFT, PEN_END
PEN_TUPLES = [tuple(state) for state in PEN_STATES.tolist()]


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


class Batch(Protocol):
    """Drawings in the making that share their steps; see :class:`SampleBatch`."""

    def __len__(self) -> int: ...
    @property
    def cell_rows(self) -> int: ...
    def add(
        self,
        state: State,
        noise: Sequence[Floats],
        temperatures: Sequence[Temperatures],
        *,
        reference: State | None = None,
        guidance: float = 0.0,
        allow_empty: bool = True,
    ) -> NDArray[np.int64]: ...
    def drop(self, rows: Sequence[int] | NDArray[np.int64]) -> None: ...
    def step(self) -> Step: ...


class Engine(Protocol):
    """A decoder ready to sample: :class:`CpuEngine`, or :class:`sketch_core.torch_engine.TorchEngine` for GPUs.

    Whichever it is, the same noise gives the same drawings (to rounding).
    """

    prefix_steps: int

    def start(self, condition: Floats) -> State: ...
    def read(self, state: State, points: Floats, lengths: NDArray[np.int64] | None = None) -> tuple[State, Floats]: ...
    def predict(self, state: State) -> Floats: ...
    def batch(self) -> Batch: ...
    def sample(
        self,
        state: State,
        noise: Sequence[Floats],
        temperatures: Sequence[Temperatures],
        *,
        reference: State | None = None,
        guidance: float = 0.0,
        allow_empty: bool = True,
    ) -> Iterator[Step]:
        """Draw B drawings to their ends, yielding each step; see :class:`SampleBatch`."""
        batch = self.batch()
        batch.add(state, noise, temperatures, reference=reference, guidance=guidance, allow_empty=allow_empty)
        while len(batch):
            yield batch.step()


@dataclass(frozen=True)
class Step:
    """What one step of a batch drew, for the rows that were in it."""

    rows: NDArray[np.int64]
    """(B,) row numbers as given by :meth:`SampleBatch.add`."""
    offsets: Floats
    """(B, 2) normalised Δx, Δy; meaningless where the pen state is PEN_END."""
    pens: NDArray[np.int64]
    """(B,) PEN_DOWN, PEN_LIFT or PEN_END."""
    gains: Floats
    """(B,) log p of what was drawn less log p of it by the reference, at τ = 1; 0 where there is none."""


def draw_noise(seed: int, index: int, n_steps: int, candidates: int = 1) -> Floats:
    """The noise of drawing ``index`` of ``seed``: (n_steps, 2 + 3 candidates) float32; longer ones are continuations.

    Columns: uniform for the pen, uniform for the choice among candidates, and for each candidate a uniform for the
    component and two standard normals for the offset.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed & (2**64 - 1), index]))
    result = generator.random((n_steps, 2 + 3 * candidates), dtype=np.float32)  # below 1
    radius = np.sqrt(-2.0 * np.log1p(-result[:, 3::3]))  # Box-Muller: a fixed number of draws a step
    angle = np.float32(2.0 * np.pi) * result[:, 4::3]
    result[:, 3::3], result[:, 4::3] = radius * np.cos(angle), radius * np.sin(angle)
    return result


def gate_order(size: int) -> NDArray[np.int64]:
    """Rows of PyTorch's gates (i, f, g, o) in the order i, f, o, g: the three sigmoids lie together."""
    return np.concatenate([np.arange(0, 2 * size), np.arange(3 * size, 4 * size), np.arange(2 * size, 3 * size)])


def product(a: Floats, b: Floats) -> Floats:
    """a @ b by PyTorch.

    NumPy's library has threads of its own, which wait by spinning and fight PyTorch's over the same cores: nine
    drawings took 480 ms instead of 28 where OPENBLAS_NUM_THREADS was not set.
    """
    result: Floats = torch.from_numpy(np.ascontiguousarray(a)).matmul(torch.from_numpy(b)).numpy()
    return result


def pack_half(columns: Floats) -> Callable[[Floats], Floats] | None:
    """x (B, n_in) -> x @ columns.T through FBGEMM, whose weights are packed once and read in half precision.

    Two to nine rows take half the time of BLAS, which packs all the weights again at every call.

    Returns:
        ``None`` where the weights are not exactly half-precision numbers (checkpoints that we save are), or
        where PyTorch was built without FBGEMM (as on ARM).
    """
    with np.errstate(over="ignore"):
        if not np.array_equal(columns, columns.astype(np.float16).astype(np.float32)):
            return None
    try:
        packed = torch.ops.quantized.linear_prepack_fp16(torch.from_numpy(columns), None)
        multiply = torch.ops.quantized.linear_dynamic_fp16.default
        multiply(torch.zeros(1, columns.shape[1]), packed)
    except (RuntimeError, AttributeError, NotImplementedError):
        return None

    def packed_product(x: Floats) -> Floats:
        result: Floats = multiply(torch.from_numpy(x), packed).numpy()
        return result

    return packed_product


def pack_pairs(columns: Floats) -> NDArray[np.uint32] | None:
    """Weights (4H, H) as :data:`kernels.few_products` reads them: (4H, H / 2) pairs of bf16 numbers.

    Returns:
        ``None`` where they are not exactly bf16 numbers (those of checkpoints that we save are), or H is odd: then a
        lone row takes half as long again.
    """
    bits, half = np.ascontiguousarray(columns).view(np.uint32), columns.shape[1] // 2
    if columns.shape[1] % 2 or (bits & 0xFFFF).any():
        return None
    return np.ascontiguousarray((bits[:, :half] >> 16) | bits[:, half:])


def aligned(shape: tuple[int, ...]) -> Floats:
    """Zeros that start at a multiple of 64 bytes."""
    size = math.prod(shape)
    buffer = np.zeros(size + 16, dtype=np.float32)
    offset = -buffer.ctypes.data // 4 % 16
    return buffer[offset : offset + size].reshape(shape)


class CpuEngine(Engine):
    """The decoder on a CPU: matrix products by BLAS or FBGEMM, the rest compiled or in NumPy.

    Args:
        config: the architecture.
        weights: parameters by their names in :class:`sketch_core.model.SketchRNN`, float32.
        compiled: use :mod:`sketch_core.kernels` where they can be had.
    """

    def __init__(self, config: SketchRNNConfig, weights: Mapping[str, Floats], *, compiled: bool = True) -> None:
        self.config = config
        self.compiled = compiled and kernels.advance is not None and kernels.sample is not None
        self.prefix_steps = 0
        """Steps that :meth:`read` has run so far: what caching is meant to save."""
        size, points = config.decoder_size, config.point_size
        w_ih, w_hh = weights["decoder.lstm.weight_ih_l0"], weights["decoder.lstm.weight_hh_l0"]  # (4H, ·), i f g o
        bias = weights["decoder.lstm.bias_ih_l0"] + weights["decoder.lstm.bias_hh_l0"]
        order = gate_order(size)
        w = np.hstack([w_hh, w_ih[:, :points]])[order]  # (4H, H + P)
        self._packed = pack_half(w)
        self._w = w if self._packed is None else None
        self._pairs = pack_pairs(w[:, :size]) if self.compiled else None
        self._w_points = np.ascontiguousarray(w[:, size:].T)  # (P, 4H)
        # σ(x) = (1 + tanh(x / 2)) / 2: with the sigmoids' weights halved one tanh serves all four gates of a lone
        # row. Rows of a whole number of 32 bytes are read a tenth faster.
        self._half = np.where(np.arange(4 * size) < 3 * size, np.float32(0.5), np.float32(1.0))
        self._w_lone = aligned((4 * size, size + points + -(size + points) % 8))
        self._w_lone[:, : size + points] = w * self._half[:, None]
        self._w_condition = np.ascontiguousarray(w_ih[order, points:].T)  # (C, 4H)
        self._bias = bias[order]  # (4H,)
        self._w_out = np.ascontiguousarray(weights["decoder.output.weight"].T)  # (H, 6M + 3): too small to pack
        self._w_out_rows = np.ascontiguousarray(weights["decoder.output.weight"])
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
            initial = np.tanh(product(condition, self._w_initial) + self._b_initial)
            h, c = initial[:, :size].copy(), initial[:, size:].copy()
            constant = product(condition, self._w_condition) + self._bias
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
        if self._pairs is not None and batch <= FEW_READ and (lengths == steps).all():
            h = cell.read_few(np.ascontiguousarray(points))
            return cell.state(), self._output(h.reshape(-1, size)).reshape(batch, steps, -1)
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
        y = self._output(outputs.reshape(-1, size)) if steps else np.zeros((0, len(self._b_out)), dtype=np.float32)
        return State(*done), y.reshape(batch, steps, -1)

    def predict(self, state: State) -> Floats:
        """y (B, 6M + 3) for the next point; the state stays as it is."""
        return self._output(_Cell(self, state).advance())

    def _products(self, inputs: Floats) -> Floats:
        """(B, 4H): what h, the point and the pen's place give to the gates; inputs (B, H + P), contiguous."""
        if self._packed is not None:
            return self._packed(inputs)
        assert self._w is not None  # noqa: S101 (for the type checker: one of the two is there)
        return product(inputs, self._w.T)

    def _output(self, h: Floats) -> Floats:
        """y (B, 6M + 3) from h (B, H)."""
        if len(h) == 1:
            y: Floats = h @ self._w_out
            y += self._b_out
            return y
        return product(h, self._w_out) + self._b_out

    # -- sampling ----------------------------------------------------------------------------------

    def batch(self) -> SampleBatch:
        """An empty batch of drawings in the making."""
        return SampleBatch(self)


def _merge(old: Floats, new: Floats, rows: NDArray[np.int64]) -> Floats:
    merged = old.copy()
    merged[rows] = new[rows]
    return merged


class _Cell:
    """The recurrent step over a number of rows, in buffers that are used again."""

    def __init__(self, engine: CpuEngine, state: State) -> None:
        self.engine = engine
        self._size = size = engine.config.decoder_size
        batch = len(state)
        self.inputs = np.empty((batch, size + engine.config.point_size), dtype=np.float32)  # [h, point, places]
        self.inputs[:, :size] = state.h
        self.inputs[:, size : size + 5] = state.previous
        self.c = state.c.copy()
        self.constant = state.constant.copy()
        self.place = state.place.copy()
        self._lone: _LoneBuffers | None = None
        self._few: _FewBuffers | None = None
        self._set_places()

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def previous(self) -> Floats:
        """(B, 5), a view: the last point."""
        return self.inputs[:, self._size : self._size + 5]

    def _set_places(self) -> None:
        if self.engine.config.positions:
            size, inputs, place = self._size, self.inputs, self.place
            np.multiply(place[:, :2], POSITION_SCALE, out=inputs[:, size + 5 : size + 7])
            beside = inputs[:, size + 7 :]
            np.subtract(place[:, :2], place[:, 2:], out=beside)
            beside *= POSITION_SCALE

    def advance(self) -> Floats:
        """One LSTM step: h (B, H), contiguous."""
        if self.engine.compiled:
            self.advance_compiled()
            return self.inputs[:, : self._size].copy()
        if len(self.inputs) == 1:
            return self._advance_one()
        size = self._size
        gates = self.engine._products(self.inputs)  # (B, 4H): i, f, o, candidate
        gates += self.constant
        shared = torch.from_numpy(gates)  # PyTorch's sigmoid is worth its dearer calls from two rows on
        shared[:, : 3 * size].sigmoid_()
        candidate = gates[:, 3 * size :]
        np.tanh(candidate, out=candidate)
        self.c *= gates[:, size : 2 * size]
        candidate *= gates[:, :size]
        self.c += candidate
        h = np.tanh(self.c)
        h *= gates[:, 2 * size : 3 * size]
        self.inputs[:, :size] = h
        return h

    def advance_compiled(self) -> None:
        """:meth:`advance` by the compiled kernel, h left in the inputs."""
        assert kernels.advance is not None  # noqa: S101 (for the type checker)
        if len(self.inputs) <= FEW and self.engine._pairs is not None:
            few = self.few()
            assert kernels.few_products is not None  # noqa: S101
            kernels.few_products(self.engine._pairs, self.engine._w_points, self.inputs, few.gates)
            kernels.advance(few.gates, self.constant, HALF, self.c, self.inputs)
        elif len(self.inputs) == 1:
            lone = self._lone_gates()
            kernels.advance(lone.gates[None], lone.constant[None], ONE, self.c, self.inputs)
        else:
            kernels.advance(self.engine._products(self.inputs), self.constant, HALF, self.c, self.inputs)

    def few(self) -> _FewBuffers:
        """Buffers of the steps of a few rows."""
        if self._few is None or len(self._few.gates) != len(self.inputs):
            self._few = _FewBuffers(self.engine, len(self.inputs))
        return self._few

    def read_few(self, points: Floats) -> Floats:
        """Take points (B, T, 5) of a few rows in one compiled call: h (B, T, H) before each."""
        assert kernels.read_few is not None  # noqa: S101 (for the type checker)
        outputs = np.empty((*points.shape[:2], self._size), dtype=np.float32)
        few, positions = self.few(), self.engine.config.positions
        kernels.read_few(
            self.engine._pairs,
            self.engine._w_points,
            few.gates,
            self.constant,
            self.c,
            self.inputs,
            self.place,
            positions,
            points,
            outputs,
        )
        return outputs

    def _lone_gates(self) -> _LoneBuffers:
        """The matrix product for the only row."""
        lone = self._lone
        if lone is None:
            lone = self._lone = _LoneBuffers(self.engine, self.constant[0])
        lone.inputs[: self.inputs.shape[1]] = self.inputs[0]
        np.dot(self.engine._w_lone, lone.inputs, out=lone.gates)
        return lone

    def _advance_one(self) -> Floats:
        """:meth:`advance` of the only row, in as few calls as can be."""
        lone = self._lone_gates()
        lone.gates += lone.constant
        np.tanh(lone.gates, out=lone.gates)
        lone.sigmoids += 1.0  # twice the sigmoids
        c = self.c[0]
        c *= lone.forget
        lone.candidate *= lone.input
        c += lone.candidate
        c *= 0.5
        h = np.tanh(self.c)
        h *= lone.output
        h *= 0.5
        self.inputs[:, : self._size] = h
        return h

    def feed(self, point: Floats) -> None:
        """Take (B, 5) as the point that was drawn."""
        self._move(point[:, :2])
        self.previous[:] = point
        self._set_places()

    def _move(self, offsets: Floats) -> None:
        place = self.place
        place[:, :2] += offsets
        lifted = self.previous[:, 3] > 0.5  # the pen lifted before this point, so a stroke starts here
        if lifted.any():
            place[lifted, 2:] = place[lifted, :2]

    def feed_sampled(self, offsets: Floats, pens: NDArray[np.int64]) -> None:
        """:meth:`feed` for offsets (B, 2) and pen states (B,)."""
        self._move(offsets)
        size = self._size
        self.inputs[:, size : size + 2] = offsets
        self.inputs[:, size + 2 : size + 5] = PEN_STATES[pens]
        self._set_places()

    def feed_one(self, dx: float, dy: float, pen: int) -> None:
        """:meth:`feed` for the only row, without arrays."""
        size, row = self._size, self.inputs[0]
        x, y, start_x, start_y = self.place[0].tolist()
        x, y = x + dx, y + dy
        if row[size + 3] > 0.5:
            start_x, start_y = x, y
        self.place[0] = (x, y, start_x, start_y)
        down, lift, end = PEN_TUPLES[pen]
        if self.engine.config.positions:
            k = POSITION_SCALE
            row[size:] = (dx, dy, down, lift, end, k * x, k * y, k * (x - start_x), k * (y - start_y))
        else:
            row[size:] = (dx, dy, down, lift, end)

    def state(self) -> State:
        return State(
            self.inputs[:, : self._size].copy(), self.c.copy(), self.constant, self.previous.copy(), self.place.copy()
        )

    def drop(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Go on without some rows; the last ones move into their places, so that few bytes are copied.

        Returns:
            (B,) where each row is now; meaningless for those dropped.
        """
        before = len(self)
        left = before - len(rows)
        gone = np.zeros(before, dtype=bool)
        gone[rows] = True
        gaps, movers = np.flatnonzero(gone[:left]), left + np.flatnonzero(~gone[left:])
        for array in (self.inputs, self.c, self.constant, self.place):
            array[gaps] = array[movers]
        self.inputs, self.c, self.constant = self.inputs[:left], self.c[:left], self.constant[:left]
        self.place = self.place[:left]
        self._lone = None
        now = np.arange(before)
        now[movers] = gaps
        return now

    def join(self, other: _Cell) -> None:
        """Go on with the rows of both."""
        self.inputs = np.concatenate([self.inputs, other.inputs])
        self.c = np.concatenate([self.c, other.c])
        self.constant = np.concatenate([self.constant, other.constant])
        self.place = np.concatenate([self.place, other.place])


class _LoneBuffers:
    """Places of the gates of a lone row, cut up once."""

    def __init__(self, engine: CpuEngine, constant: Floats) -> None:
        size = engine.config.decoder_size
        self.constant = constant * engine._half
        self.inputs = aligned((engine._w_lone.shape[1],))
        self.gates = gates = aligned((4 * size,))
        self.sigmoids = gates[: 3 * size]
        self.input, self.forget, self.output = gates[:size], gates[size : 2 * size], gates[2 * size : 3 * size]
        self.candidate = gates[3 * size :]


class _FewBuffers:
    """What :data:`kernels.few_step` and :data:`kernels.read_few` write to."""

    def __init__(self, engine: CpuEngine, n: int) -> None:
        self.gates = np.empty((n, 4 * engine.config.decoder_size), dtype=np.float32)
        self.outputs = np.empty((n, engine.config.output_size), dtype=np.float32)


class SampleBatch:
    """Drawings in the making that share their steps. Drawings join and leave at any step.

    A guided drawing takes two rows of the recurrent network, which read the same points: its own, and a
    reference that knows less (no category, no z). Of :data:`CANDIDATES` points drawn from its own distribution one
    is chosen with chance (p_own / p_reference) ** guidance: what tells its category from others weighs more.
    """

    def __init__(self, engine: CpuEngine) -> None:
        self.engine = engine
        self._cell: _Cell | None = None
        self._rows = np.zeros(0, dtype=np.int64)  # (B,) the drawings' numbers
        self._own = np.zeros(0, dtype=np.int64)  # (B,) the drawing's place in the cell
        self._reference = np.zeros(0, dtype=np.int64)  # (B,) its reference's place there, -1 for none
        self._guidance = np.zeros((0, 2), dtype=np.float32)  # (B, 2) of offsets, of the pen
        self._ages = np.zeros(0, dtype=np.int64)
        self._lives = np.zeros(0, dtype=np.int64)
        self._noise = _NoisePool()
        self._slots = np.zeros(0, dtype=np.int64)  # (B,) the drawing's place in the pool
        self._may_end_at_once = np.zeros(0, dtype=bool)
        self._temperatures = np.zeros((0, 3), dtype=np.float32)
        self._next = 0

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def cell_rows(self) -> int:
        """Rows of the recurrent network in use, references included."""
        return len(self._rows) + int((self._reference >= 0).sum())

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
        """Let drawings join.

        Args:
            state: B drawings.
            noise: B arrays of :func:`draw_noise`; a drawing with more steps than that is ended.
            temperatures: B.
            reference: the same B starts as read by one who knows less; noise then needs CANDIDATES candidates.
            guidance: how much the difference between the two weighs; 0 leaves the reference out.
            allow_empty: whether a drawing may end at its first step.

        Returns:
            (B,) numbers of the drawings, never used twice.

        Raises:
            ValueError: noise of a guided drawing with too few candidates.
        """
        n = len(state)
        guided = reference is not None and guidance > 0
        if guided and any(item.shape[1] < 2 + 3 * CANDIDATES for item in noise):
            raise ValueError(f"A guided drawing needs noise for {CANDIDATES} candidates.")
        rows = np.arange(self._next, self._next + n)
        self._next += n
        added = _Cell(self.engine, State.join([state, reference]) if guided and reference is not None else state)
        if self._cell is None or not len(self):
            self._cell, begin = added, 0
        else:
            begin = len(self._cell)
            self._cell.join(added)
        places = np.arange(begin, begin + n)
        self._rows = np.concatenate([self._rows, rows])
        self._own = np.concatenate([self._own, places])
        self._reference = np.concatenate([self._reference, places + n if guided else np.full(n, -1)])
        weights = (guidance, guidance * PEN_GUIDANCE) if guided else (0.0, 0.0)
        self._guidance = np.concatenate([self._guidance, np.tile(np.array(weights, dtype=np.float32), (n, 1))])
        self._ages = np.concatenate([self._ages, np.zeros(n, dtype=np.int64)])
        self._lives = np.concatenate([self._lives, [len(item) for item in noise]]).astype(np.int64)
        self._slots = np.concatenate([self._slots, self._noise.add(noise)])
        self._may_end_at_once = np.concatenate([self._may_end_at_once, np.full(n, allow_empty)])
        heat = np.array([(1.0 / t.pi, 1.0 / t.pen, np.sqrt(t.sigma)) for t in temperatures], dtype=np.float32)
        self._temperatures = np.concatenate([self._temperatures, heat.reshape(-1, 3)])
        return rows

    def drop(self, rows: Sequence[int] | NDArray[np.int64]) -> None:
        """Let drawings leave before their end (cancelled)."""
        self._keep(np.flatnonzero(~np.isin(self._rows, rows)))

    def _keep(self, kept: NDArray[np.int64]) -> None:
        if len(kept) == len(self._rows):
            return
        gone = np.delete(np.arange(len(self._rows)), kept)
        self._noise.free(self._slots[gone])
        own, reference = self._own[kept], self._reference[kept]
        if self._cell is not None:
            references = self._reference[gone]
            now = self._cell.drop(np.concatenate([self._own[gone], references[references >= 0]]))
            own, reference = now[own], np.where(reference >= 0, now[reference], -1)
        self._own, self._reference = own, reference
        self._guidance, self._temperatures = self._guidance[kept], self._temperatures[kept]
        self._slots, self._may_end_at_once = self._slots[kept], self._may_end_at_once[kept]
        self._rows, self._ages, self._lives = self._rows[kept], self._ages[kept], self._lives[kept]

    def step(self) -> Step:
        """Draw one point of each; drawings that end leave the batch."""
        cell = self._cell
        if cell is None or not len(self):
            none = np.zeros(0, dtype=np.int64)
            return Step(none, np.zeros((0, 2), dtype=np.float32), none, np.zeros(0, dtype=np.float32))
        offsets, pens, gains = self._sampled_compiled(cell) if self.engine.compiled else self._sampled(cell)
        self._ages = ages = self._ages + 1
        pens[ages >= self._lives] = PEN_END
        result = Step(self._rows, offsets, pens, gains)
        if pens.max() == PEN_END:
            self._keep(np.flatnonzero(pens != PEN_END))
        return result

    def _sampled_compiled(self, cell: _Cell) -> tuple[Floats, NDArray[np.int64], Floats]:
        """Offsets (B, 2), pen states (B,) and gains (B,), drawn and fed by the compiled kernels."""
        # For the type checker: all are there, or none.
        assert kernels.sample is not None and kernels.few_step is not None and kernels.finish_step is not None  # noqa: S101
        engine, n = self.engine, len(self._rows)
        offsets, pens = np.empty((n, 2), dtype=np.float32), np.empty(n, dtype=np.int64)
        gains = np.zeros(n, dtype=np.float32)
        chances = (
            cell.inputs,
            self._own,
            self._reference,
            self._guidance,
            self._noise.values,
            self._slots,
            self._ages,
            self._may_end_at_once,
            self._temperatures,
            engine.min_log_sigma,
            cell.place,
            engine.config.positions,
            offsets,
            pens,
            gains,
        )
        if len(cell) <= FEW and engine._pairs is not None:
            few = cell.few()
            rest = (cell.constant, cell.c, engine._w_out_rows, engine._b_out, few.outputs, *chances)
            kernels.few_step(engine._pairs, engine._w_points, few.gates, *rest)
        elif 1 < len(cell) <= MIDDLING:
            outputs = np.empty((len(cell), engine.config.output_size), dtype=np.float32)
            rest = (cell.constant, cell.c, engine._w_out_rows, engine._b_out, outputs, *chances)
            kernels.finish_step(engine._products(cell.inputs), *rest)
        else:
            cell.advance_compiled()
            kernels.sample(engine._output(cell.inputs[:, : engine.config.decoder_size]), *chances)
        return offsets, pens, gains

    def _sampled(self, cell: _Cell) -> tuple[Floats, NDArray[np.int64], Floats]:
        """Offsets (B, 2), pen states (B,) and gains (B,), drawn and fed in NumPy."""
        y = self.engine._output(cell.advance())  # (rows of the cell, 6M + 3)
        ages, low = self._ages, self.engine.min_log_sigma
        if len(y) == 1:
            no_end = bool(ages[0] == 0 and not self._may_end_at_once[0])
            dx, dy, pen = sample_one(
                y[0], self._noise.values[self._slots[0], ages[0]], self._temperatures[0], low, no_end
            )
            cell.feed_one(dx, dy, pen)
            return np.array([(dx, dy)], dtype=np.float32), np.array([pen]), np.zeros(1, dtype=np.float32)
        noise = self._noise.values[self._slots, ages]
        no_ends = (ages == 0) & ~self._may_end_at_once
        offsets, pens = sample_point(y[self._own], noise, self._temperatures, low, no_ends)
        gains = np.zeros(len(ages), dtype=np.float32)
        guided = np.flatnonzero(self._reference >= 0)
        if len(guided):
            offsets[guided], pens[guided], gains[guided] = sample_guided(
                y[self._own[guided]],
                y[self._reference[guided]],
                noise[guided],
                self._temperatures[guided],
                low,
                self._guidance[guided],
                no_ends[guided],
            )
        fed_offsets, fed_pens = np.zeros((len(y), 2), dtype=np.float32), np.zeros(len(y), dtype=np.int64)
        fed_offsets[self._own], fed_pens[self._own] = offsets, pens
        fed_offsets[self._reference[guided]], fed_pens[self._reference[guided]] = offsets[guided], pens[guided]
        cell.feed_sampled(fed_offsets, fed_pens)
        return offsets, pens, gains


class _NoisePool:
    """The noise of the drawings in a batch: a place for each, used again when it has left."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self.values = np.zeros((0, 0, 5), dtype=np.float32)  # (places, longest life, widest noise)
        self._free: list[int] = []

    def add(self, arrays: Sequence[Floats]) -> NDArray[np.int64]:
        """Places of arrays (n_steps, width)."""
        places, life, width = self.values.shape
        missing = max(len(arrays) - len(self._free), 0)
        more = max(missing, places) if missing else 0  # doubling, so that a crowd is seldom copied
        longest, widest = (max(item.shape[axis] for item in arrays) for axis in (0, 1))
        if missing or longest > life or widest > width:
            values = np.zeros((places + more, max(longest, life), max(widest, width)), dtype=np.float32)
            values[:places, :life, :width] = self.values
            self.values = values
            self._free += range(places, places + more)
        taken = [self._free.pop() for _ in arrays]
        for place, item in zip(taken, arrays, strict=True):
            self.values[place, : len(item), : item.shape[1]] = item
        return np.array(taken, dtype=np.int64)

    def free(self, places: NDArray[np.int64]) -> None:
        self._free += places.tolist()
        if len(self._free) == len(self.values):  # nobody is left: what a crowd took, up to 26 MB, is given back
            self._forget()


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
        noise: (B, 5 or more), see :func:`draw_noise`; the first candidate is taken.
        temperatures: (B, 3): 1/τ of π, 1/τ of the pen, √τ of σ.
        min_log_sigma: floor of log σ.
        no_end: (B,) rows that must not end here.

    Returns:
        offsets (B, 2) and pen states (B,).
    """
    pen_logits = y[:, :3] * temperatures[:, 1:2]
    if no_end is not None and no_end.any():
        pen_logits[no_end, PEN_END] = -np.inf
    pens = _choose(pen_logits, noise[:, 0:1])
    return _sample_offsets(y, noise[:, 2:5], temperatures, min_log_sigma), pens


def _sample_offsets(y: Floats, noise: Floats, temperatures: Floats, min_log_sigma: float) -> Floats:
    """(B, 2) offsets; noise (B, 3): uniform for the component, two normals."""
    batch, n_mixtures = len(y), (y.shape[1] - 3) // 6
    component = _choose(y[:, 3 : 3 + n_mixtures] * temperatures[:, 0:1], noise[:, 0:1])
    # μx, μy, log σx, log σy and ρ̂ of component j stand at 3 + M + j, M apart.
    chosen = y[:, 3 + n_mixtures :].reshape(batch, 5, n_mixtures)[np.arange(batch), :, component]  # (B, 5)
    sigma = np.exp(chosen[:, 2:4].clip(min_log_sigma, MAX_LOG_SIGMA))
    sigma *= temperatures[:, 2:3]
    rho = np.tanh(chosen[:, 4]).clip(-MAX_RHO, MAX_RHO)
    normal = noise[:, 1:3].copy()
    normal[:, 1] *= np.sqrt(1.0 - rho * rho)
    normal[:, 1] += rho * noise[:, 1]
    normal *= sigma
    normal += chosen[:, :2]
    return normal


def sample_guided(  # noqa: PLR0917 (the same order as sample_point)
    y: Floats,
    y_reference: Floats,
    noise: Floats,
    temperatures: Floats,
    min_log_sigma: float,
    guidance: Floats,
    no_end: NDArray[np.bool_],
) -> tuple[Floats, NDArray[np.int64], Floats]:
    """:func:`sample_point` with a reference; see :class:`SampleBatch`.

    Args:
        y_reference: (B, 6M + 3) of the references.
        noise: (B, 2 + 3 CANDIDATES).
        guidance: (B, 2) weights: of the offsets' log ratio, of the pen's.

    Returns:
        offsets (B, 2), pen states (B,), gains (B,).
    """
    log_q, log_q_reference = _log_softmax(y[:, :3]), _log_softmax(y_reference[:, :3])
    floor = np.float32(PEN_FLOOR)
    ratio = np.log((np.exp(log_q) + floor) / (np.exp(log_q_reference) + floor))
    pen_logits = y[:, :3] * temperatures[:, 1:2] + guidance[:, 1:2] * ratio
    pen_logits[no_end, PEN_END] = -np.inf
    pens = _choose(pen_logits, noise[:, 0:1])
    candidates = np.stack(
        [_sample_offsets(y, noise[:, 2 + 3 * k : 5 + 3 * k], temperatures, min_log_sigma) for k in range(CANDIDATES)],
        axis=1,
    )  # (B, K, 2)
    own, other = _density(y, candidates, min_log_sigma), _density(y_reference, candidates, min_log_sigma)
    ratio = np.log(own / other)  # (B, K)
    chosen = _choose(guidance[:, 0:1] * ratio, noise[:, 1:2])
    rows = np.arange(len(y))
    gains = log_q[rows, pens] - log_q_reference[rows, pens]
    gains += ratio[rows, chosen] * (pens != PEN_END)
    return candidates[rows, chosen], pens, gains


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def _density(y: Floats, offsets: Floats, min_log_sigma: float) -> Floats:
    """(B, K) densities of offsets (B, K, 2) at τ = 1, plus the floor."""
    n_mixtures = (y.shape[1] - 3) // 6
    pi = np.exp(y[:, 3 : 3 + n_mixtures] - y[:, 3 : 3 + n_mixtures].max(axis=1, keepdims=True))
    pi /= pi.sum(axis=1, keepdims=True)
    mu_x, mu_y, log_x, log_y, rho = y[:, None, 3 + n_mixtures :].reshape(len(y), 5, 1, n_mixtures).swapaxes(0, 1)
    log_x, log_y = log_x.clip(min_log_sigma, MAX_LOG_SIGMA), log_y.clip(min_log_sigma, MAX_LOG_SIGMA)
    rho = np.tanh(rho).clip(-MAX_RHO, MAX_RHO)
    rest = 1.0 - rho * rho
    dx, dy = (offsets[:, :, 0:1] - mu_x) * np.exp(-log_x), (offsets[:, :, 1:2] - mu_y) * np.exp(-log_y)  # (B, K, M)
    squared = (dx * dx + dy * dy - 2.0 * rho * dx * dy) / rest
    norm = pi[:, None] * np.exp(-log_x - log_y) / (2.0 * np.pi * np.sqrt(rest))
    density: Floats = (norm * np.exp(-0.5 * squared)).sum(axis=2) + np.float32(RATIO_FLOOR)
    return density


def _choose(logits: Floats, uniform: Floats) -> NDArray[np.int64]:
    """Index drawn from softmax(logits) (B, ·) by the inverse of its cumulative sum; uniform (B, 1)."""
    logits -= logits.max(axis=1, keepdims=True)
    cumulative = np.exp(logits, out=logits).cumsum(axis=1)
    # The last entry equals the total and the threshold lies below it, so an index always exists.
    index: NDArray[np.int64] = (cumulative > uniform * cumulative[:, -1:]).argmax(axis=1)
    return index


def sample_one(
    y: Floats, noise: Floats, temperatures: Floats, min_log_sigma: float, no_end: bool = False
) -> tuple[float, float, int]:
    """:func:`sample_point` for one row, (6M + 3,), (5,) and (3,): the same point, to rounding, in less time."""
    n_mixtures = (len(y) - 3) // 6
    u_pen, _, u_component, normal_x, normal_y = noise[:5].tolist()
    inverse_pi, inverse_pen, root = temperatures.tolist()
    values = y.tolist()
    pen_logits, pi_logits = values[:3], values[3 : 3 + n_mixtures]
    if no_end:
        pen_logits[PEN_END] = -math.inf
    highest = max(pen_logits)
    down, lift, end = (math.exp((logit - highest) * inverse_pen) for logit in pen_logits)
    threshold = u_pen * (down + lift + end)
    pen = PEN_DOWN if down > threshold else PEN_LIFT if down + lift > threshold else PEN_END
    highest = max(pi_logits)
    cumulative = list(accumulate([math.exp((logit - highest) * inverse_pi) for logit in pi_logits]))
    component = bisect_right(cumulative, u_component * cumulative[-1])
    mu_x, mu_y, log_sigma_x, log_sigma_y, rho_hat = values[3 + n_mixtures + component :: n_mixtures]
    rho = min(max(math.tanh(rho_hat), -MAX_RHO), MAX_RHO)
    sigma_x = root * math.exp(min(max(log_sigma_x, min_log_sigma), MAX_LOG_SIGMA))
    sigma_y = root * math.exp(min(max(log_sigma_y, min_log_sigma), MAX_LOG_SIGMA))
    x = mu_x + sigma_x * normal_x
    return x, mu_y + sigma_y * (rho * normal_x + math.sqrt(1.0 - rho * rho) * normal_y), pen
