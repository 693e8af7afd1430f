"""Reading a start: at the size that is likeliest, and only what is new of it.

How large a finished drawing will be is unknown, so a start is read at each of ``SHARES`` in one batch and the
likeliest size, between them as well, is taken. People draw on: the states after each whole stroke are kept, so
that one stroke more costs its own points, and another temperature or seed nothing at all.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sketch_core import losses, strokes
from sketch_core.engine import Engine, Floats, State
from sketch_core.strokes import FRAME_SIZE, Drawing, Frame

# Shares of the finished drawing's longest side that a start is tried at; a parabola through the best and its
# neighbours tells what lies between. Eight shares without it are no better and take twice the time.
SHARES = (1.0, 0.71, 0.5, 0.25)
# The guess is rounded to steps of 1/4 octave, so that more strokes seldom change it and what was read stays.
SHARE_STEPS = 4
# Likelihoods of sizes compare only over the same points, and a user's points do not tell the true size: they are
# simplified as for this share. Of 138 drawings cut at half of their points the size is then off by a factor of
# 1.15 on average, where "it is full size" is off by 1.30; cut at 0.3 of them by 1.22, and by 1.64.
REFERENCE_SHARE = 0.84
# Spread (log) of the belief about a start's share; half-finished drawings already span 0.96 in the median.
SHARE_SPREAD = 0.5
# A start's side grows in steps of 1/8 octave (9%), so that strokes within it leave all that was read in place.
SIDE_STEPS = 8
# Points of a start from which its size is guessed; more change nothing.
SCORED_POINTS = 20
CACHED_PREFIXES = 64
CACHED_STATES = 192
CACHED_GUESSES = 16
"""Readings by every category: some 4 MB each."""


class Prefix(NamedTuple):
    """A start that the network has read."""

    state: State
    """One row."""
    reference: State | None
    """The same, read without the category; None where none was given."""
    share: float
    """Longest side of the start, as a share of the finished drawing's."""
    scale: float
    """Canonical frame units a canvas pixel."""


class _Read(NamedTuple):
    """What is known after some whole strokes."""

    rows: Floats
    """(N, 3) stroke3 that was read."""
    state: State
    nats: NDArray[np.float64]
    """(readers,) of those rows, as they were read; 0 where nobody asked."""


class PrefixReader:
    """Reads starts with an engine and remembers what it has read; for several threads.

    Args:
        condition: (index of a category, number of rows) -> (rows, condition_size), without z.
        any_index: the index that stands for any category.
    """

    def __init__(
        self,
        engine: Engine,
        condition: Callable[[int, int], Floats],
        *,
        any_index: int,
        scale_factor: float,
        min_sigma: float,
        epsilon: float = strokes.EPSILON,
    ) -> None:
        self.engine, self.condition, self.any_index = engine, condition, any_index
        self.scale_factor, self.min_sigma, self.epsilon = scale_factor, min_sigma, epsilon
        self._prefixes: OrderedDict[tuple[Any, ...], Prefix] = OrderedDict()
        self._states: OrderedDict[tuple[Any, ...], _Read] = OrderedDict()
        self._guesses: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._lock = threading.Lock()  # the page draws for several people in threads

    def read(self, drawing: Drawing, index: int, *, pen_down: bool = False, canvas: float | None = None) -> Prefix:
        """The state after a start, at its likeliest size.

        Args:
            drawing: checked, canvas pixels.
            index: of the category.
            pen_down: the last stroke is unfinished.
            canvas: longest side of the canvas, if known.
        """
        digests = _digests(drawing)
        key = (index, pen_down, canvas, digests[-1])
        known: Prefix | None = self._recall(self._prefixes, key)
        if known is not None:
            return known
        side = strokes.longest_side(drawing)
        share, scale = 1.0, strokes.fit_frame(drawing).scale
        if side > strokes.MIN_SIDE:
            scores = self.share_scores(drawing, index, pen_down=pen_down) + share_prior(np.array(SHARES), side, canvas)
            share = likeliest_share(scores)
            scale = share * FRAME_SIZE / settled_side(drawing)
        rows = self.rows(drawing, scale, pen_down)
        readers = [index] if index == self.any_index else [index, self.any_index]
        kind = ("state", index, scale)
        read = self._follow(kind, digests, rows, pen_down, readers, np.ones(len(readers)), scored=False)
        prefix = Prefix(read.state.take([0]), read.state.take([1]) if len(readers) > 1 else None, share, scale)
        self._remember(self._prefixes, key, prefix, CACHED_PREFIXES)
        return prefix

    def share_scores(self, drawing: Drawing, index: int, *, pen_down: bool = False) -> NDArray[np.float64]:
        """log p of a start's first points, per canvas pixel, at each of ``SHARES``.

        The points are the same at each size, so that likelihoods compare: as a density per canvas pixel each
        point gains 2 log(scale).
        """
        shares = np.array(SHARES)
        scale = REFERENCE_SHARE * FRAME_SIZE / settled_side(drawing)
        rows = self.rows(drawing, scale, pen_down)[:SCORED_POINTS]
        factors = shares / REFERENCE_SHARE
        key = ("shares", index, scale)
        read = self._follow(key, _digests(drawing), rows, pen_down, [index] * len(shares), factors)
        result: NDArray[np.float64] = -read.nats + 2.0 * len(rows) * np.log(shares)
        return result

    def category_nats(self, drawing: Drawing, n_categories: int) -> tuple[NDArray[np.float64], int]:
        """How ill each category foresees a drawing: nats (n_categories,) of all its points, and how many these are."""
        scale = strokes.fit_frame(drawing).scale  # a dot has no size to go by
        if strokes.longest_side(drawing) > strokes.MIN_SIDE:
            scale = REFERENCE_SHARE * FRAME_SIZE / settled_side(drawing)
        rows = self.rows(drawing, scale, False)
        readers = list(range(n_categories))
        factors = np.ones(n_categories)
        read = self._follow(("guess", scale), _digests(drawing), rows, False, readers, factors, self._guesses)
        return read.nats, len(rows)

    def rows(self, drawing: Drawing, scale: float, pen_down: bool = False) -> Floats:
        """(N, 3) stroke3 of a drawing simplified at a scale."""
        x0, y0, _, _ = strokes.bounds(drawing)
        frame = Frame(scale=scale, origin=(x0, y0))
        return strokes.to_stroke3(strokes.simplify(frame.from_canvas(drawing), self.epsilon), pen_down=pen_down)

    def _follow(  # noqa: PLR0917
        self,
        kind: tuple[Any, ...],
        digests: list[bytes],
        rows: Floats,
        pen_down: bool,
        readers: list[int],
        factors: NDArray[np.float64],
        cache: OrderedDict[tuple[Any, ...], Any] | None = None,
        *,
        scored: bool = True,
    ) -> _Read:
        """Read rows, from after the most strokes that were read before.

        Args:
            kind: tells readings of different scales and readers apart.
            digests: of the drawing's first stroke, its first two, …, all.
            readers: category index of each row of the batch.
            factors: what each of them sees the rows' offsets multiplied by.
            scored: whether the nats are wanted; else they are left at 0.
        """
        most = CACHED_STATES if cache is None else CACHED_GUESSES
        cache = self._states if cache is None else cache
        state, nats, begin = None, np.zeros(len(readers)), 0
        for digest in reversed(digests):
            known = self._recall(cache, (*kind, digest))
            # Rounding could part the same strokes at the same scale; then they are read again.
            if known is None or len(known.rows) > len(rows):
                continue
            if np.allclose(known.rows, rows[: len(known.rows)], rtol=0.0, atol=1e-3):
                state, nats, begin = known.state, known.nats, len(known.rows)
                break
        if state is None:
            known_by = sorted(set(readers))
            conditions = np.concatenate([self.condition(reader, 1) for reader in known_by])
            state = self.engine.start(conditions).take([known_by.index(reader) for reader in readers])
        if begin < len(rows):
            points = np.stack(
                [
                    strokes.to_stroke5(
                        rows[begin:] * np.array((factor, factor, 1.0), dtype=np.float32),
                        scale_factor=self.scale_factor,
                        end=False,
                    )
                    for factor in factors
                ]
            )
            state, y = self.engine.read(state, points)
            if scored:
                lengths = torch.full((len(readers),), points.shape[1])
                steps = losses.step_losses(
                    torch.from_numpy(y), torch.from_numpy(points), lengths, min_sigma=self.min_sigma
                )
                nats = nats + (steps.offset + steps.pen).sum(dim=1).double().numpy()
        read = _Read(rows, state, nats)
        if not pen_down:  # what goes on may end its last stroke elsewhere
            self._remember(cache, (*kind, digests[-1]), read, most)
        return read

    def _recall(self, cache: OrderedDict[tuple[Any, ...], Any], key: tuple[Any, ...]) -> Any:
        with self._lock:
            if key in cache:
                cache.move_to_end(key)
                return cache[key]
        return None

    def _remember(self, cache: OrderedDict[tuple[Any, ...], Any], key: tuple[Any, ...], value: Any, most: int) -> None:
        with self._lock:
            cache[key] = value
            while len(cache) > most:
                cache.popitem(last=False)


def _digests(drawing: Drawing) -> list[bytes]:
    """Of the first stroke, the first two, …, all."""
    running = hashlib.blake2b(digest_size=16)
    found = []
    for stroke in drawing:
        running.update(len(stroke).to_bytes(4, "big"))
        running.update(np.ascontiguousarray(stroke, dtype=np.float64).tobytes())
        found.append(running.copy().digest())
    return found


def settled_side(drawing: Drawing) -> float:
    """A start's longest side, rounded up in steps from its first stroke's: what is drawn within it changes nothing.

    Counted from a stroke and not from one pixel, so that a drawing twice as large is read the very same way.
    """
    side = strokes.longest_side(drawing)
    first = next((own for stroke in drawing if (own := strokes.longest_side([stroke])) > strokes.MIN_SIDE), side)
    # A hair less, or rounding could count a side that is exactly a step as one more.
    return float(first * 2.0 ** (math.ceil(SIDE_STEPS * math.log2(side / first) - 1e-6) / SIDE_STEPS))


def likeliest_share(scores: NDArray[np.float64]) -> float:
    """Where scores (log p) at ``SHARES`` are highest."""
    logs = np.log(SHARES)
    best = int(scores.argmax())
    found = logs[best]
    if 0 < best < len(SHARES) - 1:
        near = slice(best - 1, best + 2)
        square, slope, _ = np.polyfit(logs[near], scores[near], 2)
        if square < 0.0:
            found = np.clip(-slope / (2.0 * square), logs[best + 1], logs[best - 1])
    return float(2.0 ** (round(SHARE_STEPS * found / math.log(2.0)) / SHARE_STEPS))


def share_prior(shares: NDArray[np.float64], side: float, canvas: float | None) -> NDArray[np.float64]:
    """log of a mild belief about how much of the finished drawing's side a start already has.

    A start has nearly all of it; a little less where it takes up little of a known canvas (people draw small
    as well, so the canvas is believed by half, in log).
    """
    expected = 1.0 if canvas is None else float(np.clip((side / (0.8 * canvas)) ** 0.5, SHARES[-1], 1.0))
    deviation: NDArray[np.float64] = np.log(shares / expected) / SHARE_SPREAD
    return -0.5 * deviation**2
