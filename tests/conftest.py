"""Shared fixtures: a tiny network, tiny drawings, and the real data where it is at hand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from sketch_core import checkpoint
from sketch_core.generate import Sketcher
from sketch_core.model import SketchRNN, SketchRNNConfig

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
TINY = SketchRNNConfig(
    n_categories=3, category_size=4, encoder_size=8, decoder_size=16, z_size=6, n_mixtures=3, min_sigma=0.01
)


def needs(condition: bool, reason: str) -> None:
    """Skip on a user's machine, fail in CI, where everything must be there."""
    if condition:
        return
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def shared_data() -> Path:
    needs(SHARED.is_dir(), f"The Quick, Draw! sample is not at {SHARED}.")
    return SHARED


@pytest.fixture(scope="session")
def tiny_model() -> SketchRNN:
    torch.manual_seed(3)
    model = SketchRNN(TINY, scale_factor=30.0, n_max=60)
    with torch.no_grad():
        model.decoder.output.bias[2] = -2.0  # drawings of a handful of points
    return model.eval()


@pytest.fixture(scope="session")
def tiny_sketcher(tiny_model: SketchRNN) -> Sketcher:
    return Sketcher(checkpoint.Checkpoint.from_model(tiny_model, ["cat", "dog", "tree"], name="tiny"))


@pytest.fixture
def half_cat() -> list[np.ndarray]:
    angle = np.linspace(0, 2 * np.pi, 30)
    head = np.column_stack([200 + 90 * np.cos(angle), 220 + 80 * np.sin(angle)])
    ear = np.array([[140.0, 160.0], [130.0, 90.0], [180.0, 145.0]])
    return [head, ear]


def write_npz(path: Path, n: int = 12, seed: int = 0) -> Path:
    """A file in the official layout with drawings of a few shapes in the canonical frame."""
    generator = np.random.default_rng(seed)
    splits = {}
    for split, count in (("train", n), ("valid", 4), ("test", 4)):
        rows = np.empty(count, dtype=object)
        for i in range(count):
            side = 255 - int(generator.integers(0, 3))
            square = [[side, 0, 0], [0, side, 0], [-side, 0, 0], [0, -side, 1], [60, 60, 0], [int(40 + i), 50, 1]]
            rows[i] = np.array(square, dtype=np.int16)
        splits[split] = rows
    np.savez_compressed(path, **splits)
    return path
