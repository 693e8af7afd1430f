"""What the network is used for: completing, varying and drawing, behind one class.

Page, API, command line and tests all go through :class:`Sketcher`: drawings in canvas pixels in, drawings
in canvas pixels out. The same checkpoint, drawing, temperature and seed give the same drawings, alone or in
any batch, streamed or whole.
"""

from __future__ import annotations

import difflib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sketch_core import checkpoint as checkpoints
from sketch_core import losses, strokes
from sketch_core.device import choose_device
from sketch_core.engine import PEN_DOWN, PEN_END, PEN_LIFT, CpuEngine, Engine, Floats, State, draw_noise
from sketch_core.mixture import CANDIDATES, Temperatures
from sketch_core.mixture import temperatures as heat_of
from sketch_core.prefix import Prefix, PrefixReader
from sketch_core.strokes import FRAME_SIZE, Drawing
from sketch_core.torch_engine import TorchEngine

Kind = Literal["complete", "vary", "draw", "blend"]
KINDS: tuple[Kind, ...] = ("complete", "vary", "draw", "blend")
MOVE_TO, LINE_TO, ENDED = 0, 1, 2

MAX_DRAWINGS = 1000
BLENDS = {"strip": 2, "grid": 4, "sum": 3}
"""Ways to blend, and how many drawings each takes."""
SPREAD = 0.5
"""Default of how far variations stray, in σ of z; at 1 fewer are still named as their originals."""
GUIDANCE = 8.0
"""Default weight of what tells the category (or z) from drawings at large; see :class:`engine.SampleBatch`. Measured
on free drawings at τ 0.4, named by the judge: 0.71 at 4 and 0.74 at 8, where people's own reach 0.77."""
MAX_GUIDANCE = 20.0
BEST_OF: dict[Kind, int] = {"vary": 6, "draw": 3, "complete": 1}
"""How many are drawn for each that is shown, where drawings come whole anyway (docs/experiments.md)."""
MAX_BEST_OF = 16
SETTLING = 15
"""Steps that are added to those of a drawing before its gain is divided by them: by its steps alone a single stroke
may win, and undivided the longest scribble."""
PADDED_TO = 16
"""Drawings are encoded in lengths of multiples of this: PyTorch keeps some memory for each shape that it has seen."""


_known_noise = functools.lru_cache(maxsize=256)(draw_noise)  # a page asks for the same seed again at each stroke


class CategoryError(ValueError):
    """A category that the network does not know."""


class StreamRow(NamedTuple):
    """One new point of one drawing."""

    k: int
    """Which of the n drawings."""
    x: float
    y: float
    """Canvas pixels."""
    pen: int
    """0: a stroke starts here; 1: a line leads here from the point before; 2: drawing k has ended."""


@dataclass
class _Plan:
    """All that sampling needs, and where the results go."""

    state: State
    start: tuple[float, float]
    """Canvas pixels of the pen before the first step."""
    unit: float
    """Canvas pixels of one normalised unit."""
    pen_down: bool
    """Whether the first sampled point is joined to ``start`` by a line."""
    reference: State | None = None
    """The same starts without category and z, for guidance."""
    box: tuple[float, float, float, float] | None = None
    """Fit each finished drawing into this; its points can then only be told when it has ended."""
    fill: bool = False
    """Fit by growing as well as by shrinking."""
    choose: Callable[[Sequence[Floats]], int] | None = None
    """Which of several candidates (normalised stroke3) to show; without it, the one that gained most a step over
    the reference."""


class Job:
    """Drawings about to be drawn: where they start, their noise, and where their points go.

    What :meth:`Sketcher.stream` runs by itself, and a :class:`sketch_core.scheduler.Scheduler` with those of others.
    """

    def __init__(
        self, plan: _Plan, noise: list[Floats], heats: list[Temperatures], guidance: float, best_of: int = 1
    ) -> None:
        self.noise, self.temperatures, self.guidance = noise, heats, guidance
        self.state, self.reference = plan.state, plan.reference
        self.n = len(noise)
        self.best_of = best_of
        self._pens = [_Pen(k // best_of, plan) for k in range(self.n)]
        self._choose = plan.choose
        self._gains = [0.0] * self.n
        self._offsets: list[list[tuple[float, float, float]]] = [[] for _ in range(self.n)]  # stroke3, normalised
        self._ended: dict[int, dict[int, list[StreamRow]]] = {}  # of each drawing, its candidates
        self.undecided: list[int] = []
        """Drawings whose candidates have all ended, for :meth:`decide`."""

    @property
    def rows(self) -> int:
        """Rows of the network that it takes."""
        return self.n * (1 if self.reference is None else 2)

    def move(self, k: int, dx: float, dy: float, pen: int, gain: float) -> list[StreamRow]:
        """Rows that a sampled point (normalised) of drawing k gives.

        With ``best_of`` there are none: once all candidates of a drawing have ended, it stands in ``undecided``.
        """
        rows = self._pens[k].move(dx, dy, pen)
        if self.best_of == 1:
            return rows
        self._gains[k] += gain
        if pen != PEN_END:
            self._offsets[k].append((dx, dy, float(pen == PEN_LIFT)))
            return []
        ended = self._ended.setdefault(k // self.best_of, {})
        ended[k] = rows
        if len(ended) == self.best_of:
            self.undecided.append(k // self.best_of)
        return []

    def decide(self, drawing: int) -> list[StreamRow]:
        """Rows of the best candidate of a drawing that was ``undecided``.

        Of free drawings it is the one that gained most a step over the reference, and so is the likeliest to be of
        its category (see :data:`SETTLING`). Of variations see :meth:`Sketcher.likest`; that takes some milliseconds
        and may be done in any thread.
        """
        ended = self._ended.pop(drawing)
        candidates = sorted(ended)
        if self._choose is None:
            return ended[max(candidates, key=lambda k: self._gains[k] / (len(self._offsets[k]) + 1 + SETTLING))]
        offsets = [np.array(self._offsets[k], dtype=np.float32).reshape(-1, 3) for k in candidates]
        return ended[candidates[self._choose(offsets)]]


class Sketcher:
    """A checkpoint ready to draw.

    A drawing is a list of (N, 2) arrays of canvas pixels, y down. ``category=None`` means any. All methods
    raise ``ValueError`` (:class:`strokes.DrawingError`, :class:`CategoryError`) with one clear sentence.
    """

    def __init__(self, source: checkpoints.Checkpoint, *, device: str = "cpu") -> None:
        self.source = source
        self.device = torch.device(device)
        self.model = source.model(self.device)
        self.engine: Engine = (
            CpuEngine(source.architecture, source.weights)
            if self.device.type == "cpu"
            else TorchEngine(source.architecture, source.weights, self.device)
        )
        self.reader = PrefixReader(
            self.engine,
            lambda index, n: self._condition(index, None, n),
            any_index=source.architecture.n_categories,
            scale_factor=source.scale_factor,
            min_sigma=source.architecture.min_sigma,
            epsilon=source.epsilon,
        )
        self._category_index = {name: index for index, name in enumerate(source.categories)}
        # Starts of free drawings by category, 12 KB each: the weights for one take longer to read than it does.
        self._known: dict[int, State] = {}
        self._known_by: Engine = self.engine

    # -- what it is --------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def categories(self) -> list[str]:
        return list(self.source.categories)

    @property
    def info(self) -> dict[str, Any]:
        """``config.json``: architecture, training, metrics."""
        return self.source.info()

    @property
    def lacks(self) -> dict[str, str]:
        """{what it cannot do: why}, of "vary", "blend" and "guess"."""
        return checkpoints.lacks(self.source)

    @property
    def scale_factor(self) -> float:
        return self.source.scale_factor

    def category_index(self, category: str | None) -> int:
        """Index of a category's embedding; "any" has one of its own.

        Raises:
            CategoryError: not one of :attr:`categories`; the message names similar ones.
        """
        if category is None:
            return self.source.architecture.n_categories
        if not isinstance(category, str) or category not in self._category_index:
            shown = str(category)[:60]
            near = difflib.get_close_matches(shown, self.source.categories, n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else "."
            raise CategoryError(f"This network does not know the category {shown!r}{hint}")
        return self._category_index[category]

    # -- the three jobs ----------------------------------------------------------------------------

    def complete(
        self,
        drawing: Sequence[NDArray[Any]],
        category: str | None = None,
        temperature: float = 0.4,
        n: int = 9,
        seed: int = 0,
        *,
        pen_down: bool = False,
        canvas: float | None = None,
        guidance: float = GUIDANCE,
        rule: str = "duet",
    ) -> list[Drawing]:
        """n endings of an unfinished drawing: the new strokes only, in the drawing's own coordinates.

        Args:
            drawing: what is there so far.
            pen_down: the last stroke is unfinished too: each ending's first stroke continues it, and starts
                exactly at its last point.
            canvas: longest side of the canvas, if known: a mild hint of how large the finished drawing will be.
            guidance: how much more than by chance it draws what belongs to the category alone, 0 to 20.
            rule: what the temperature does; see :func:`mixture.temperatures`.
        """
        return self._collect(
            "complete",
            drawing,
            category=category,
            temperature=temperature,
            n=n,
            seed=seed,
            pen_down=pen_down,
            canvas=canvas,
            guidance=guidance,
            rule=rule,
        )

    def vary(
        self,
        drawing: Sequence[NDArray[Any]],
        category: str | None = None,
        temperature: float = 0.4,
        n: int = 9,
        seed: int = 0,
        *,
        spread: float = SPREAD,
        guidance: float = GUIDANCE,
        best_of: int | None = None,
        rule: str = "duet",
    ) -> list[Drawing]:
        """n whole drawings decoded from z of this one, fitted into its bounding box.

        Args:
            spread: how far z strays: z = μ + spread · σ ⊙ ε.
            best_of: so many are drawn for each that is returned; see :class:`Job`.
        """
        return self._collect(
            "vary",
            drawing,
            category=category,
            temperature=temperature,
            n=n,
            seed=seed,
            spread=spread,
            guidance=guidance,
            best_of=best_of,
            rule=rule,
        )

    def draw(
        self,
        category: str | None = None,
        temperature: float = 0.4,
        n: int = 9,
        seed: int = 0,
        *,
        size: float = FRAME_SIZE,
        guidance: float = GUIDANCE,
        best_of: int | None = None,
        rule: str = "duet",
    ) -> list[Drawing]:
        """n free drawings, each filling a ``size`` x ``size`` frame."""
        return self._collect(
            "draw",
            None,
            category=category,
            temperature=temperature,
            n=n,
            seed=seed,
            size=size,
            guidance=guidance,
            best_of=best_of,
            rule=rule,
        )

    def compare(
        self,
        kind: Kind,
        drawing: Sequence[NDArray[Any]] | None = None,
        category: str | None = None,
        *,
        temperatures: Sequence[float],
        seeds: Sequence[int] = (0,),
        guidance: float = GUIDANCE,
    ) -> list[list[Drawing]]:
        """The same start, z and noise at several temperatures.

        Returns:
            A list for each temperature with a drawing for each seed: the first that :meth:`complete`, :meth:`vary` or
            :meth:`draw` (these two with ``best_of=1``) gives at that temperature and seed.
        """
        drawings = self._collect(
            kind, drawing, category=category, temperatures=temperatures, seeds=seeds, guidance=guidance
        )
        width = len(seeds)
        return [drawings[begin : begin + width] for begin in range(0, len(drawings), width)]

    def blend(
        self,
        drawings: Sequence[Sequence[NDArray[Any]]],
        categories: Sequence[str | None] | None = None,
        *,
        how: str = "strip",
        steps: int = 9,
        temperature: float = 0.15,
        seed: int = 0,
        size: float = FRAME_SIZE,
        guidance: float = GUIDANCE,
    ) -> list[Drawing]:
        """Drawings between drawings (paper, section 4.2 and 4.3): decoded from points between their μ, on one noise.

        Args:
            drawings: two for a strip, four corners (in reading order) for a grid, A, B and C for a sum.
            categories: of each; their embeddings are blended like z.
            how: "strip": ``steps`` drawings from the first to the second, by spherical interpolation; "grid":
                steps x steps between four, row by row; "sum": one drawing of A - B + C.
            size: each drawing fills a frame of so many pixels.
        """
        return self._collect(
            "blend",
            None,
            drawings=drawings,
            categories=categories,
            how=how,
            steps=steps,
            temperature=temperature,
            seed=seed,
            size=size,
            guidance=guidance,
        )

    def _collect(self, kind: Kind, drawing: Sequence[NDArray[Any]] | None, **options: Any) -> list[Drawing]:
        """:meth:`stream` to its end, put together as drawings."""
        results: dict[int, list[list[tuple[float, float]]]] = {}
        for rows in self.stream(kind, drawing, **options):
            for k, x, y, pen in rows:
                result = results.setdefault(k, [])
                if pen == MOVE_TO:
                    result.append([(x, y)])
                elif pen == LINE_TO:
                    result[-1].append((x, y))
        return [[np.array(stroke, dtype=np.float64) for stroke in results[k]] for k in sorted(results)]

    def prepare(
        self,
        kind: Kind,
        drawing: Sequence[NDArray[Any]] | None = None,
        *,
        category: str | None = None,
        temperature: float = 0.4,
        n: int = 9,
        seed: int = 0,
        pen_down: bool = False,
        canvas: float | None = None,
        spread: float = SPREAD,
        size: float = FRAME_SIZE,
        guidance: float = GUIDANCE,
        best_of: int | None = None,
        rule: str = "duet",
        temperatures: Sequence[float] | None = None,
        seeds: Sequence[int] | None = None,
        drawings: Sequence[Sequence[NDArray[Any]]] = (),
        categories: Sequence[str | None] | None = None,
        how: str = "strip",
        steps: int = 9,
    ) -> Job:
        """All that comes before the first point: options checked, the start read, noise drawn.

        Args:
            kind: "complete", "vary", "draw" or "blend", whose options are those of the methods with these names.
            temperatures, seeds: as for :meth:`compare`, in place of temperature, seed and n.

        Raises:
            ValueError: see the class.
        """
        given = temperatures if temperatures is not None else [temperature]
        grid = temperatures is not None or seeds is not None
        if kind == "blend":
            n = _check_blend(how, steps, len(drawings))
        elif grid:
            n, best_of = 1, 1
        if type(n) is not int or not 1 <= n <= MAX_DRAWINGS:
            raise ValueError(f"The number of drawings must be a whole number from 1 to {MAX_DRAWINGS:,}.")
        seeds = [seed] if seeds is None else list(seeds)
        if not 1 <= len(given) * len(seeds) <= MAX_DRAWINGS:
            raise ValueError("Give at least one temperature and one seed.")
        if any(type(value) is not int or not 0 <= value < 2**63 for value in seeds):
            raise ValueError("The seed must be a whole number of at most 63 bits and not negative.")
        if any(type(value) not in (int, float) for value in given):
            raise ValueError("The temperature must be a number.")
        if type(guidance) not in (int, float) or not 0 <= guidance <= MAX_GUIDANCE:
            raise ValueError(f"The guidance must be a number from 0 to {MAX_GUIDANCE:g}.")
        heats = [heat_of(value, rule) for value in given]
        index = self.category_index(category)
        if best_of is None:
            best_of = BEST_OF.get(kind, 1)
        if type(best_of) is not int or not 1 <= best_of <= MAX_BEST_OF or (best_of > 1 and kind == "complete"):
            raise ValueError(f"best_of must be a whole number from 1 to {MAX_BEST_OF}, and 1 for endings.")
        if kind == "complete":
            plan = self._plan_completion(strokes.check_drawing(drawing or []), index, n, pen_down, canvas)
        elif kind == "vary":
            plan = self._plan_variation(strokes.check_drawing(drawing or []), index, n, seeds, spread)
        elif kind == "draw":
            plan = self._plan_free(category, n, seeds, size)
        elif kind == "blend":
            plan = self._plan_blend(drawings, categories, how, steps, size)
        else:
            raise ValueError(f"There is no {kind!r}; choose one of {', '.join(KINDS)}.")
        if not guidance:
            plan.reference = None
        if plan.reference is None and plan.choose is None:
            best_of = 1  # nothing to choose by
        # Drawings in their order, and which row of the plan, which seed and which index of its noise each has.
        if grid:
            places = [(t, s) for t in range(len(given)) for s in range(len(seeds))]
            rows = [s if len(plan.state) == len(seeds) else 0 for _, s in places]
            noises = [(seeds[s], 0) for _, s in places]
            heats = [heats[t] for t, _ in places]
        else:
            rows = np.repeat(np.arange(n), best_of).tolist()
            # What lies between two drawings is decoded on one noise, so that it changes by z alone.
            noises = [(seeds[0], 0 if kind == "blend" else k) for k in range(n * best_of)]
            heats = heats * len(rows)
        if rows != list(range(len(plan.state))):
            plan.state, plan.reference = plan.state.take(rows), plan.reference and plan.reference.take(rows)
        candidates = 1 if plan.reference is None else CANDIDATES
        drawn = {key: _known_noise(*key, self.source.n_max, candidates) for key in set(noises)}
        return Job(plan, [drawn[key] for key in noises], heats, float(guidance), best_of)

    def stream(
        self,
        kind: Kind,
        drawing: Sequence[NDArray[Any]] | None = None,
        *,
        cancelled: Callable[[], bool] | None = None,
        **options: Any,
    ) -> Iterator[list[StreamRow]]:
        """The points of :meth:`complete`, :meth:`vary` or :meth:`draw` as they are drawn.

        Args:
            kind: "complete", "vary" or "draw".
            cancelled: asked before each step; sampling stops once it says yes.
            options: as for :meth:`prepare`.

        Yields:
            Lists of :class:`StreamRow`, new since the last list. Endings come point by point; variations and
            free drawings come whole, since they are fitted to their place when they have ended.
        """
        job = self.prepare(kind, drawing, **options)
        steps = self.engine.sample(
            job.state,
            job.noise,
            job.temperatures,
            reference=job.reference,
            guidance=job.guidance,
            allow_empty=False,
        )
        for step in steps:
            if cancelled is not None and cancelled():
                return
            points = zip(
                step.rows.tolist(), step.offsets.tolist(), step.pens.tolist(), step.gains.tolist(), strict=True
            )
            rows = [row for k, (dx, dy), pen, gain in points for row in job.move(k, dx, dy, pen, gain)]
            while job.undecided:
                rows += job.decide(job.undecided.pop(0))
            if rows:
                yield rows

    def start_condition(self, drawing: Sequence[NDArray[Any]], index: int) -> Floats:
        """(1, condition_size) with which a start is read: a category index, and z of the start where z is needed."""
        z = self.encode([drawing])[0] if self.source.needs_z else None
        return self._condition(index, z, 1)

    def read_start(
        self, drawing: Drawing, index: int, *, pen_down: bool = False, canvas: float | None = None
    ) -> Prefix:
        """A start as read by the network; see :meth:`PrefixReader.read`."""
        if not self.source.needs_z:
            return self.reader.read(drawing, index, pen_down=pen_down, canvas=canvas)
        scale = strokes.fit_frame(drawing).scale
        rows = self.reader.rows(drawing, scale, pen_down)
        points = strokes.to_stroke5(rows, scale_factor=self.scale_factor, end=False)
        state, _ = self.engine.read(self.engine.start(self.start_condition(drawing, index)), points[None])
        return Prefix(state, None, 1.0, scale)

    def free_state(self, category: str | None, n: int) -> State:
        """The decoder before the first point of n free drawings."""
        if self._known_by is not self.engine:
            self._known, self._known_by = {}, self.engine
        known, index = self._known, self.category_index(category)
        one = known.get(index)
        if one is None:
            one = known[index] = self.engine.start(self._condition(index, None, 1))
        return one.take(np.zeros(n, dtype=np.int64))

    # -- plans -------------------------------------------------------------------------------------

    def _condition(self, index: int, z: Floats | None, n: int) -> Floats:
        """(n, condition_size) for a category index and z (n, N_z) or none."""
        with torch.inference_mode():
            labels = torch.full((n,), index, device=self.device) if self.model.category is not None else None
            latent = None if z is None else torch.from_numpy(z).to(self.device)
            condition: Floats = self.model.condition(latent, labels, n).float().cpu().numpy()
        return condition

    def _plan_free(self, category: str | None, n: int, seeds: Sequence[int], size: float) -> _Plan:
        if type(size) not in (int, float) or not 0 < size <= strokes.MAX_COORDINATE:
            raise ValueError("The size of the frame must be a positive number of pixels.")
        reference = None
        if self.source.needs_z:
            z = self._epsilon(n, seeds).astype(np.float32)
            state = self.engine.start(self._condition(self.category_index(category), z, len(z)))
        else:
            state = self.free_state(category, n)
            reference = None if category is None else self.free_state(None, n)
        unit = self.scale_factor * size / FRAME_SIZE
        box = (0.0, 0.0, float(size), float(size))
        return _Plan(state, (0.0, 0.0), unit, True, reference, box, fill=True)

    def _plan_variation(self, drawing: Drawing, index: int, n: int, seeds: Sequence[int], spread: float) -> _Plan:
        if type(spread) not in (int, float) or not 0 <= spread <= 10:
            raise ValueError("The spread must be a number from 0 to 10.")
        mu, sigma = self.encode([drawing])
        epsilon = self._epsilon(n, seeds)
        n = len(epsilon)
        z = (mu + spread * sigma * epsilon).astype(np.float32)
        state = self.engine.start(self._condition(index, z, n))
        box = strokes.bounds(drawing)
        unit = self.scale_factor / strokes.fit_frame(drawing).scale
        choose = functools.partial(self.likest, mu[0], index)
        return _Plan(state, (0.0, 0.0), unit, True, self._without_z(n), box, choose=choose)

    def likest(self, mu: Floats, index: int, candidates: Sequence[Floats]) -> int:
        """Which of some variations to show: like the original first, then recognisable.

        Half of the candidates, whose own μ is nearest to the original's, stay; of those the one that is likeliest
        to be of its category, by log p(drawing | category) - log p(drawing | any). Measured on validation drawings
        in docs/experiments.md.

        Args:
            mu: (N_z,) of the original.
            index: its category's; "any", or a network that cannot do without z, leaves it at the nearest.
            candidates: normalised stroke3 of each.
        """
        own, _ = self._encode(candidates)
        order = ((own - mu) ** 2).sum(axis=1).argsort(kind="stable")
        any_index = self.source.architecture.n_categories
        if index == any_index or self.source.needs_z:
            return int(order[0])
        near = order[: -(-len(order) // 2)]
        offset, pen = self._losses([candidates[k] for k in near] * 2, np.repeat([index, any_index], len(near)))
        named, unnamed = (offset + pen).sum(axis=1).reshape(2, len(near))
        return int(near[(named - unnamed).argmin()])

    def _epsilon(self, n: int, seeds: Sequence[int]) -> NDArray[np.float64]:
        """(n for each seed, N_z) of N(0, I)."""
        shape = (n, self.source.architecture.z_size)
        keys = [[seed, 2**63] for seed in seeds]
        return np.concatenate([np.random.Generator(np.random.Philox(key=key)).standard_normal(shape) for key in keys])

    def _without_z(self, n: int) -> State | None:
        """Those that know less, to compare by; a network that was never without z has none."""
        return None if self.source.needs_z else self.free_state(None, n)

    def _plan_blend(
        self,
        drawings: Sequence[Sequence[NDArray[Any]]],
        categories: Sequence[str | None] | None,
        how: str,
        steps: int,
        size: float,
    ) -> _Plan:
        if type(size) not in (int, float) or not 0 < size <= strokes.MAX_COORDINATE:
            raise ValueError("The size of the frame must be a positive number of pixels.")
        names = [None] * len(drawings) if categories is None else list(categories)
        if len(names) != len(drawings):
            raise ValueError("Give one category for each drawing.")
        mu, _ = self.encode([strokes.check_drawing(drawing) for drawing in drawings])
        conditions = np.concatenate(
            [self._condition(self.category_index(name), z[None], 1) for name, z in zip(names, mu, strict=True)]
        )  # (len, condition_size): z, then the category's embedding
        latent = mu.shape[1]

        def between(a: Floats, b: Floats, share: float) -> Floats:
            z = slerp(a[:latent], b[:latent], share)
            return np.concatenate([z, (1.0 - share) * a[latent:] + share * b[latent:]]).astype(np.float32)

        shares = np.linspace(0.0, 1.0, steps)
        if how == "sum":
            wanted = [conditions[0] - conditions[1] + conditions[2]]
        elif how == "grid":
            left, right = ([between(conditions[i], conditions[i + 2], y) for y in shares] for i in (0, 1))
            wanted = [between(a, b, x) for a, b in zip(left, right, strict=True) for x in shares]
        else:
            wanted = [between(conditions[0], conditions[1], share) for share in shares]
        state = self.engine.start(np.stack(wanted).astype(np.float32))
        unit = self.scale_factor * size / FRAME_SIZE
        box = (0.0, 0.0, float(size), float(size))
        return _Plan(state, (0.0, 0.0), unit, True, self._without_z(len(wanted)), box, fill=True)

    def _plan_completion(self, drawing: Drawing, index: int, n: int, pen_down: bool, canvas: float | None) -> _Plan:
        prefix = self.read_start(drawing, index, pen_down=pen_down, canvas=canvas)
        x, y = drawing[-1][-1]
        copies = np.zeros(n, dtype=np.int64)
        reference = None if prefix.reference is None else prefix.reference.take(copies)
        unit = self.scale_factor / prefix.scale
        return _Plan(prefix.state.take(copies), (float(x), float(y)), unit, pen_down, reference)

    # -- reading drawings --------------------------------------------------------------------------

    def encode(self, drawings: Sequence[Sequence[NDArray[Any]]]) -> tuple[Floats, Floats]:
        """μ and σ of drawings, (len, N_z) each (paper, equations 1 and 2).

        Raises:
            ValueError: the checkpoint has no encoder.
        """
        return self._encode([self._stroke3(drawing) for drawing in drawings], self.scale_factor)

    def _encode(self, rows: Sequence[Floats], scale_factor: float = 1.0) -> tuple[Floats, Floats]:
        """As :meth:`encode`, of stroke3 that ``scale_factor`` normalises."""
        lengths = np.array([max(len(item), 1) for item in rows])
        n_max = -(-int(lengths.max()) // PADDED_TO) * PADDED_TO
        points = np.stack([strokes.to_stroke5(item, scale_factor=scale_factor, n_max=n_max) for item in rows])
        with torch.inference_mode():
            mu, sigma_hat = self.model.encode(
                torch.from_numpy(points).to(self.device), torch.from_numpy(lengths).to(self.device)
            )
            return mu.float().cpu().numpy(), torch.exp(0.5 * sigma_hat.float()).cpu().numpy()

    def _stroke3(self, drawing: Sequence[NDArray[Any]]) -> Floats:
        """A whole drawing's rows in the canonical frame; as they are if it is in that frame already."""
        checked = strokes.check_drawing(drawing)
        side = strokes.longest_side(checked)
        if not strokes.CANONICAL_SIDES[0] <= side <= strokes.CANONICAL_SIDES[1]:
            checked, _ = strokes.canonical(checked, epsilon=self.source.epsilon)
        rows = strokes.to_stroke3(checked)
        return rows if len(rows) else np.array([[0.0, 0.0, 1.0]], dtype=np.float32)

    def nats(
        self,
        drawings: Sequence[Sequence[NDArray[Any]]],
        category: str | Sequence[str | None] | None = None,
        given: float = 0.0,
        *,
        batch_size: int = 128,
    ) -> NDArray[np.float64]:
        """How well the network foresees drawings, without z.

        Drawings outside the canonical frame are brought into it (scaled and simplified); those whose longest
        side is within it already are taken point for point.

        Args:
            category: one for all, or one for each drawing.
            given: share of each drawing's offsets that is only read, 0 to 1.

        Returns:
            (len, 2): the summed nats (L_s + L_p, density per square unit of the 255 frame) of the steps
            after the first ``given`` share, and how many steps those are (one for each offset, one for the end).
        """
        if not 0.0 <= given <= 1.0:
            raise ValueError("The given share must lie between 0 and 1.")
        names = [category] * len(drawings) if category is None or isinstance(category, str) else list(category)
        if len(names) != len(drawings):
            raise ValueError("Give one category for all drawings or one for each.")
        labels = np.array([self.category_index(name) for name in names], dtype=np.int64)
        rows = [self._stroke3(drawing) for drawing in drawings]
        lengths = np.array([len(item) for item in rows], dtype=np.int64)
        result = np.zeros((len(rows), 2))
        order = np.argsort(lengths, kind="stable")
        for begin in range(0, len(order), batch_size):
            chosen = order[begin : begin + batch_size]
            n = lengths[chosen]
            offset, pen = self._losses([rows[i] for i in chosen], labels[chosen], self.scale_factor)
            first = np.floor(given * n).astype(np.int64)  # (B,)
            later = np.arange(offset.shape[1]) >= first[:, None]
            surprise = ((offset + pen) * later).sum(axis=1)
            result[chosen, 0] = surprise + 2.0 * math.log(self.scale_factor) * (n - first)
            result[chosen, 1] = n - first + 1
        return result

    def _losses(
        self, rows: Sequence[Floats], labels: NDArray[np.int64], scale_factor: float = 1.0
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """L_s and L_p of each step without z, (B, T) each, of stroke3 that ``scale_factor`` normalises."""
        lengths = np.array([len(item) for item in rows], dtype=np.int64)
        n_max = -(-(int(lengths.max()) + 1) // PADDED_TO) * PADDED_TO
        target = np.stack([strokes.to_stroke5(item, scale_factor=scale_factor, n_max=n_max) for item in rows])
        start = np.broadcast_to(strokes.START_TOKEN, (len(rows), 1, 5))
        previous = np.concatenate([start, target[:, :-1]], axis=1)
        with torch.inference_mode():
            tensors = [torch.from_numpy(array).to(self.device) for array in (previous, target, lengths, labels)]
            y = self.model(tensors[0], None, tensors[3] if self.model.category is not None else None)
            steps = losses.step_losses(y.float(), tensors[1], tensors[2], min_sigma=self.model.config.min_sigma)
        return steps.offset.double().cpu().numpy(), steps.pen.double().cpu().numpy()


def slerp(a: NDArray[Any], b: NDArray[Any], share: float) -> NDArray[Any]:
    """Spherical interpolation (paper, section 4.2, after White 2016): a straight line would pass too near to 0."""
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    angle = math.acos(float(np.clip(np.dot(a, b) / lengths, -1.0, 1.0))) if lengths > 0 else 0.0
    if math.sin(angle) < 1e-4:
        return np.asarray((1.0 - share) * a + share * b)
    return np.asarray((math.sin((1.0 - share) * angle) * a + math.sin(share * angle) * b) / math.sin(angle))


def blend_size(how: str, steps: int) -> int:
    """How many drawings a blend gives."""
    return {"strip": steps, "grid": steps * steps, "sum": 1}[how]


def _check_blend(how: str, steps: int, given: int) -> int:
    """:func:`blend_size` of sound settings."""
    if how not in BLENDS:
        raise ValueError(f"Drawings can be blended as {', '.join(BLENDS)}.")
    if given != BLENDS[how]:
        raise ValueError(f"A {how} needs {BLENDS[how]} drawings.")
    if type(steps) is not int or not 2 <= steps <= 25:
        raise ValueError("The number of steps must be a whole number from 2 to 25.")
    return blend_size(how, steps)


class _Pen:
    """Follows one drawing's sampled points on the canvas."""

    def __init__(self, k: int, plan: _Plan) -> None:
        self.k, self.plan = k, plan
        self.x, self.y = plan.start
        self.down = plan.pen_down
        self.begun = False
        self.held: list[StreamRow] = []

    def move(self, dx: float, dy: float, pen: int) -> list[StreamRow]:
        """Rows that a sampled point gives."""
        rows = []
        if pen != PEN_END:
            if not self.begun and self.down:
                rows.append(StreamRow(self.k, self.x, self.y, MOVE_TO))
            self.begun = True
            self.x += dx * self.plan.unit
            self.y += dy * self.plan.unit
            rows.append(StreamRow(self.k, self.x, self.y, LINE_TO if self.down else MOVE_TO))
            self.down = pen == PEN_DOWN
        else:
            rows.append(StreamRow(self.k, self.x, self.y, ENDED))
        if self.plan.box is None:
            return rows
        self.held += rows
        return self._fitted() if pen == PEN_END else []

    def _fitted(self) -> list[StreamRow]:
        """The whole drawing, centred in the plan's box and no larger than it."""
        assert self.plan.box is not None  # noqa: S101 (for the type checker: only called with a box)
        points = np.array([(row.x, row.y) for row in self.held])
        low, high = points.min(axis=0), points.max(axis=0)
        side = float((high - low).max())
        box = np.array(self.plan.box)
        room = float((box[2:] - box[:2]).max())
        ratio = room / side if side > 0 and (self.plan.fill or side > room) and room > 0 else 1.0
        points = (points - (low + high) / 2.0) * ratio + (box[:2] + box[2:]) / 2.0
        return [StreamRow(row.k, float(x), float(y), row.pen) for row, (x, y) in zip(self.held, points, strict=True)]


def load(name_or_path: str | Path | None = None, device: str = "auto") -> Sketcher:
    """The default checkpoint, or one by name or path.

    Args:
        device: "auto", "cpu", "cuda" or "mps"; where drawings are encoded, drawn and measured.

    Raises:
        CheckpointError: missing, damaged, or of another version; one sentence.
    """
    source = checkpoints.load(checkpoints.resolve(name_or_path))
    return Sketcher(source, device=str(choose_device(device)))
