"""Looking inside: what the network expected at each point of a drawing, and which category it takes it for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sketch_core import losses, mixture, strokes
from sketch_core.engine import Floats, State
from sketch_core.generate import Sketcher
from sketch_core.strokes import START_TOKEN

SHARPNESS = 0.5
"""A drawing's points hang together, so its likelihoods are too sure of a category; this share of log p tells how often
a guess is right (`python -m sketch_core evaluate --guesses`)."""


@dataclass(frozen=True)
class Inspection:
    """A drawing of N points as the decoder reads it (category given, no z), and one step more: what it expects next.

    Positions, μ and σ of offsets are in canvas pixels.
    """

    stroke5: Floats
    """(N + 1, 5) what is fed: row 0 is the start token, row t the point that came at step t - 1; normalised."""
    pen: Floats
    """(N + 1, 2) where the pen stands before each step."""
    pi: Floats
    """(N + 1, M) mixture weights."""
    mu: Floats
    """(N + 1, M, 2) where each component expects the next point."""
    sigma: Floats
    """(N + 1, M, 2)"""
    rho: Floats
    """(N + 1, M)"""
    pen_probabilities: Floats
    """(N + 1, 3) of pen down, pen lift, end."""
    l_s: Floats
    """(N,) -log density of what came, normalised units (paper, equation 9; not divided by N_max)."""
    l_p: Floats
    """(N,) -log probability of the pen state that came."""
    z_mu: Floats
    """(N_z,) of the whole drawing, empty for a network without an encoder."""
    z_sigma: Floats


def inspect(sketcher: Sketcher, drawing: Sequence[NDArray[Any]], category: str | None = None) -> Inspection:
    """Follow a drawing point by point, at the size that :meth:`Sketcher.complete` reads it at.

    Raises:
        ValueError: bad drawing or category, in one sentence.
    """
    checked = strokes.check_drawing(drawing)
    index = sketcher.category_index(category)
    prefix = sketcher.read_start(checked, index)
    rows = sketcher.reader.rows(checked, prefix.scale)  # (N, 3), frame units
    points = strokes.to_stroke5(rows, scale_factor=sketcher.scale_factor, end=False)  # (N, 5)
    start: State = sketcher.engine.start(sketcher.start_condition(checked, index))
    after, y = sketcher.engine.read(start, points[None])
    outputs = torch.from_numpy(np.concatenate([y[0], sketcher.engine.predict(after)]))  # (N + 1, 6M + 3)
    low = sketcher.source.architecture.min_sigma
    expected = mixture.split(outputs, low)
    lengths = torch.tensor([len(points)])
    steps = losses.step_losses(outputs[None, :-1], torch.from_numpy(points[None]), lengths, min_sigma=low)
    unit = sketcher.scale_factor / prefix.scale
    first = np.array(checked[0][0], dtype=np.float64)
    pen = np.concatenate([first[None], first + np.cumsum(rows[:, :2], axis=0) / prefix.scale])
    z_mu, z_sigma = np.zeros((2, 1, 0), dtype=np.float32)
    if sketcher.source.architecture.has_encoder:
        z_mu, z_sigma = sketcher.encode([checked])
    return Inspection(
        stroke5=np.concatenate([START_TOKEN[None], points]).astype(np.float32),
        pen=pen.astype(np.float32),
        pi=expected.log_pi.exp().numpy(),
        mu=(torch.stack([expected.mu_x, expected.mu_y], dim=2).numpy() * unit + pen[:, None]).astype(np.float32),
        sigma=(torch.stack([expected.log_sigma_x, expected.log_sigma_y], dim=2).exp().numpy() * unit).astype(
            np.float32
        ),
        rho=expected.rho.numpy(),
        pen_probabilities=torch.softmax(expected.pen_logits, dim=1).numpy(),
        l_s=steps.offset[0].numpy(),
        l_p=steps.pen[0].numpy(),
        z_mu=z_mu[0],
        z_sigma=z_sigma[0],
    )


def guess(sketcher: Sketcher, drawing: Sequence[NDArray[Any]], n: int = 5) -> list[tuple[str, float]]:
    """What the network takes a drawing for, finished or not: the n likeliest categories and their shares.

    Bayes' rule over the decoder's own likelihoods, each category equally likely before.
    """
    checked = strokes.check_drawing(drawing)
    categories = sketcher.categories
    if not categories:
        raise ValueError("This network knows no categories.")
    nats, _ = sketcher.reader.category_nats(checked, len(categories))
    shares = np.exp(-SHARPNESS * (nats - nats.min()))
    shares /= shares.sum()
    return [(categories[i], float(shares[i])) for i in np.argsort(-shares)[:n]]
