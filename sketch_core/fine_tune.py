"""Teaching a checkpoint new categories from a few drawings, while it keeps the old ones.

``python -m sketch_core train --from CHECKPOINT --data my.ndjson`` ends up here. The network gets a row in its
category table for each new word. Its old drawings are not at hand, but it can draw: a few drawings of each old
category, sampled from the network as it was, are what it must go on expecting exactly as before. The other values of
``keep`` are there to compare by (``benchmarks/fine_tuning.py``); docs/training-your-own.md has the table.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import logging
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sketch_core import checkpoint, evaluate, losses, mixture, quickdraw, strokes
from sketch_core.device import choose_device, choose_precision
from sketch_core.generate import Sketcher
from sketch_core.model import SketchRNN
from sketch_core.quickdraw import DrawingSet
from sketch_core.train import TRAIN_CONFIG_FILE, TrainingError, hold_out

log = logging.getLogger("sketch_core.train")

KEEPS = ("distil", "rehearsal", "l2sp", "embedding", "nothing")
HELD_OUT_SHARE = 0.2
MIN_DRAWINGS = 5
MAX_HELD_OUT = 200
MAX_WORD = 60
SHEET_FILE = "learned.png"
VALIDATIONS = 12
WARMUP_STEPS = 20
Z_SHARE = 0.4
"""Share of a batch that is decoded with z, as in training."""
CATEGORY_DROPOUT = 0.1
"""Share of its own drawings that it sees without their category, so that "any" stays what it is."""
READ_TO_START = 12
"""Drawings by which the nearest old category is found."""

Rows = list[NDArray[Any]]
"""Drawings as stroke3 rows in the canonical frame."""
Words = dict[str, dict[str, Rows]]
"""{word: {split: drawings}}."""


@dataclass
class FineTuneConfig:
    """Settings of teaching a checkpoint new categories, saved as ``train.json`` beside the result."""

    data: str = ""
    """A .ndjson file (a drawing a line, each with its "word"), a sketchrnn .npz file, or a folder of them."""
    out: str = ""
    """Folder for the new checkpoint."""
    source: str = ""
    """Name or folder of the checkpoint to go on from."""
    categories: list[str] | None = None
    """Which of the data's words to learn; all by default."""
    keep: str = "distil"
    """What keeps the old categories: distil, rehearsal, l2sp, embedding, or nothing."""
    steps: int = 200
    """Length in steps (batches)."""
    batch_size: int = 16
    """Drawings a batch, and as many of the network's own."""
    learning_rate: float = 2e-4
    """Peak learning rate of the decoder."""
    embedding_rate: float = 5e-3
    """Peak learning rate of the new rows of the category table."""
    weight: float = 5.0
    """Weight of what keeps the old categories."""
    rehearsal: int = 4
    """Drawings of each old category that the network draws to rehearse by."""
    dropout: float = 0.0
    """Share of the decoder's outputs left out in training; it shows in the old categories (0.05 nats a step with z)."""
    seed: int = 0
    """Seed of batches and noise."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    precision: str = "auto"
    """auto, fp32, bf16: bf16 where the hardware multiplies it."""
    threads: int = 0
    """CPU threads; 0 leaves PyTorch's choice."""
    max_points: int = 250
    """Longer drawings are left out."""

    def __post_init__(self) -> None:
        if self.keep not in KEEPS:
            raise TrainingError(f"--keep must be one of {', '.join(KEEPS)}.")
        for name in ("steps", "batch_size", "rehearsal", "max_points"):
            if getattr(self, name) < 1:
                raise TrainingError(f"--{name.replace('_', '-')} must be at least 1.")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise TrainingError("--precision must be auto, fp32 or bf16.")
        for name in ("learning_rate", "embedding_rate", "dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise TrainingError(f"--{name.replace('_', '-')} must be at least 0 and below 1.")
        if not 0.0 <= self.weight < math.inf:
            raise TrainingError("--weight must be a number and not negative.")


# ---------------------------------------------------------------------------------------------------
# The new drawings


def read_words(path: str | Path, *, max_points: int = 250) -> Words:
    """The drawings of a file or folder, by word and split.

    A ``.ndjson`` file may hold several words, and says nothing of splits: all its drawings come under "train".

    Raises:
        DataError: nothing there, or not such a file.
    """
    found: Words = {}
    for name, file in quickdraw.find_files(path).items():
        if file.suffix == ".npz":
            for split, drawings in quickdraw.read_npz(file).items():
                found.setdefault(name, {}).setdefault(split, []).extend(map(quickdraw.to_canonical, drawings))
        else:
            for word, _, drawing in quickdraw.read_ndjson(file):
                rows = quickdraw.to_canonical(strokes.to_stroke3(drawing))
                found.setdefault(word, {}).setdefault("train", []).append(rows)
    return {
        word: {split: [item for item in rows if 2 <= len(item) <= max_points] for split, rows in splits.items()}
        for word, splits in found.items()
    }


def divide(splits: Mapping[str, Rows], word: str) -> tuple[Rows, Rows]:
    """Drawings to learn from, and others to measure by, none in both.

    Those are the file's own validation drawings, or else a fifth of the others.

    Raises:
        TrainingError: fewer than five different drawings.
    """
    learned, held = (
        {np.asarray(rows, "<f4").tobytes(): rows for rows in splits.get(s, [])} for s in ("train", "valid")
    )
    held = {key: rows for key, rows in held.items() if key not in learned}
    if len(learned) + len(held) < MIN_DRAWINGS or not learned:
        raise TrainingError(
            f"There are {len(learned) + len(held)} different drawings of {word!r} that can be used; "
            f"draw at least {MIN_DRAWINGS}, better 30."
        )
    if held:
        return list(learned.values()), list(held.values())[:MAX_HELD_OUT]
    every = DrawingSet([word], list(learned.values()), np.zeros(len(learned), dtype=np.int64))
    learn, measure = hold_out(every, min(HELD_OUT_SHARE, MAX_HELD_OUT / len(learned)))
    return learn.stroke3, measure.stroke3


# ---------------------------------------------------------------------------------------------------
# The network


def extend(source: checkpoint.Checkpoint, words: Sequence[str]) -> checkpoint.Checkpoint:
    """The same network with a row for each new word in its category table, which starts as "any"'s.

    Raises:
        TrainingError: a network without categories, or words that cannot be names of any.
    """
    if not source.architecture.n_categories:
        raise TrainingError(f"{source.name} was trained without categories, so there is no table to add one to.")
    for word in words:
        if not word.strip() or len(word) > MAX_WORD or not word.isprintable():
            raise TrainingError(
                f"{word[:MAX_WORD]!r} is no name for a category; use 1 to {MAX_WORD} printable letters."
            )
    new = [word for word in words if word not in source.categories]
    table = source.weights["category.weight"]
    weights = dict(source.weights)
    weights["category.weight"] = np.concatenate([table[:-1], np.repeat(table[-1:], len(new), axis=0), table[-1:]])
    categories = [*source.categories, *new]
    architecture = dataclasses.replace(source.architecture, n_categories=len(categories))
    return dataclasses.replace(source, architecture=architecture, weights=weights, categories=categories)


def own_drawings(sketcher: Sketcher, per_category: int, seed: int = 0) -> DrawingSet:
    """What a network draws of each of its categories by itself (τ 1, no guidance), in the canonical frame."""
    rows, labels = [], []
    for label, category in enumerate(sketcher.categories):
        for drawing in sketcher.draw(category, 1.0, per_category, seed, guidance=0, size=strokes.FRAME_SIZE):
            item = strokes.to_stroke3(drawing)
            if len(item) >= 2:
                rows.append(item)
                labels.append(label)
    return DrawingSet(sketcher.categories, rows, np.array(labels, dtype=np.int64), "its own drawings")


def divergence(y: Tensor, old: Tensor, min_sigma: float) -> Tensor:
    """How far a step's distribution has moved: an upper bound of KL(old || new), component by component.

    Exact for the pen; for the mixture Σ_j π_j (log π_j / π'_j + KL(N_j || N'_j)), which bounds its KL from above and
    is near while each component stays itself.

    Args:
        y, old: (..., 6M + 3) raw outputs; ``old`` is not learned.

    Returns:
        (...,) nats.
    """
    new, was = mixture.split(y, min_sigma), mixture.split(old, min_sigma)
    pen_was = was.pen_logits.log_softmax(dim=-1)
    pen = (pen_was.exp() * (pen_was - new.pen_logits.log_softmax(dim=-1))).sum(dim=-1)
    rest = 1.0 - new.rho**2
    dx, dy = (was.mu_x - new.mu_x) / new.log_sigma_x.exp(), (was.mu_y - new.mu_y) / new.log_sigma_y.exp()
    rx, ry = (was.log_sigma_x - new.log_sigma_x).exp(), (was.log_sigma_y - new.log_sigma_y).exp()
    squared = (rx**2 + ry**2 - 2.0 * new.rho * was.rho * rx * ry + dx**2 + dy**2 - 2.0 * new.rho * dx * dy) / rest
    determinants = 0.5 * (rest.log() - (1.0 - was.rho**2).log()) - (rx.log() + ry.log())
    gaussians = 0.5 * squared - 1.0 + determinants
    return pen + (was.log_pi.exp() * (was.log_pi - new.log_pi + gaussians)).sum(dim=-1)


class FineTuner:
    """Teaches a checkpoint new categories: reads the drawings, learns, and tells what was measured."""

    def __init__(self, config: FineTuneConfig, words: Words | None = None) -> None:
        """Read the drawings and the checkpoint.

        Args:
            words: the drawings, where they are not read from ``config.data``; see :func:`read_words`.

        Raises:
            TrainingError, DataError, CheckpointError: one sentence.
        """
        self.config = config
        if config.threads:
            torch.set_num_threads(config.threads)
        self.device = choose_device(config.device)
        self.precision = choose_precision(config.precision, self.device)
        folder = checkpoint.resolve(config.source or None)
        if config.out and Path(config.out).resolve() == folder.resolve():
            raise TrainingError("--out would overwrite the checkpoint to go on from; choose another folder.")
        self.source = checkpoint.load(folder)
        if words is None:
            words = read_words(config.data, max_points=min(config.max_points, self.source.n_max - 1))
        self.words = sorted(words) if config.categories is None else sorted(set(config.categories))
        missing = [word for word in self.words if word not in words]
        if missing:
            there = ", ".join(map(repr, sorted(words)[:10]))
            raise TrainingError(f"{config.data} has no drawing of {', '.join(map(repr, missing))}; it has {there}.")
        extended = extend(self.source, self.words)
        self.categories = extended.categories
        self.train_set, self.valid_set = self._split(words)
        self.model = extended.model(self.device)
        self.history: dict[str, Any] = {}
        self.seconds = 0.0
        self._stop = False

    def _split(self, words: Words) -> tuple[DrawingSet, DrawingSet]:
        rows: tuple[Rows, Rows] = ([], [])
        labels: tuple[list[int], list[int]] = ([], [])
        for word in self.words:
            parts = divide(words[word], word)
            for part, into, marks in zip(parts, rows, labels, strict=True):
                into.extend(part)
                marks.extend([self.categories.index(word)] * len(part))
            known = "which it knows, and whose row goes on" if word in self.source.categories else "new to it"
            log.info("%r, %s: %d drawings to learn from, %d others to measure by", word, known, *map(len, parts))
        train, valid = (
            DrawingSet(self.categories, part, np.array(marks, dtype=np.int64), str(self.config.data))
            for part, marks in zip(rows, labels, strict=True)
        )
        return train, valid

    # -- learning ----------------------------------------------------------------------------------

    def run(self, on_step: Callable[[int], object] | None = None) -> checkpoint.Checkpoint:
        """Learn, and return the network as it foresaw the held-out drawings best.

        Ctrl-C ends it early with the best so far.

        Raises:
            TrainingError: the loss is not finite.
        """
        config, model = self.config, self.model
        began = time.perf_counter()
        generator = np.random.default_rng([config.seed, 1])
        torch.manual_seed(config.seed)
        self.history = {"before": self._figures()}
        self._start_rows()
        old = copy.deepcopy(model).requires_grad_(False).eval()
        new_drawings = self._sampler(self.train_set)
        own = self._sampler(self._own_drawings()) if config.keep in ("distil", "rehearsal") else None
        rows, decoder, optimizer = self._parameters()
        best, best_state = math.inf, copy.deepcopy(model.state_dict())
        every = max(1, config.steps // VALIDATIONS)
        with self._until_ctrl_c():
            for step in range(config.steps):
                if self._stop:
                    log.info("stopped at step %d; the best so far is kept", step)
                    break
                share = min(1.0, (step + 1) / WARMUP_STEPS) * (1.0 - step / config.steps)
                for group, peak in zip(
                    optimizer.param_groups, (config.embedding_rate, config.learning_rate), strict=True
                ):
                    group["lr"] = peak * share
                optimizer.zero_grad(set_to_none=True)
                with torch.autocast(self.device.type, torch.bfloat16) if self.precision else contextlib.nullcontext():
                    loss = self._loss(new_drawings[step], own[step] if own else None, old, generator)
                if config.keep == "l2sp":
                    pairs = zip(model.decoder.parameters(), old.decoder.parameters(), strict=True)
                    loss = loss + config.weight * torch.stack([((now - was) ** 2).sum() for now, was in pairs]).sum()
                torch.autograd.backward(loss)
                if rows.grad is not None:
                    rows.grad[self._old_rows] = 0.0
                norm = nn.utils.clip_grad_norm_([rows, *decoder], 1.0)
                if not math.isfinite(float(loss.detach())) or not math.isfinite(float(norm)):
                    raise TrainingError(f"The loss is not finite at step {step}; try a lower --learning-rate.")
                optimizer.step()
                if on_step is not None:
                    on_step(step + 1)
                if (step + 1) % every == 0 or step + 1 == config.steps:
                    figures = self._figures()
                    log.info("step %d, %.0f s: %s", step + 1, time.perf_counter() - began, json.dumps(figures))
                    if figures["nats_free"] < best:
                        best, best_state = figures["nats_free"], copy.deepcopy(model.state_dict())
                        self.history |= {"after": figures, "best_step": step + 1}
        model.load_state_dict(best_state)
        model.eval()
        self.history["old"] = self._forgotten(old)
        self.seconds = time.perf_counter() - began
        return self.checkpoint()

    def _parameters(self) -> tuple[Tensor, list[nn.Parameter], torch.optim.Optimizer]:
        """What is learned: the category table (whose old rows are held), and the decoder unless it is frozen.

        The encoder is left as it is: z of old drawings stays where it was.
        """
        model = self.model.requires_grad_(False).train()
        model.decoder.dropout = self.config.dropout
        if model.category is None:
            raise TrainingError("A network without categories cannot learn one.")
        rows = model.category.weight.requires_grad_(True)
        self._old_rows = torch.ones(len(rows), dtype=torch.bool, device=self.device)
        self._old_rows[[self.categories.index(word) for word in self.words]] = False
        decoder: list[nn.Parameter] = []
        if self.config.keep != "embedding":
            decoder = list(model.decoder.requires_grad_(True).parameters())
        groups: list[dict[str, Any]] = [{"params": [rows]}, {"params": decoder}]
        return rows, decoder, torch.optim.Adam(groups, lr=0.0, betas=(0.9, 0.99))

    def _loss(
        self, new: quickdraw.Batch, own: quickdraw.Batch | None, old: SketchRNN, generator: np.random.Generator
    ) -> Tensor:
        """Nats a step of new drawings, and what its own ones (in the same batch) have moved by."""
        model, config = self.model, self.config
        batches = [new] if own is None else [new, own]
        n_new = len(new.lengths)
        labels = np.concatenate([batch.labels for batch in batches])
        forget = generator.random(len(labels)) < CATEGORY_DROPOUT
        labels[n_new:][forget[n_new:]] = model.any_category
        with_z = generator.random((len(labels), 1)) < Z_SHARE
        noise = generator.standard_normal((len(labels), model.config.z_size))
        arrays = [
            np.concatenate([_padded(batch.drawing, batches) for batch in batches]),
            np.concatenate([_padded(batch.previous, batches) for batch in batches]),
            np.concatenate([batch.lengths for batch in batches]),
            labels,
            with_z.astype(np.float32),
            noise.astype(np.float32),
        ]
        target, previous, lengths, labels_, z_share, epsilon = (torch.from_numpy(a).to(self.device) for a in arrays)
        z = None
        if old.encoder is not None:
            with torch.no_grad():
                mu, sigma_hat = (item.float() for item in old.encode(target, lengths))
                z = (mu + torch.exp(0.5 * sigma_hat) * epsilon) * z_share
        y = model(previous, z, labels_).float()
        sigma = model.config.min_sigma
        steps = losses.step_losses(y, target, lengths, min_sigma=sigma)
        nats = steps.offset + steps.pen
        counts = lengths + 1
        loss = nats[:n_new].sum() / counts[:n_new].sum()
        if own is None:
            return loss
        if config.keep == "rehearsal":
            return loss + config.weight * nats[n_new:].sum() / counts[n_new:].sum()
        with torch.no_grad():
            was = old(previous[n_new:], None if z is None else z[n_new:], labels_[n_new:]).float()
        real = torch.arange(y.shape[1], device=self.device) <= lengths[n_new:].unsqueeze(1)
        moved = divergence(y[n_new:], was, sigma) * real
        return loss + config.weight * moved.sum() / real.sum()

    def _own_drawings(self) -> DrawingSet:
        began = time.perf_counter()
        drawn = own_drawings(Sketcher(self.source), self.config.rehearsal, self.config.seed)
        log.info("it drew %d drawings to rehearse by, in %.0f s", len(drawn), time.perf_counter() - began)
        return drawn

    def _forgotten(self, old: SketchRNN) -> dict[str, Any]:
        """Nats a step of its own drawings of the old categories, before and after; none that it has rehearsed by."""
        drawn = own_drawings(Sketcher(self.source), 1, self.config.seed + 1)
        before, after = (self._nats(model, drawn) for model in (old, self.model))
        return {"before": before, "after": after, "drawings": len(drawn)}

    def _start_rows(self) -> None:
        """Begin each new row at that old one under which its drawings are likeliest."""
        table = self.model.category
        if table is None:
            return
        known = [*range(len(self.source.categories)), self.model.any_category]
        for word in set(self.words) - set(self.source.categories):
            index = self.categories.index(word)
            chosen = np.flatnonzero(self.train_set.labels == index)[:READ_TO_START]
            rows = [self.train_set.stroke3[i] for i in chosen]
            labels = np.repeat(known, len(rows)).astype(np.int64)
            trial = DrawingSet(self.categories, rows * len(known), labels)
            measured = evaluate.measure(self.model, trial, device=self.device, precision=self.precision)
            nats = (measured.offset_free + measured.pen_free).reshape(len(known), -1).sum(axis=1)
            nearest = known[int(nats.argmin())]
            with torch.no_grad():
                table.weight[index] = table.weight[nearest]
            log.info("%r starts as %s", word, [*self.categories, "anything"][nearest])

    def _sampler(self, drawings: DrawingSet) -> quickdraw.BatchSampler:
        return quickdraw.BatchSampler(
            drawings,
            self.config.batch_size,
            float(self.model.scale_factor),
            augmentation=quickdraw.Augmentation(),
            seed=self.config.seed,
        )

    def _figures(self) -> dict[str, float]:
        """Nats a step of the held-out drawings."""
        training = self.model.training
        figures = self._nats(self.model.eval(), self.valid_set)
        self.model.train(training)
        return figures

    def _nats(self, model: SketchRNN, drawings: DrawingSet) -> dict[str, float]:
        summary = evaluate.measure(model, drawings, device=self.device, precision=self.precision).summary()
        return {key: round(value, 4) for key, value in summary.items() if key.startswith("nats")}

    def checkpoint(self) -> checkpoint.Checkpoint:
        """The network as it is now, with what it was made from and what was measured on the held-out drawings."""
        settings = dataclasses.asdict(self.config)
        return checkpoint.Checkpoint.from_model(
            self.model,
            self.categories,
            epsilon=self.source.epsilon,
            training={
                "from": self.source.name,
                "data": f"{len(self.train_set):,} drawings of {', '.join(self.words)}",
                "data_sha256": self.train_set.digest(),
                "minutes": round(self.seconds / 60, 1),
                "settings": {name: value for name, value in settings.items() if name not in ("data", "out", "source")},
                "before": self.source.training,
            },
            metrics={"held_out": self.history | {"drawings": len(self.valid_set)}},
        )

    @contextlib.contextmanager
    def _until_ctrl_c(self) -> Iterator[None]:
        """While the block runs, Ctrl-C asks for a stop after the step."""

        def stop(number: int, frame: object) -> None:
            self._stop = True

        previous: Any = None
        with contextlib.suppress(ValueError):  # not in the main thread
            previous = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            if previous is not None:
                signal.signal(signal.SIGINT, previous)


def _padded(rows: NDArray[np.float32], batches: Sequence[quickdraw.Batch]) -> NDArray[np.float32]:
    """(B, T, 5) with as many end rows as the longest of the batches has."""
    longest = max(batch.drawing.shape[1] for batch in batches)
    end = np.broadcast_to(np.array([0, 0, 0, 0, 1], dtype=np.float32), (len(rows), longest - rows.shape[1], 5))
    return np.concatenate([rows, end], axis=1)


def save(tuner: FineTuner, learned: checkpoint.Checkpoint) -> Path:
    """Write a checkpoint with the settings beside it; returns its folder."""
    out = Path(tuner.config.out)
    folder = checkpoint.save(learned, out)
    settings = json.dumps(dataclasses.asdict(tuner.config), indent=1)
    (out / TRAIN_CONFIG_FILE).write_text(settings + "\n", encoding="utf-8")
    return folder


def summary(tuner: FineTuner) -> str:
    """What was measured, as a few lines of text."""
    held, old = tuner.history, tuner.history["old"]
    after = held.get("after", held["before"])
    lines = [
        f"nats a step of {len(tuner.valid_set)} held-out drawings: "
        f"{held['before']['nats_free']:.3f} before, {after['nats_free']:.3f} after",
        f"nats a step of {old['drawings']} drawings of the old categories (its own): "
        f"{old['before']['nats_free']:.3f} before, {old['after']['nats_free']:.3f} after",
    ]
    if "after" not in held:
        lines.append("Nothing was learned that helps with the held-out drawings: more drawings, or more alike, may.")
    return "\n".join(lines)


def card(tuner: FineTuner, learned: checkpoint.Checkpoint, *, picture: bool = True) -> str:
    """A model card, with :data:`SHEET_FILE` in it or without."""
    words = ", ".join(tuner.words)
    shown = f"![What it draws of {words}, at two temperatures]({SHEET_FILE})\n\n" if picture else ""
    return (
        f"# {learned.name}\n\n{tuner.source.name}, taught {words} from {len(tuner.train_set):,} drawings in "
        f"{tuner.seconds / 60:.1f} minutes (`--keep {tuner.config.keep}`). It still knows its other "
        f"{len(tuner.categories) - len(tuner.words)} categories.\n\n"
        + shown
        + "\n".join(f"- {line}" for line in summary(tuner).splitlines())
        + "\n\n`sketch_core/evaluate.py` says what these figures mean. The licence of what it was made from holds on.\n"
    )
