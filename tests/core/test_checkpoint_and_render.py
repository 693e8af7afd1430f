"""Checkpoints fail in one sentence; pictures are what was drawn."""

from __future__ import annotations

import io
import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file

from sketch_core import checkpoint, render


@pytest.fixture
def folder(tmp_path, tiny_sketcher):
    return checkpoint.save(tiny_sketcher.source, tmp_path / "tiny")


def test_round_trip(folder, tiny_sketcher, half_cat):
    again = checkpoint.load(folder)
    assert again.categories == tiny_sketcher.categories and again.scale_factor == 30.0 and again.n_max == 60
    for name, array in tiny_sketcher.source.weights.items():
        assert again.weights[name].dtype == np.float32
        kept = torch.from_numpy(array)
        if name == "decoder.lstm.weight_hh_l0":
            kept = kept.bfloat16()
        assert np.array_equal(again.weights[name], kept.half().float().numpy())
    for name, parameter in again.model().named_parameters():
        assert np.array_equal(parameter.detach().numpy(), again.weights[name])
    checkpoint.save(again, folder.parent / "again")  # rounded once, the same from then on
    assert (folder.parent / "again" / "weights.safetensors").read_bytes() == (
        folder / "weights.safetensors"
    ).read_bytes()


def test_figures_are_saved_and_the_weights_left_as_they_are(tmp_path, tiny_sketcher):
    folder = checkpoint.save(tiny_sketcher.source, tmp_path / "exact", half=False)
    before = (folder / "weights.safetensors").read_bytes()
    loaded = checkpoint.load(folder)
    loaded.metrics["test"] = {"nats_free": 7.5}
    checkpoint.save_description(loaded, folder)
    assert (folder / "weights.safetensors").read_bytes() == before
    assert checkpoint.load(folder).metrics == {"test": {"nats_free": 7.5}}


def test_changed_bits_are_found(folder):
    file = folder / "weights.safetensors"
    body = bytearray(file.read_bytes())
    body[-1000] ^= 4
    file.write_bytes(bytes(body))
    with pytest.raises(checkpoint.CheckpointError, match="not those that were saved"):
        checkpoint.load(folder)


def rewrite(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def truncate(folder):
    data = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(data[: len(data) - 100])


def reweigh(folder, change):
    weights = load_file(folder / "weights.safetensors")
    change(weights)
    save_file(weights, folder / "weights.safetensors")


BREAKAGES = {
    "no config": lambda f: (f / "config.json").unlink(),
    "no weights": lambda f: (f / "weights.safetensors").unlink(),
    "not JSON": lambda f: (f / "config.json").write_text("{"),
    "a list": lambda f: (f / "config.json").write_text("[]"),
    "deep": lambda f: (f / "config.json").write_text("[" * 100_000),
    "version": lambda f: rewrite(f, format_version=99),
    "truncated": truncate,
    "a pickle": lambda f: (f / "weights.safetensors").write_bytes(pickle.dumps({"a": 1})),
    "header bomb": lambda f: (f / "weights.safetensors").write_bytes(b"\xff" * 8 + b"{}"),
    "missing tensor": lambda f: reweigh(f, lambda w: w.pop("decoder.output.bias")),
    "wrong shape": lambda f: reweigh(f, lambda w: w.update({"decoder.output.bias": np.zeros(4, dtype="f4")})),
    "NaN": lambda f: reweigh(f, lambda w: w["decoder.output.bias"].fill(np.nan)),
    "absurd size": lambda f: rewrite(
        f, architecture=checkpoint.load(f).architecture.as_dict() | {"decoder_size": 10**9}
    ),
    "wrong type": lambda f: rewrite(f, architecture=checkpoint.load(f).architecture.as_dict() | {"decoder_size": "5"}),
    "unknown key": lambda f: rewrite(f, architecture={"hidden": 3}),
    "categories": lambda f: rewrite(f, categories=["cat"]),
    "scale": lambda f: rewrite(f, scale_factor=float("nan")),
    "n_max": lambda f: rewrite(f, n_max=-1),
}


@pytest.mark.parametrize("what", BREAKAGES)
def test_every_failure_is_one_sentence(folder, what):
    BREAKAGES[what](folder)
    with pytest.raises(checkpoint.CheckpointError) as error:
        checkpoint.load(folder)
    assert "tiny" in str(error.value) and len(str(error.value)) < 220


def test_unknown_names(tmp_path):
    with pytest.raises(checkpoint.CheckpointError, match="available"):
        checkpoint.resolve("no-such-thing")


def test_pictures(half_cat):
    picture = render.svg(half_cat)
    assert picture.startswith("<svg") and picture.count("<path") >= 1
    image = Image.open(io.BytesIO(render.png(half_cat))).convert("RGBA")
    assert image.getextrema()[3][1] == 255 and image.getcolors(1 << 20) is not None
    gif = Image.open(io.BytesIO(render.gif(half_cat)))
    assert gif.n_frames > 5
    sheet = render.sheet([[half_cat, (half_cat[:1], half_cat[1:])]], labels=["<script>"])
    assert "<script>" not in sheet and "&lt;script&gt;" in sheet
