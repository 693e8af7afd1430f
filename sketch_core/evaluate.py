"""How good a checkpoint is, in nats, on drawings that it was not trained on.

Definitions, which also stand in every model card:

* nats a step: L_s + L_p summed over the steps (one for each offset, one for the end), divided by their
  number, as a density per square unit of the 255 frame: comparable whatever the scale factor.
* free: without z. half: without z, the steps after the first half of the offsets. z: with z = μ + σ ⊙ ε.
* L_s, L_p, L_R: sums over a drawing divided by N_max (stated beside them), in normalised units, with z, as
  the paper has them. Padded steps after the end are not counted: networks trained on them pay next to
  nothing there, and networks trained by the step have never seen them.
* L_KL: before floor and weight.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sketch_core import losses, quickdraw
from sketch_core.generate import Sketcher
from sketch_core.model import SketchRNN

Values = NDArray[np.float64]

DEFINITIONS = {
    "nats_free": "nats a step without z, category given, density per square unit of the 255 frame",
    "nats_half": "the same, over the steps after the first half of each drawing's offsets",
    "nats_z": "nats a step with z = mu + sigma * epsilon",
    "l_s": "offset loss with z, summed over a drawing, divided by N_max, normalised units",
    "l_p": "pen loss with z, up to the end, summed over a drawing, divided by N_max",
    "l_r": "l_s + l_p",
    "l_kl": "KL divergence of z, mean over its dimensions, before floor and weight",
}


@dataclass
class Measures:
    """Sums of each drawing, (len,) each; offsets' nats in normalised units."""

    labels: NDArray[np.int64]
    points: NDArray[np.int64]
    offset_free: Values
    pen_free: Values
    offset_half: Values
    pen_half: Values
    offset_z: Values
    pen_z: Values
    kl: Values
    scale_factor: float
    n_max: int
    has_z: bool

    def summary(self, label: int | None = None) -> dict[str, float]:
        """Figures as in ``DEFINITIONS``, over all drawings or those of one category."""
        rows = slice(None) if label is None else self.labels == label
        points = self.points[rows]
        if not len(points):
            return {}
        unit = 2.0 * math.log(self.scale_factor)
        later = points - points // 2
        steps, half_steps = float((points + 1).sum()), float((later + 1).sum())
        result = {
            "nats_free": float((self.offset_free[rows] + self.pen_free[rows] + unit * points).sum()) / steps,
            "nats_half": float((self.offset_half[rows] + self.pen_half[rows] + unit * later).sum()) / half_steps,
        }
        if self.has_z:
            with_z = self.offset_z[rows] + self.pen_z[rows]
            result["nats_z"] = float((with_z + unit * points).sum()) / steps
        offset, pen = (self.offset_z, self.pen_z) if self.has_z else (self.offset_free, self.pen_free)
        result["l_s"] = float(offset[rows].mean()) / self.n_max
        result["l_p"] = float(pen[rows].mean()) / self.n_max
        result["l_r"] = result["l_s"] + result["l_p"]
        if self.has_z:
            result["l_kl"] = float(self.kl[rows].mean())
        return result


@torch.no_grad()
def measure(
    model: SketchRNN,
    drawings: quickdraw.DrawingSet,
    *,
    device: torch.device | str = "cpu",
    precision: torch.dtype | None = None,
    batch_size: int = 128,
    seed: int = 0,
) -> Measures:
    """Run the network over whole drawings, category given; ``seed`` is that of z's ε.

    Raises:
        ValueError: there are no drawings.
    """
    n = len(drawings)
    if not n:
        raise ValueError("There are no drawings to evaluate on.")
    device = torch.device(device)
    names = ("offset_free", "pen_free", "offset_half", "pen_half", "offset_z", "pen_z", "kl")
    values = {name: np.zeros(n) for name in names}
    epsilon = np.random.default_rng(seed).standard_normal((n, model.config.z_size)).astype(np.float32)
    order = np.argsort(drawings.lengths, kind="stable")
    for begin in range(0, n, batch_size):
        chosen = order[begin : begin + batch_size]
        rows = [drawings.stroke3[i] for i in chosen]
        batch = quickdraw.collate(rows, drawings.labels[chosen], float(model.scale_factor))
        arrays = (batch.previous, batch.target, batch.lengths, batch.labels, epsilon[chosen])
        previous, target, lengths, labels, noise = (torch.from_numpy(array).to(device) for array in arrays)
        category = labels if model.category is not None else None
        with torch.autocast(device.type, precision) if precision else contextlib.nullcontext():
            y_free = model(previous, None, category)
            y_z = None
            if model.encoder is not None:
                mu, sigma_hat = (item.float() for item in model.encode(target, lengths))
                y_z = model(previous, mu + torch.exp(0.5 * sigma_hat) * noise, category)
                values["kl"][chosen] = losses.kl_loss(mu, sigma_hat).cpu().numpy()
        later = torch.arange(target.shape[1], device=device) >= (lengths // 2).unsqueeze(1)
        free = losses.step_losses(y_free.float(), target, lengths, min_sigma=model.config.min_sigma)
        for part, losses_of_steps in (("offset", free.offset), ("pen", free.pen)):
            values[f"{part}_free"][chosen] = losses_of_steps.double().sum(dim=1).cpu().numpy()
            values[f"{part}_half"][chosen] = (losses_of_steps.double() * later).sum(dim=1).cpu().numpy()
        if y_z is not None:
            with_z = losses.step_losses(y_z.float(), target, lengths, min_sigma=model.config.min_sigma)
            values["offset_z"][chosen] = with_z.offset.double().sum(dim=1).cpu().numpy()
            values["pen_z"][chosen] = with_z.pen.double().sum(dim=1).cpu().numpy()
    return Measures(
        labels=drawings.labels,
        points=drawings.lengths,
        scale_factor=float(model.scale_factor),
        n_max=int(model.n_max),
        has_z=model.encoder is not None,
        **values,
    )


def report(measures: Measures, categories: list[str]) -> dict[str, Any]:
    """Everything ``evaluate`` prints, as plain values for JSON: overall and for each category."""

    def rounded(figures: dict[str, float]) -> dict[str, float]:
        return {name: round(value, 4) for name, value in figures.items()}

    per_category = {
        name: rounded(figures) | {"drawings": int((measures.labels == label).sum())}
        for label, name in enumerate(categories)
        if (figures := measures.summary(label))
    }
    return {
        "drawings": len(measures.labels),
        "n_max": measures.n_max,
        "scale_factor": round(measures.scale_factor, 4),
        "overall": rounded(measures.summary()),
        "mean_of_categories": {
            name: round(float(np.mean([figures[name] for figures in per_category.values()])), 4)
            for name in measures.summary()
        },
        "per_category": per_category,
        "definitions": DEFINITIONS,
    }


def table(results: dict[str, Any], *, categories: bool = True) -> str:
    """A report as an aligned text table."""
    columns = list(results["overall"])
    rows = [("all drawings", results["overall"]), ("mean of categories", results["mean_of_categories"])]
    if categories:
        rows += list(results["per_category"].items())
    width = max(len(name) for name, _ in rows)
    lines = [" " * width + "".join(f"{column:>11}" for column in columns)]
    lines += [f"{name:<{width}}" + "".join(f"{figures[column]:11.4f}" for column in columns) for name, figures in rows]
    lines.append(f"{results['drawings']:,} drawings; N_max {results['n_max']}; scale factor {results['scale_factor']}")
    return "\n".join(lines)


def ending_share(sketcher: Sketcher, *, per_category: int = 2, temperature: float = 0.4, seed: int = 0) -> float:
    """Share of free drawings that end by themselves, before N_max cuts them off."""
    categories: list[str | None] = list(sketcher.categories) or [None]
    longest = sketcher.source.n_max - 1  # points, where nothing but the limit ended it
    ended = 0
    for category in categories:
        drawn = sketcher.draw(category, temperature, per_category, seed)
        ended += sum(sum(len(stroke) for stroke in drawing) < longest for drawing in drawn)
    return ended / (per_category * len(categories))
