"""The distribution and the losses against values worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sketch_core import losses, mixture
from sketch_core.engine import sample_point


def one_component(mu=(0.0, 0.0), sigma=(1.0, 1.0), rho=0.0, pen=(0.7, 0.2, 0.1)) -> torch.Tensor:
    """y (9,) of a mixture with M = 1."""
    return torch.tensor([*map(math.log, pen), 0.0, *mu, *map(math.log, sigma), math.atanh(rho)])


@pytest.mark.parametrize(
    ("pen", "nats"), [((0.7, 0.2, 0.1), 0.3567), ((0.95, 0.04, 0.01), 0.0513), ((0.1, 0.8, 0.1), 2.3026)]
)
def test_pen_loss_of_one_step(pen, nats):
    target = torch.tensor([[[0.0, 0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0]]])
    y = one_component(pen=pen).expand(1, 2, 9)
    result = losses.step_losses(y, target, torch.tensor([1]))
    assert result.pen[0, 0].item() == pytest.approx(nats, abs=1e-3)


def test_three_point_sketch_with_padding():
    # Three points at the mean of a unit Gaussian cost log 2π each; the pen states cost -log of their chance.
    target = torch.zeros(1, 6, 5)
    target[0, 0, 2] = target[0, 1, 2] = target[0, 2, 3] = 1.0
    target[0, 3:, 4] = 1.0
    y = one_component().expand(1, 6, 9)
    lengths = torch.tensor([3])
    steps = losses.step_losses(y, target, lengths)
    assert steps.offset[0].tolist() == pytest.approx([math.log(2 * math.pi)] * 3 + [0, 0, 0], abs=1e-4)
    expected = [-math.log(p) for p in (0.7, 0.7, 0.2, 0.1)] + [0, 0]
    assert steps.pen[0].tolist() == pytest.approx(expected, abs=1e-5)
    l_s, l_p = losses.reconstruction_loss(y, target, lengths, n_max=6)
    assert l_s.item() == pytest.approx(3 * math.log(2 * math.pi) / 6, abs=1e-4)
    padded = -(2 * math.log(0.7) + math.log(0.2) + 3 * math.log(0.1)) / 6  # the paper's L_p counts the padding
    assert l_p.item() == pytest.approx(padded, abs=1e-5)


def test_density_with_correlation_by_hand():
    mu, sigma, rho, point = (0.5, -1.0), (2.0, 0.5), 0.6, (1.5, -0.8)
    zx, zy = (point[0] - mu[0]) / sigma[0], (point[1] - mu[1]) / sigma[1]
    z = zx**2 + zy**2 - 2 * rho * zx * zy
    density = math.exp(-z / (2 * (1 - rho**2))) / (2 * math.pi * sigma[0] * sigma[1] * math.sqrt(1 - rho**2))
    parameters = mixture.split(one_component(mu, sigma, rho))
    log_prob = mixture.offset_log_prob(parameters, torch.tensor(point), floor=0.0)
    assert log_prob.item() == pytest.approx(math.log(density), abs=1e-5)


def test_outliers_and_extreme_rho_stay_finite():
    y = one_component(rho=0.0).repeat(2, 1)
    y[0, -1], y[1, -1] = 50.0, -50.0  # tanh reaches ±1 in floats
    y.requires_grad_()
    far = torch.tensor([[1e4, -1e4], [0.0, 0.0]])
    log_prob = mixture.offset_log_prob(mixture.split(y), far)
    assert log_prob[0].item() == pytest.approx(math.log(1e-6), abs=1e-4)  # capped at 13.8 nats
    log_prob.sum().backward()
    assert torch.isfinite(log_prob).all() and torch.isfinite(y.grad).all()


def test_sigma_floor():
    y = one_component(sigma=(1e-8, 1e-8))
    assert mixture.split(y, min_sigma=0.01).log_sigma_x.exp().item() == pytest.approx(0.01, rel=1e-5)


def test_kl_by_hand_and_its_floor():
    mu, sigma_hat = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, math.log(4.0)]])
    by_hand = -0.5 * ((1 + 0 - 1 - 1) + (1 + math.log(4) - 0 - 4)) / 2
    kl = losses.kl_loss(mu, sigma_hat)
    assert kl.item() == pytest.approx(by_hand, abs=1e-6)
    assert losses.kl_cost(kl, kl_min=9.0).item() == 9.0
    assert losses.kl_cost(kl, kl_min=0.2).item() == pytest.approx(by_hand, abs=1e-6)


def test_kl_annealing_rises_from_eta_min_with_a_power():
    assert losses.kl_weight(0, 0.5, 0.01, 0.99) == pytest.approx(0.005)
    assert losses.kl_weight(100, 0.5, 0.01, 0.99) == pytest.approx(0.5 * (1 - 0.99 * 0.99**100))


def test_units():
    assert losses.nats_in_frame(1.0, 3, 2.0) == pytest.approx(1.0 + 3 * 2 * math.log(2.0))


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), 3.0])
def test_temperature_must_be_sane(bad):
    with pytest.raises(ValueError, match="temperature"):
        mixture.temperatures(bad)


def test_rules():
    assert mixture.temperatures(0.4, "paper") == (0.4, 0.4, 0.4)
    assert mixture.temperatures(0.4, "demos") == pytest.approx((0.7, 0.7, 0.4))
    with pytest.raises(ValueError, match="rule"):
        mixture.temperatures(0.4, "other")


def sample(y, tau, n=4000):
    generator = np.random.default_rng(0)
    noise = np.column_stack([generator.random((n, 3)), generator.standard_normal((n, 2))]).astype(np.float32)
    heat = np.tile(np.array([1 / tau.pi, 1 / tau.pen, tau.sigma**0.5], dtype=np.float32), (n, 1))
    return sample_point(np.tile(y.numpy(), (n, 1)), noise, heat, -9.0)


def test_temperature_one_samples_what_was_predicted():
    offsets, pens = sample(one_component((1.0, 2.0), (0.5, 2.0), 0.8), mixture.temperatures(1.0, "paper"))
    assert offsets.mean(axis=0) == pytest.approx([1.0, 2.0], abs=0.1)
    assert offsets.std(axis=0) == pytest.approx([0.5, 2.0], rel=0.05)
    assert np.corrcoef(offsets.T)[0, 1] == pytest.approx(0.8, abs=0.03)
    assert np.bincount(pens, minlength=3) / len(pens) == pytest.approx([0.7, 0.2, 0.1], abs=0.02)


def test_temperature_near_zero_takes_the_likeliest():
    offsets, pens = sample(one_component((1.0, 2.0), (0.5, 2.0), 0.8), mixture.temperatures(1e-3, "paper"))
    assert set(pens.tolist()) == {0}
    assert np.abs(offsets - [1.0, 2.0]).max() < 0.5
    assert offsets.std(axis=0) == pytest.approx([0.5 * 1e-3**0.5, 2.0 * 1e-3**0.5], rel=0.05)


def test_wrong_size_is_refused():
    with pytest.raises(ValueError, match="6M"):
        mixture.split(torch.zeros(2, 10))
