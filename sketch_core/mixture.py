"""The output distribution: a mixture of bivariate Gaussians and three pen states (paper, equations 3-8).

A step's y holds 6M + 3 raw numbers in this order, which is Magenta's: three pen logits, then M each of
π logits, μx, μy, log σx, log σy and atanh ρ.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# ρ = tanh(ρ̂) reaches ±1 in floats, where 1 - ρ² is 0: keep a little width.
MAX_RHO = 0.9999
# exp of more than this is of no use for a density and overflows its square in half precision.
MAX_LOG_SIGMA = 6.0
MIN_LOG_SIGMA = -9.0
# Added inside the log of L_s, as in the paper's code: caps one point's loss at 13.8 nats, so that single
# outliers do not dominate.
DENSITY_FLOOR = 1e-6
# Points that a guided step chooses from, and what is added to the densities that it compares, so that a point
# foreseen by neither reader weighs nothing.
CANDIDATES = 8
RATIO_FLOOR = 1e-6
# The same for the chances of the pen's states. Without, an end that one reader gives a chance of 1e-4 and the other
# 1e-9 was chosen for the ratio of the two: 9% of variations broke off after a stroke or two.
PEN_FLOOR = 5e-2


class Mixture(NamedTuple):
    """Parameters of the next point, each (..., M) but ``pen_logits`` (..., 3).

    Offsets and σ are in normalised units (canonical frame units divided by the scale factor).
    """

    pen_logits: Tensor
    log_pi: Tensor
    mu_x: Tensor
    mu_y: Tensor
    log_sigma_x: Tensor
    log_sigma_y: Tensor
    rho: Tensor


def split(y: Tensor, min_sigma: float = 0.0) -> Mixture:
    """Raw outputs (..., 6M + 3) to parameters: softmax over π, exp for σ, tanh for ρ.

    Args:
        min_sigma: floor of σ, in normalised units.

    Raises:
        ValueError: the last dimension is not 6M + 3.
    """
    n_mixtures, rest = divmod(y.shape[-1] - 3, 6)
    if rest or n_mixtures < 1:
        raise ValueError(f"y has {y.shape[-1]} numbers a step, which is not 6M + 3.")
    pen_logits, pi_logits, mu_x, mu_y, log_sigma_x, log_sigma_y, rho_hat = torch.split(
        y, [3, *[n_mixtures] * 6], dim=-1
    )
    lowest = max(math.log(min_sigma), MIN_LOG_SIGMA) if min_sigma > 0 else MIN_LOG_SIGMA
    return Mixture(
        pen_logits=pen_logits,
        log_pi=F.log_softmax(pi_logits, dim=-1),
        mu_x=mu_x,
        mu_y=mu_y,
        log_sigma_x=log_sigma_x.clamp(lowest, MAX_LOG_SIGMA),
        log_sigma_y=log_sigma_y.clamp(lowest, MAX_LOG_SIGMA),
        rho=torch.tanh(rho_hat).clamp(-MAX_RHO, MAX_RHO),
    )


def component_log_prob(mixture: Mixture, offset: Tensor) -> Tensor:
    """log N(Δx, Δy | μ, σ, ρ) of each component (paper's reference: Graves 2013, equations 24 and 25).

    Args:
        offset: (..., 2), normalised.

    Returns:
        (..., M) nats.
    """
    dx = (offset[..., 0:1] - mixture.mu_x) * torch.exp(-mixture.log_sigma_x)
    dy = (offset[..., 1:2] - mixture.mu_y) * torch.exp(-mixture.log_sigma_y)
    one_minus_rho2 = 1.0 - mixture.rho**2
    squared = (dx**2 + dy**2 - 2.0 * mixture.rho * dx * dy) / one_minus_rho2
    log_norm = math.log(2.0 * math.pi) + mixture.log_sigma_x + mixture.log_sigma_y + 0.5 * torch.log(one_minus_rho2)
    return -0.5 * squared - log_norm


def offset_log_prob(mixture: Mixture, offset: Tensor, floor: float = DENSITY_FLOOR) -> Tensor:
    """log(Σ_j π_j N_j(offset) + floor), (...,) nats; by logsumexp, so far outliers stay finite."""
    log_prob = torch.logsumexp(mixture.log_pi + component_log_prob(mixture, offset), dim=-1)
    if floor > 0:
        log_prob = torch.logaddexp(log_prob, log_prob.new_tensor(math.log(floor)))
    return log_prob


class Temperatures(NamedTuple):
    """What a temperature does to each part: logits are divided by ``pi`` and ``pen``, variance times ``sigma``."""

    pi: float
    pen: float
    sigma: float


RULES = ("duet", "paper", "demos")


def temperatures(temperature: float, rule: str = "duet") -> Temperatures:
    """The parts' temperatures under a rule.

    ``paper``: π and pen logits divided by τ, variance times τ (equation 8).
    ``demos``: logits divided by 0.5 + 0.5 τ, variance times τ: sketch-rnn-js and @magenta/sketch.
    ``duet``: π as the paper, the pen as it was learned, variance times τ. At low τ the paper's rule starves
    rare pen lifts (a lift of probability 0.1 falls to 0.004 at τ = 0.4), so strokes run on into scribbles.

    Raises:
        ValueError: τ is not in (0, 2], or the rule has no such name.
    """
    if not 0.0 < temperature <= 2.0:
        raise ValueError("The temperature must lie above 0 and not above 2.")
    if rule == "paper":
        return Temperatures(temperature, temperature, temperature)
    if rule == "demos":
        gentle = 0.5 + 0.5 * temperature
        return Temperatures(gentle, gentle, temperature)
    if rule == "duet":
        return Temperatures(temperature, max(temperature, 1.0), temperature)
    raise ValueError(f"There is no temperature rule {rule!r}; choose one of {', '.join(RULES)}.")
