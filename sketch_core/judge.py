"""A judge of drawings: a small convolutional classifier of pictures, to tell whether drawings are recognised.

It sees what a person sees, the finished picture, and knows neither the order of strokes nor the network that
drew them. It is trained on the training split alone, pinned by the hash of its weights, and used by
``evaluate --recognition`` only: nothing the page or the sampler does depends on it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from sketch_core import quickdraw, strokes
from sketch_core.checkpoint import CONFIG_FILE, WEIGHTS_FILE

DEFAULT_FOLDER = Path(__file__).resolve().parent.parent / "benchmarks" / "judge-345"
PICTURE_SIZE = 48
MARGIN = 3
OVERSAMPLING = 3
LINE_WIDTH = 1.5
"""Pixels of the small picture: what a 255 frame's 8 units come to."""


class JudgeError(ValueError):
    """A judge that is missing, damaged, or knows other categories; one sentence."""


def picture(
    drawing: Sequence[NDArray[Any]], *, width: float = LINE_WIDTH, shift: tuple[float, float] = (0.0, 0.0)
) -> NDArray[np.uint8]:
    """A drawing, fitted and centred, as (PICTURE_SIZE, PICTURE_SIZE) pixels: 0 paper, 255 ink.

    Args:
        drawing: list of (N, 2) points in any units; the longest side fills the picture but for a margin.
        width: of the line, in pixels of the picture.
        shift: moves the drawing, in pixels of the picture.
    """
    size = PICTURE_SIZE * OVERSAMPLING
    canvas = Image.new("L", (size, size))
    pen = ImageDraw.Draw(canvas)
    x0, y0, x1, y1 = strokes.bounds(drawing)
    unit = (PICTURE_SIZE - 2 * MARGIN) / max(x1 - x0, y1 - y0, 1e-9)
    middle = np.array([x0 + x1, y0 + y1]) / 2.0
    line = max(round(width * OVERSAMPLING), 1)
    for stroke in drawing:
        points = ((np.asarray(stroke)[:, :2] - middle) * unit + PICTURE_SIZE / 2 + shift) * OVERSAMPLING
        flat = [(float(x), float(y)) for x, y in points]
        if len(flat) == 1:
            (x, y), r = flat[0], line / 2
            pen.ellipse((x - r, y - r, x + r, y + r), fill=255)
        else:
            pen.line(flat, fill=255, width=line, joint="curve")
    return np.asarray(canvas.reduce(OVERSAMPLING))


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class Judge(nn.Module):
    """Six convolutions and a linear layer: pictures (B, 1, S, S) in [0, 1] to logits (B, n_categories)."""

    def __init__(self, categories: Sequence[str], widths: Sequence[int] = (32, 48, 96, 192)) -> None:
        super().__init__()
        self.categories, self.widths = list(categories), list(widths)
        self.info: dict[str, Any] = {}
        a, b, c, d = widths
        self.features = nn.Sequential(
            _block(1, a, 2),
            _block(a, b),
            nn.MaxPool2d(2),
            _block(b, c),
            _block(c, c),
            nn.MaxPool2d(2),
            _block(c, d),
            _block(d, d),
        )
        self.dropout = nn.Dropout(0.3)
        self.output = nn.Linear(2 * d, len(self.categories))

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits (B, n_categories) of pictures (B, 1, S, S)."""
        features = self.features(pictures.contiguous(memory_format=torch.channels_last))
        pooled = torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1)
        logits: Tensor = self.output(self.dropout(pooled))
        return logits

    @torch.inference_mode()
    def log_probabilities(self, drawings: Sequence[Sequence[NDArray[Any]]]) -> NDArray[np.float32]:
        """(n, n_categories) log p(category | picture); a drawing and its mirror image are judged together.

        Raises:
            JudgeError: nothing to judge.
        """
        if not drawings:
            raise JudgeError("There are no drawings to judge.")
        self.eval()
        found = []
        for begin in range(0, len(drawings), 128):
            pictures = np.stack([picture(drawing) for drawing in drawings[begin : begin + 128]])
            batch = torch.from_numpy(pictures).float().div_(255.0).unsqueeze(1)
            both = torch.stack([self(batch), self(batch.flip(-1))]).log_softmax(dim=-1)
            found.append((both.logsumexp(dim=0) - math.log(2.0)).numpy())
        result: NDArray[np.float32] = np.concatenate(found)
        return result

    def ranks(
        self, drawings: Sequence[Sequence[NDArray[Any]]], names: Sequence[str], among: Sequence[str] | None = None
    ) -> NDArray[np.int64]:
        """(n,) place of each drawing's true name in the judge's order, 0 the first.

        Args:
            drawings: any units.
            names: the true category of each.
            among: the categories to choose from; all by default.

        Raises:
            JudgeError: a name that the judge does not know.
        """
        unknown = sorted({*names, *(among or [])} - set(self.categories))
        if unknown:
            raise JudgeError(f"The judge does not know the category {unknown[0]!r}.")
        scores = self.log_probabilities(drawings)
        if among is not None:
            allowed = np.isin(self.categories, list(among))
            scores = np.where(allowed, scores, -np.inf)
        truth = scores[np.arange(len(scores)), [self.categories.index(name) for name in names]]
        ranks: NDArray[np.int64] = (scores > truth[:, None]).sum(axis=1)
        return ranks

    # -- files -------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write ``config.json`` (with the hash of the weights) and ``weights.safetensors`` (half precision)."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        half = {
            name: value.half().contiguous() if value.is_floating_point() else value.contiguous()
            for name, value in self.state_dict().items()
        }
        part = folder / f".{WEIGHTS_FILE}.part"
        save_file(half, part)
        part.chmod(0o644)
        os.replace(part, folder / WEIGHTS_FILE)
        digest = hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
        self.info |= {"sha256": digest}
        config = {"widths": self.widths, "categories": self.categories} | self.info
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path | None = None) -> Judge:
        """Read a judge; the shipped one by default.

        Raises:
            JudgeError: missing or damaged files, or weights that are not those that the config names.
        """
        folder = Path(folder or DEFAULT_FOLDER)
        try:
            config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
            body = (folder / WEIGHTS_FILE).read_bytes()
            if hashlib.sha256(body).hexdigest() != config["sha256"]:
                raise JudgeError(f"The weights of the judge in {folder} are not those that its config names.")
            judge = cls(config["categories"], config["widths"])
            weights = load_file(folder / WEIGHTS_FILE)
            judge.load_state_dict({name: value.float() if value.is_floating_point() else value
                                   for name, value in weights.items()})  # fmt: skip
            judge.eval()
        except FileNotFoundError:
            raise JudgeError(f"There is no judge in {folder}; train one with `python -m sketch_core judge`.") from None
        except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OSError) as error:
            if isinstance(error, JudgeError):
                raise
            raise JudgeError(f"The judge in {folder} is damaged.") from None
        judge.info = {key: value for key, value in config.items() if key not in ("widths", "categories")}
        return judge


AUGMENTATION = quickdraw.Augmentation(scale=0.0, stretch=0.12, rotate=0.12, shear=0.10, point_dropout=0.10, mirror=0.5)


def train(
    data: str | Path,
    out: str | Path,
    *,
    minutes: float = 60.0,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    power: float = 0.6,
    seed: int = 0,
) -> Judge:
    """Train a judge on the training split and save it with its accuracy on the test split.

    Args:
        data: see :func:`quickdraw.load_sets`.
        out: folder.
        power: categories are drawn with chance count ** power.
    """
    sets = quickdraw.load_sets(data, None, ("train", "test"))
    drawings = sets["train"]
    torch.manual_seed(seed)
    judge = Judge(drawings.categories).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    sampler = quickdraw.BatchSampler(drawings, batch_size, 1.0, power=power, augmentation=AUGMENTATION, seed=seed)
    matrices = [p for p in judge.parameters() if p.ndim > 1]
    vectors = [p for p in judge.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}], lr=learning_rate
    )
    blend = torch.optim.swa_utils.get_ema_multi_avg_fn(0.998)  # type: ignore[no-untyped-call]
    average = torch.optim.swa_utils.AveragedModel(judge, multi_avg_fn=blend, use_buffers=True)
    seconds, step = 0.0, 0
    bar = tqdm(total=minutes, unit="min", mininterval=5.0, bar_format="{l_bar}{bar}| {n:.1f}/{total:.0f} min {postfix}")
    clock = time.perf_counter()
    losses: list[float] = []
    while (progress := seconds / (60.0 * minutes)) < 1.0:
        generator = np.random.default_rng([seed, step])
        batch = sampler[step]
        pictures = np.stack(
            [
                picture(
                    strokes.from_stroke3(rows3),
                    width=generator.uniform(1.1, 2.0),
                    shift=(generator.uniform(-2, 2), generator.uniform(-2, 2)),
                )
                for rows3 in (strokes.from_stroke5(item) for item in batch.drawing)
            ]
        )
        images = torch.from_numpy(pictures).float().div_(255.0).unsqueeze(1)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min((step + 1) / 300, 1.0) * 0.5 * (1.0 + math.cos(math.pi * progress))
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(judge(images), torch.from_numpy(batch.labels), label_smoothing=0.05)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        average.update_parameters(judge)
        step += 1
        losses.append(float(loss.detach()))
        now = time.perf_counter()
        seconds, clock = seconds + now - clock, now
        bar.n = round(seconds / 60, 1)
        bar.set_postfix_str(f"loss {np.mean(losses[-200:]):.3f}, {step * batch_size / seconds:.0f} drawings/s")
    bar.close()
    judge.load_state_dict(average.module.state_dict())
    judge.info = {
        "picture_size": PICTURE_SIZE,
        "data_sha256": drawings.digest(),
        "drawings_seen": step * batch_size,
        "minutes": round(seconds / 60, 1),
        "test": accuracy(judge, sets["test"].per_category(25)),
    }
    judge.save(out)
    judge.eval()
    trained: Judge = judge
    return trained


def accuracy(judge: Judge, drawings: quickdraw.DrawingSet) -> dict[str, float]:
    """Shares of real drawings whose category comes first, or among the first five; mean of drawings."""
    names = [drawings.categories[label] for label in drawings.labels]
    ranks = judge.ranks([strokes.from_stroke3(rows) for rows in drawings.stroke3], names)
    return {
        "drawings": len(ranks),
        "top1": round(float((ranks < 1).mean()), 4),
        "top5": round(float((ranks < 5).mean()), 4),
    }
