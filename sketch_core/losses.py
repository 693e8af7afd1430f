"""Losses of the paper: reconstruction (equation 9), KL (equation 10), annealing (section 3.3).

All in nats. L_s is a density, so it may be negative and depends on units: see ``nats_in_frame``.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sketch_core import mixture
from sketch_core.mixture import DENSITY_FLOOR


class Reconstruction(NamedTuple):
    """Nats of each step, (B, T): ``offset`` is 0 beyond the real points, ``pen`` beyond what was asked for."""

    offset: Tensor
    pen: Tensor


def step_losses(
    y: Tensor,
    target: Tensor,
    lengths: Tensor,
    *,
    min_sigma: float = 0.0,
    floor: float = DENSITY_FLOOR,
    pad_pen: bool = False,
) -> Reconstruction:
    """-log p of each step: the offset of each real point, the pen state of each step up to the end.

    Args:
        y: (B, T, 6M + 3) raw outputs.
        target: (B, T, 5) stroke5 that ends in rows (0, 0, 0, 0, 1).
        lengths: (B,) N_s, the number of real points (without end rows).
        pad_pen: the paper's L_p, which counts every padded step as well; else only the first end row.
    """
    steps = torch.arange(target.shape[1], device=target.device)  # (T,)
    real = steps < lengths.unsqueeze(1)  # (B, T)
    parameters = mixture.split(y, min_sigma)
    offset = -mixture.offset_log_prob(parameters, target[..., :2], floor) * real
    log_q = F.log_softmax(parameters.pen_logits, dim=-1)
    pen = -(target[..., 2:] * log_q).sum(dim=-1)
    if not pad_pen:
        pen = pen * (steps <= lengths.unsqueeze(1))
    return Reconstruction(offset, pen)


def reconstruction_loss(
    y: Tensor, target: Tensor, lengths: Tensor, n_max: int, **options: float
) -> tuple[Tensor, Tensor]:
    """L_s and L_p as the paper has them: sums over a drawing divided by N_max, mean over the batch.

    ``target`` may be padded to fewer rows than ``n_max``: what is cut off costs a trained network next to
    nothing, and costs an untrained one something it must learn anyway. Pass rows up to ``n_max`` for the
    exact figure.
    """
    losses = step_losses(y, target, lengths, pad_pen=True, **options)
    return losses.offset.sum(dim=1).mean() / n_max, losses.pen.sum(dim=1).mean() / n_max


def kl_loss(mu: Tensor, sigma_hat: Tensor) -> Tensor:
    """L_KL = -1/(2 N_z) Σ (1 + σ̂ - μ² - exp σ̂), of each drawing, (B,); before floor and weight."""
    return -0.5 * (1.0 + sigma_hat - mu**2 - torch.exp(sigma_hat)).mean(dim=-1)


def kl_weight(step: int, w_kl: float, eta_min: float = 0.01, rate: float = 0.99995) -> float:
    """w_KL · η with η = 1 - (1 - η_min) R^step."""
    return w_kl * (1.0 - (1.0 - eta_min) * rate**step)


def kl_cost(kl: Tensor, kl_min: float) -> Tensor:
    """max(L_KL, KL_min), with L_KL the mean over the batch (the floor is on the mean, as in the paper's code)."""
    return torch.clamp_min(kl.mean(), kl_min)


def nats_in_frame(offset_nats: float, n_points: int, scale_factor: float) -> float:
    """L_s sums from normalised units to nats per square unit of the 255 frame.

    A density per normalised square is scale_factor² times the density per frame square.
    """
    return offset_nats + 2.0 * math.log(scale_factor) * n_points
