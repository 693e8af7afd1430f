"""Training: one process, or several through ``torchrun``.

The objective is nats a step (L_s + L_p over the real points and the end) plus the weighted, annealed KL;
``TrainConfig.paper`` switches to the paper's own normalisation, schedule and clipping. Everything needed to
go on exactly where a run stopped lies in ``state.pt`` of its folder.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import itertools
import json
import logging
import math
import multiprocessing
import os
import signal
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from sketch_core import checkpoint, evaluate, losses, quickdraw, strokes
from sketch_core.device import choose_device, choose_precision
from sketch_core.model import SketchRNN, SketchRNNConfig
from sketch_core.quickdraw import DrawingSet

log = logging.getLogger("sketch_core.train")

STATE_FILE, LOG_FILE, TRAIN_CONFIG_FILE = "state.pt", "log.csv", "train.json"


class TrainingError(ValueError):
    """Training that cannot start or go on; one sentence."""


@dataclass
class TrainConfig:
    """Settings of a training run, saved as ``train.json`` beside its checkpoints."""

    data: str = ""
    """A .npz or .ndjson file, or a folder of them."""
    out: str = ""
    """Folder for checkpoints, log and state."""
    categories: list[str] | None = None
    """Categories to train on; all of the folder's by default."""
    minutes: float = 60.0
    """Length of the run in minutes of training; the learning rate falls towards its end. 0: use steps."""
    steps: int = 0
    """Length of the run in steps (batches), instead of minutes."""
    batch_size: int = 16
    """Drawings a batch, of each process."""
    learning_rate: float = 2.5e-3
    """Peak learning rate."""
    final_learning_rate: float = 1e-6
    """Learning rate at the end."""
    warmup_steps: int = 500
    """Steps over which the learning rate rises from 0."""
    decay_share: float = 0.6
    """Last share of the run over which the learning rate falls."""
    schedule: str = "stable-decay"
    """"stable-decay", or "magenta": learning_rate x 0.9999^step, not under 1e-5."""
    weight_decay: float = 0.01
    """AdamW's weight decay (on matrices only)."""
    clip: float = 1.0
    """Gradient clipping, by norm, or by value with clip_by_value."""
    clip_by_value: bool = False
    """Clip each element of the gradient, as the paper's code does."""
    ema: float = 0.999
    """Decay of the running average of the weights, which is what is saved; 0 turns it off."""
    normalise: str = "step"
    """"step": nats a step; "n_max": the paper's, sums divided by N_max, padding included."""
    w_kl: float = 0.1
    """Weight of the KL term."""
    kl_min: float = 0.2
    """Floor of L_KL."""
    eta_min: float = 0.01
    """Share of w_kl at step 0."""
    kl_rate: float = 0.99997
    """R of the annealing."""
    z_share: float = 0.5
    """Share of each batch decoded with z; the rest learns to draw without."""
    prefix_share: float = 0.3
    """Share of those whose encoder sees only a random first part."""
    dropout: float = 0.1
    """Share of the decoder's outputs left out in training."""
    weight_dropout: float = 0.3
    """Share of the decoder's recurrent weights left out, anew for each batch; without any validation rises after an
    hour (128,000 drawings)."""
    category_dropout: float = 0.1
    """Share of drawings shown without their category."""
    sampling_power: float = 0.6
    """Categories are drawn with chance count ** power."""
    max_points: int = 250
    """Longer drawings are left out."""
    scale: float = 0.15
    stretch: float = 0.12
    rotate: float = 0.10
    shear: float = 0.08
    point_dropout: float = 0.08
    mirror: float = 0.4
    drift: float = 0.0
    drift_share: float = 0.0
    augment_share: float = 0.6
    """Augmentation; see quickdraw.Augmentation (where augment_share is share)."""
    tell_changes: bool = True
    """Tell the decoder in training how each drawing was changed (see Objective); needs categories."""
    seed: int = 0
    """Seed of weights, batches and noise."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    precision: str = "auto"
    """auto, fp32, bf16: bf16 where the hardware multiplies it."""
    threads: int = 0
    """CPU threads; 0 leaves PyTorch's choice."""
    workers: int = -1
    """Processes that prepare batches; 0: none beside this one; -1: up to four for a GPU, none for a CPU."""
    save_minutes: float = 5.0
    """Save state and checkpoint this often."""
    validate_minutes: float = 10.0
    """Validate (and draw a sample sheet) this often."""
    validation_per_category: int = 3
    """Drawings of each category to validate on."""
    init_from: str = ""
    """Start from this checkpoint's weights, and know the data's categories alone; --from adds them to the old ones."""
    architecture: SketchRNNConfig = field(default_factory=SketchRNNConfig)

    def __post_init__(self) -> None:
        if self.minutes <= 0 and self.steps <= 0:
            raise TrainingError("Give the run a length: --minutes or --steps.")
        if self.batch_size < 1:
            raise TrainingError("--batch-size must be at least 1.")
        if self.schedule not in ("stable-decay", "magenta"):
            raise TrainingError("--schedule must be stable-decay or magenta.")
        if self.normalise not in ("step", "n_max"):
            raise TrainingError("--normalise must be step or n_max.")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise TrainingError("--precision must be auto, fp32 or bf16.")
        if self.workers < -1:
            raise TrainingError("--workers must be at least 0, or -1.")
        for name in ("z_share", "prefix_share", "category_dropout", "decay_share", "dropout", "weight_dropout"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise TrainingError(f"--{name.replace('_', '-')} must lie between 0 and 1.")

    @classmethod
    def paper(cls, *, decoder_only: bool = False, **changes: Any) -> TrainConfig:
        """The paper's set-up in Magenta's code (sizes, loss, schedule, clipping, augmentation)."""
        settings: dict[str, Any] = {
            "batch_size": 100,
            "learning_rate": 1e-3,
            "schedule": "magenta",
            "weight_decay": 0.0,
            "clip_by_value": True,
            "ema": 0.0,
            "normalise": "n_max",
            "w_kl": 0.5,
            "kl_rate": 0.99995,
            "z_share": 0.0 if decoder_only else 1.0,
            "prefix_share": 0.0,
            "category_dropout": 0.0,
            "dropout": 0.0,
            "sampling_power": 1.0,
            "scale": 0.087,  # the spread of magenta's U(0.85, 1.15)
            "stretch": 0.12,
            "rotate": 0.0,
            "shear": 0.0,
            "point_dropout": 0.10,
            "mirror": 0.0,
            "augment_share": 1.0,
            "tell_changes": False,
            "weight_dropout": 0.0,
            "architecture": SketchRNNConfig.paper(decoder_only=decoder_only),
        }
        return cls(**(settings | changes))

    @property
    def augmentation(self) -> quickdraw.Augmentation:
        return quickdraw.Augmentation(
            self.scale,
            self.stretch,
            self.rotate,
            self.shear,
            self.point_dropout,
            self.mirror,
            self.drift,
            self.drift_share,
            self.augment_share,
        )

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


CHANGES_SIZE = 64


class Objective(nn.Module):
    """The network with its loss; what DistributedDataParallel wraps.

    With ``tell_changes`` the decoder is told how a drawing was augmented (mirrored, turned, …), by a vector added to
    its category's: what is learned from changed drawings then need not show in what it draws by itself, where that
    vector is zero (Karras et al. 2020, "Training GANs with limited data", and 2022, appendix F.2). This part is
    thrown away after training.
    """

    def __init__(self, model: SketchRNN, config: TrainConfig) -> None:
        super().__init__()
        self.model, self.config = model, config
        self.changes: nn.Sequential | None = None
        if config.tell_changes:
            # Without biases, so that no change is the zero vector.
            first = nn.Linear(quickdraw.N_CHANGES, CHANGES_SIZE, bias=False)
            last = nn.Linear(CHANGES_SIZE, model.config.category_size, bias=False)
            nn.init.normal_(first.weight, std=0.5)
            nn.init.zeros_(last.weight)
            self.changes = nn.Sequential(first, nn.Tanh(), last)

    def forward(  # noqa: PLR0917 (DistributedDataParallel hands tensors on by position)
        self,
        drawing: Tensor,
        previous: Tensor,
        target: Tensor,
        lengths: Tensor,
        seen: Tensor,
        labels: Tensor,
        noise: Tensor,
        changes: Tensor,
        w_kl: float,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """
        Args:
            drawing: (B, T, 5), what the encoder reads.
            previous, target: (B, T, 5), what the decoder reads and is asked for.
            lengths: (B,) real points.
            seen: (n_z,) how many points of each of the first n_z drawings the encoder sees.
            labels: (B,) categories after category dropout.
            noise: (n_z, N_z) ε of z = μ + σ ⊙ ε.
            changes: (B, N_CHANGES) how the drawings were augmented.
            w_kl: annealed weight.

        Returns:
            The loss and its parts (detached sums and means).
        """
        model, config = self.model, self.config
        n_z, batch = len(seen), len(target)
        z, kl = None, target.new_zeros(())
        if n_z:
            mu, sigma_hat = model.encode(drawing[:n_z], seen)
            mu, sigma_hat = mu.float(), sigma_hat.float()
            encoded = mu + torch.exp(0.5 * sigma_hat) * noise
            z = torch.cat([encoded, encoded.new_zeros(batch - n_z, encoded.shape[1])])  # (B, N_z)
            kl = losses.kl_loss(mu, sigma_hat)
        condition = model.condition(z, labels if model.category is not None else None, batch)
        if self.changes is not None:
            told = self.changes(changes)  # (B, category_size); the category stands last in the condition
            condition = condition + nn.functional.pad(told, (condition.shape[1] - told.shape[1], 0))
        y = model.decoder(previous, condition)[0].float()
        if config.normalise == "n_max":
            l_s, l_p = losses.reconstruction_loss(
                y, target, lengths, int(model.n_max), min_sigma=model.config.min_sigma
            )
            reconstruction = l_s + l_p
            steps = losses.step_losses(y.detach(), target, lengths, min_sigma=model.config.min_sigma)
        else:
            steps = losses.step_losses(y, target, lengths, min_sigma=model.config.min_sigma)
            reconstruction = (steps.offset.sum() + steps.pen.sum()) / (lengths.sum() + batch)
        loss = reconstruction
        if n_z:
            loss = loss + w_kl * losses.kl_cost(kl, config.kl_min)
        return loss, {
            "offset": steps.offset.detach().sum(dim=1),
            "pen": steps.pen.detach().sum(dim=1),
            "kl": kl.detach().mean(),
        }


class Prepared(NamedTuple):
    """A step's arrays, in the order of :meth:`Objective.forward`, and the seed of its dropout."""

    arrays: tuple[NDArray[Any], ...]
    seed: int


LENGTHS, SEEN = 3, 4
"""Places of two of them."""


class Steps:
    """What goes into each step: a batch, and what chance does to it. Depends on seed and step alone, so that it may
    be prepared anywhere: in this process or in others."""

    def __init__(self, config: TrainConfig, architecture: SketchRNNConfig, sampler: Any, rank: int = 0) -> None:
        self.config, self.architecture, self.sampler, self.rank = config, architecture, sampler, rank

    def __getitem__(self, step: int) -> Prepared:
        config, batch = self.config, self.sampler[step]
        generator = np.random.default_rng([config.seed, self.rank, step, 2])
        n = len(batch.lengths)
        n_z = round(config.z_share * n) if self.architecture.has_encoder else 0
        seen = batch.lengths[:n_z].copy()
        cut = generator.random(n_z) < config.prefix_share
        seen[cut] = np.maximum(1, (seen[cut] * generator.uniform(0.1, 1.0, int(cut.sum()))).astype(np.int64))
        labels = batch.labels.copy()
        if self.architecture.n_categories:
            labels[generator.random(n) < config.category_dropout] = self.architecture.n_categories  # any
        noise = generator.standard_normal((n_z, self.architecture.z_size)).astype(np.float32)
        changes = batch.changes if batch.changes is not None else np.zeros((n, quickdraw.N_CHANGES), np.float32)
        arrays = (batch.drawing, batch.previous, batch.target, batch.lengths, seen, labels, noise, changes)
        return Prepared(arrays, int(generator.integers(2**62)))


MOST_WORKERS = 4
"""Batches of 128 on an H100: 4,450 drawings a second without, 4,960 with four; the rest is the GPU's launches."""


def choose_workers(workers: int, device: torch.device) -> int:
    """Processes that prepare batches for one training process, where -1 leaves the choice to us.

    None where a process starts from nothing (Windows, macOS): each would load all drawings anew.
    """
    if workers >= 0:
        return workers
    if device.type != "cuda" or multiprocessing.get_start_method() != "fork":
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    trainers = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(MOST_WORKERS, max(0, cores // trainers - 1))


HELD_OUT_SHARE = 0.1


def hold_out(drawings: DrawingSet, share: float = HELD_OUT_SHARE) -> tuple[DrawingSet, DrawingSet]:
    """Drawings to learn from and others to validate on, for data that comes without any.

    Which ones is told by a hash of each drawing, so the same are held out whenever a run goes on, and a drawing that
    is there twice is on one side only.

    Raises:
        TrainingError: there are fewer than two different drawings.
    """
    keys = [hashlib.sha256(np.asarray(rows, dtype="<f4").tobytes()).digest() for rows in drawings.stroke3]
    different = sorted(set(keys))
    if len(different) < 2:
        raise TrainingError(f"{drawings.source} holds one drawing; at least two are needed, one to validate on.")
    held = set(different[: max(1, round(share * len(different)))])
    inside = np.array([key in held for key in keys])
    return drawings.subset(np.flatnonzero(~inside)), drawings.subset(np.flatnonzero(inside))


class Trainer:
    """One training run: build, resume, run, save. ``on_validate`` callbacks get the trainer (sample sheets)."""

    def __init__(self, config: TrainConfig, *, on_validate: list[Callable[[Trainer], None]] | None = None) -> None:
        self.config = config
        self.on_validate = on_validate or []
        self.rank, self.world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        if config.threads:
            torch.set_num_threads(config.threads)
        self.device = choose_device(config.device)
        self.precision = choose_precision(config.precision, self.device)
        self.out = Path(config.out)
        self.out.mkdir(parents=True, exist_ok=True)

        sets = quickdraw.load_sets(
            config.data, config.categories, ("train", "valid", "test"), max_points=config.max_points
        )
        if not len(sets["train"]):
            raise TrainingError(f"{config.data} holds no training drawings.")
        if not len(sets["valid"]):
            sets["train"], sets["valid"] = hold_out(sets["train"])
            log.info("no drawings to validate on: %d of the training drawings are held out", len(sets["valid"]))
        self.train_set = sets["train"]
        self.categories = self.train_set.categories
        self.valid_set = sets["valid"].per_category(config.validation_per_category)
        scale_factor = strokes.scale_factor(self.train_set.stroke3)
        # N_max is the longest of all splits, and one more row for the end.
        n_max = max(int(item.lengths.max()) for item in sets.values() if len(item)) + 1
        architecture = config.architecture
        if config.tell_changes and not architecture.category_size:
            raise TrainingError(
                "Without a category embedding the network cannot be told how drawings were augmented; "
                "add --no-tell-changes and --mirror 0."
            )
        if architecture.category_size:
            architecture = dataclasses.replace(architecture, n_categories=len(self.categories))
        self.architecture = architecture

        torch.manual_seed(config.seed)
        self.model = SketchRNN(architecture, scale_factor, n_max)
        if config.init_from:
            self._start_from(checkpoint.load(checkpoint.resolve(config.init_from)))
        self.model.decoder.dropout = config.dropout
        self.model.decoder.weight_dropout = config.weight_dropout
        self.model.to(self.device)
        self.scale_factor = float(self.model.scale_factor)
        self.sampler = quickdraw.BatchSampler(
            self.train_set,
            config.batch_size,
            self.scale_factor,
            power=config.sampling_power,
            augmentation=config.augmentation,
            seed=config.seed,
            rank=self.rank,
            world_size=self.world_size,
        )
        objective = Objective(self.model, config).to(self.device)
        self.changes = objective.changes
        self.objective: nn.Module = objective
        if self.world_size > 1:
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
            self.objective = nn.parallel.DistributedDataParallel(
                self.objective, device_ids=[self.device.index] if self.device.type == "cuda" else None
            )
        matrices = [p for p in self.objective.parameters() if p.ndim > 1]
        vectors = [p for p in self.objective.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
            lr=config.learning_rate,
            betas=(0.9, 0.99),
            fused=self.device.type in ("cpu", "cuda"),
        )
        self.average = [p.detach().clone() for p in self.model.parameters()] if config.ema else []

        self.step = 0
        self.seconds = 0.0
        self.drawings = 0
        self.best = math.inf
        self.history: dict[str, Any] = {}
        self._stop = False
        self._stream: Iterator[Prepared] | None = None
        self._stream_step = -1

    def _next(self) -> Prepared:
        """What goes into the next step, from other processes where there are any."""
        steps = Steps(self.config, self.architecture, self.sampler, self.rank)
        workers = choose_workers(self.config.workers, self.device)
        if not workers:
            return steps[self.step]
        if self._stream is None or self._stream_step != self.step:
            loader = DataLoader(
                cast("Dataset[Prepared]", steps),
                batch_size=None,
                sampler=itertools.count(self.step),
                num_workers=workers,
                prefetch_factor=8,
                collate_fn=_as_it_is,
                worker_init_fn=_leave_signals,
            )
            self._stream = iter(loader)
        self._stream_step = self.step + 1
        return next(self._stream)

    # -- state -------------------------------------------------------------------------------------

    def _start_from(self, source: checkpoint.Checkpoint) -> None:
        """Copy weights; category embeddings go by name, new categories start at "any"."""
        mine = {name: parameter for name, parameter in self.model.named_parameters()}
        for name, array in source.weights.items():
            if name == "category.weight" or name not in mine:
                continue
            if mine[name].shape != array.shape:
                raise TrainingError(f"{source.name} has another architecture ({name}), so it cannot be a start.")
            mine[name].data.copy_(torch.from_numpy(array))
        if self.model.category is not None and "category.weight" in source.weights:
            table = torch.from_numpy(source.weights["category.weight"])
            for row, category in enumerate([*self.categories, None]):
                known = source.categories.index(category) if category in source.categories else len(table) - 1
                self.model.category.weight.data[row] = table[known]
        self.model.scale_factor.fill_(source.scale_factor)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[SketchRNN]:
        """The network with the averaged weights, in evaluation mode, while the block runs."""
        parameters = list(self.model.parameters())
        kept = [p.detach().clone() for p in parameters] if self.average else []
        with torch.no_grad():
            for parameter, average in zip(parameters, self.average, strict=False):
                parameter.copy_(average)
        self.model.eval()
        try:
            yield self.model
        finally:
            with torch.no_grad():
                for parameter, value in zip(parameters, kept, strict=False):
                    parameter.copy_(value)
            self.model.train()

    def save_state(self) -> None:
        """Everything to go on from, in one file of tensors and plain values (read with weights_only)."""
        state = {
            "model": self.model.state_dict(),
            "changes": self.changes.state_dict() if self.changes is not None else {},
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "step": self.step,
            "seconds": self.seconds,
            "drawings": self.drawings,
            "best": self.best,
        }
        part = self.out / f".{STATE_FILE}.part"
        torch.save(state, part)
        os.replace(part, self.out / STATE_FILE)

    def resume(self) -> bool:
        """Go on from ``state.pt`` if there is one. Batches and noise depend on seed and step alone.

        Raises:
            TrainingError: the state is damaged or of another network.
        """
        file = self.out / STATE_FILE
        if not file.is_file():
            return False
        try:
            with zipfile.ZipFile(file) as archive:  # as torch writes it: what is packed may unpack to any size
                if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                    raise ValueError("it is packed")
            state = torch.load(file, map_location=self.device, weights_only=True)
            self.model.load_state_dict(state["model"])
            if self.changes is not None:
                self.changes.load_state_dict(state["changes"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.config.ema:
                own = [p.detach() for p in self.model.parameters()]
                self.average = list(state["average"]) or [p.clone() for p in own]
                if [(p.shape, p.dtype) for p in self.average] != [(p.shape, p.dtype) for p in own]:
                    raise ValueError("its average is of another network")
            self.step, self.seconds = int(state["step"]), float(state["seconds"])
            self.drawings, self.best = int(state["drawings"]), float(state["best"])
        except Exception as error:  # a damaged file can raise nearly anything, at any length
            raise TrainingError(f"{file} does not fit this run or is damaged ({type(error).__name__}).") from None
        return True

    def checkpoint(self, name: str = "") -> checkpoint.Checkpoint:
        """The averaged weights as a checkpoint."""
        with self.averaged() as model:
            return checkpoint.Checkpoint.from_model(
                model,
                self.categories,
                name=name,
                training={
                    "data": f"{len(self.train_set):,} drawings in {len(self.categories)} categories",
                    "data_sha256": self._digest(),
                    "minutes": round(self.seconds / 60, 1),
                    "steps": self.step,
                    "drawings_seen": self.drawings,
                    "settings": {
                        key: value
                        for key, value in self.config.as_dict().items()
                        if key not in ("data", "out", "architecture", "categories")
                    },
                },
                metrics={"validation": self.history},
            )

    def _digest(self) -> str:
        if not hasattr(self, "_digest_value"):
            self._digest_value = self.train_set.digest()
        return self._digest_value

    # -- the loop ----------------------------------------------------------------------------------

    @property
    def progress(self) -> float:
        """Share of the run that is done, 0 to 1."""
        if self.config.steps:
            return min(self.step / self.config.steps, 1.0)
        return min(self.seconds / (60.0 * self.config.minutes), 1.0)

    def learning_rate(self) -> float:
        """What the schedule says for the next step."""
        config = self.config
        if config.schedule == "magenta":
            return max(config.learning_rate * 0.9999**self.step, 1e-5)
        warm = min((self.step + 1) / max(config.warmup_steps, 1), 1.0)
        begin = 1.0 - config.decay_share
        fall = 0.0 if self.progress <= begin else (self.progress - begin) / max(config.decay_share, 1e-9)
        low, high = config.final_learning_rate, config.learning_rate
        return warm * (low + (high - low) * (1.0 - math.sqrt(fall)))

    def train_step(self) -> dict[str, float]:
        """One batch. Raises TrainingError, naming the step, when the loss is not finite."""
        config, device = self.config, self.device
        prepared = self._next()
        lengths = prepared.arrays[LENGTHS]
        n, n_z = len(lengths), len(prepared.arrays[SEEN])
        tensors = [torch.from_numpy(array).to(device, non_blocking=True) for array in prepared.arrays]
        # Dropout's randomness, like all else, from seed and step alone: resuming is exact.
        torch.manual_seed(prepared.seed)
        w_kl = losses.kl_weight(self.step, config.w_kl, config.eta_min, config.kl_rate)
        rate = self.learning_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16) if self.precision else contextlib.nullcontext():
            loss, parts = self.objective(*tensors, w_kl)
        loss.backward()
        if config.clip_by_value:
            nn.utils.clip_grad_value_(self.objective.parameters(), config.clip)
            # Clipping by value lets NaN through, and one such step would spoil weights and saved state alike.
            norm = nn.utils.get_total_norm([p.grad for p in self.objective.parameters() if p.grad is not None])
        else:
            norm = nn.utils.clip_grad_norm_(self.objective.parameters(), config.clip)
        value = float(loss.detach())
        if not math.isfinite(value) or not math.isfinite(float(norm)):
            raise TrainingError(f"The loss is not finite at step {self.step}; try a lower --learning-rate.")
        self.optimizer.step()
        self.step += 1
        self.drawings += n * self.world_size
        if self.average:
            # A young average would hold on to the first weights: let its memory grow with the steps.
            decay = min(config.ema, (1 + self.step) / (10 + self.step))
            parameters = [p.detach() for p in self.model.parameters()]
            torch._foreach_lerp_(self.average, parameters, 1.0 - decay)
        steps_without_z = float((lengths[n_z:] + 1).sum())
        steps_with_z = float((lengths[:n_z] + 1).sum())
        total = (parts["offset"] + parts["pen"]).cpu()
        figures = {"loss": value, "kl": float(parts["kl"]), "learning_rate": rate}
        # A run has both kinds of rows, or one of them, in every batch: the log's columns stay the same.
        if steps_without_z:
            figures["nats_free"] = float(total[n_z:].sum()) / steps_without_z
        if steps_with_z:
            figures["nats_z"] = float(total[:n_z].sum()) / steps_with_z
        return figures

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Nats a step of the validation drawings with the averaged weights; see :mod:`sketch_core.evaluate`."""
        with self.averaged() as model:
            measured = evaluate.measure(model, self.valid_set, device=self.device, precision=self.precision)
            return measured.summary()

    def run(self) -> None:
        """Train to the end, or until Ctrl-C, which finishes the step, saves, and stops."""
        config = self.config
        main = self.rank == 0
        if main:
            (self.out / TRAIN_CONFIG_FILE).write_text(json.dumps(config.as_dict(), indent=1) + "\n")
            log.info(
                "%s drawings in %d categories; %s parameters; %s, %s; scale factor %.2f; step %d",
                f"{len(self.train_set):,}",
                len(self.categories),
                f"{sum(p.numel() for p in self.model.parameters()):,}",
                self.device,
                "bf16" if self.precision else "fp32",
                self.scale_factor,
                self.step,
            )
        previous_handlers = self._catch_signals()
        sums: dict[str, list[float]] = {}
        saved = validated = reported = self.seconds
        clock = time.perf_counter()
        reported_drawings = self.drawings
        bar = _progress_bar(config) if main else None
        try:
            while not self._finished() and not self._stop_everywhere():
                for key, value in self.train_step().items():
                    sums.setdefault(key, []).append(value)
                now = time.perf_counter()
                self.seconds += now - clock
                clock = now
                if self.step % 20 == 0:
                    self._same_clock()
                if main and bar is not None and self.step % 20 == 0:
                    bar.n = round(self.progress * bar.total, 1)
                    bar.set_postfix_str(f"loss {np.mean(sums['loss'][-200:]):.3f}")
                    bar.refresh()
                if main and self.seconds - reported >= 60.0:
                    speed = (self.drawings - reported_drawings) / (self.seconds - reported)
                    self._log({key: float(np.mean(values)) for key, values in sums.items()}, speed)
                    sums, reported, reported_drawings = {}, self.seconds, self.drawings
                if main and self.seconds - validated >= 60.0 * config.validate_minutes:
                    self._validate_and_keep()
                    validated = self.seconds
                if main and self.seconds - saved >= 60.0 * config.save_minutes:
                    self.save_state()
                    checkpoint.save(self.checkpoint(), self.out / "last")
                    saved = self.seconds
                clock = time.perf_counter()  # validating and saving are not training time
            if main:
                self._validate_and_keep()
        finally:
            self._stream = None  # its processes end
            if main:
                self.save_state()
                checkpoint.save(self.checkpoint(), self.out / "last")
                if bar is not None:
                    bar.close()
            for number, handler in previous_handlers.items():
                signal.signal(number, handler)
            if self.world_size > 1 and dist.is_initialized():
                dist.destroy_process_group()
        if main and self._stop:
            log.info("stopped at step %d; the same command goes on from here", self.step)

    def _validate_and_keep(self) -> None:
        self.history = {key: round(value, 4) for key, value in self.validate().items()}
        log.info("step %d, %.1f min: %s", self.step, self.seconds / 60, json.dumps(self.history))
        with (self.out / "validation.jsonl").open("a") as lines:
            record = {"step": self.step, "minutes": round(self.seconds / 60, 2), "drawings": self.drawings}
            lines.write(json.dumps(record | self.history) + "\n")
        # A network that always had z in training (the paper's) has never learned to draw without.
        always_z = self.architecture.has_encoder and self.config.z_share == 1.0
        figure = self.history["nats_z" if always_z else "nats_free"]
        if figure < self.best:
            self.best = figure
            checkpoint.save(self.checkpoint(), self.out / "best")
        for callback in self.on_validate:
            callback(self)

    def _catch_signals(self) -> dict[int, Any]:
        def stop(number: int, frame: object) -> None:
            self._stop = True

        previous: dict[int, Any] = {}
        with contextlib.suppress(ValueError):  # not in the main thread
            for number in (signal.SIGINT, signal.SIGTERM):
                previous[number] = signal.signal(number, stop)
        return previous

    def _finished(self) -> bool:
        """Whether the run is over; several processes ask only when their clocks agree, or one would leave alone."""
        return (self.world_size == 1 or self.step % 20 == 0) and self.progress >= 1.0

    def _stop_everywhere(self) -> bool:
        """All processes stop at the same step."""
        if self.world_size > 1 and self.step % 20 == 0:
            flag = torch.tensor([float(self._stop)], device=self.device)
            dist.all_reduce(flag, op=dist.ReduceOp.MAX)
            self._stop = bool(flag.item())
            return self._stop
        return self._stop and self.world_size == 1

    def _same_clock(self) -> None:
        """Process 0's clock rules, so that all agree on learning rate and end."""
        if self.world_size > 1:
            seconds = torch.tensor([self.seconds], dtype=torch.float64, device=self.device)
            dist.broadcast(seconds, 0)
            self.seconds = float(seconds.item())

    def _log(self, means: dict[str, float], speed: float) -> None:
        row = {
            "step": self.step,
            "minutes": round(self.seconds / 60, 2),
            "drawings": self.drawings,
            "drawings_per_second": round(speed, 1),
        } | {key: round(value, 6) for key, value in means.items()}
        file = self.out / LOG_FILE
        fresh = not file.exists()
        with file.open("a", newline="") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(row))
            if fresh:
                writer.writeheader()
            writer.writerow(row)


def _as_it_is(prepared: Any) -> Any:
    """For DataLoader, which would make tensors of a step's arrays."""
    return prepared


def _leave_signals(worker: int) -> None:
    """Ctrl-C and what a job's manager sends reach every process; the main one alone says when to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _progress_bar(config: TrainConfig) -> Any:
    total, unit = (config.steps, "step") if config.steps else (config.minutes, "min")
    return tqdm(
        total=total, unit=unit, mininterval=1.0, bar_format="{l_bar}{bar}| {n:.1f}/{total:.0f} {unit} {postfix}"
    )
