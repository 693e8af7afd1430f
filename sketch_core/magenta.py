"""Models published by Magenta, read from their JSON format: ``.gen.json`` (decoder only) and ``.vae.json``.

A file is ``[info, dimensions, weights]``: each weight array is base64 of little-endian int16, and 32767 stands for
10. Matrices are (inputs, outputs), gates come in the order i, g, f, o, the forget gate's bias lacks 1, and [c0; h0]
starts the decoder. (Order and meaning of the arrays: sketch_rnn.js of Magenta's demos, ``info.version`` 6.)
"""

from __future__ import annotations

import base64
import binascii
import http.client
import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sketch_core.checkpoint import Checkpoint, shown
from sketch_core.engine import PEN_END
from sketch_core.generate import Sketcher
from sketch_core.model import SketchRNN, SketchRNNConfig
from sketch_core.strokes import FRAME_SIZE, longest_side

Floats = NDArray[np.float32]

MAX_BYTES = 200_000_000
MAX_VALUES = 10_000
"""Commas and brackets of a file: a model has some dozens beside its weights, which are text."""
MAX_WEIGHT = 10.0
DECODER_ONLY = (2, "gen")
N_MIXTURES = 20
OWN_EPSILON = 2.0
"""Magenta's drawings were simplified with this in pixels of their own, of which a drawing spans some hundreds."""
VERSION = 6
SIZING = 200
"""Free drawings from which the usual size is measured."""


class MagentaError(ValueError):
    """A file that is no model of Magenta's; one sentence."""


def load(source: str | Path) -> Checkpoint:
    """A published model as a checkpoint without categories.

    Drawings are as large in its own pixels as it draws them: how many of these are the canonical frame is measured
    on free drawings, and its simplification is brought to the frame as well.

    Args:
        source: a file, or an http(s) address.

    Raises:
        MagentaError: no such file, or not such a model.
    """
    name, text = _fetch(source)
    info, arrays = _parse(text, name)
    decoder_only = info.get("mode") in DECODER_ONLY
    checkpoint = _assembled(info, arrays, decoder_only)
    kind = "gen" if decoder_only else "vae"
    checkpoint.name = re.sub(r"[^\w-]+", "-", f"magenta-{str(info.get('name') or name)[:60]}-{kind}")
    own_factor = checkpoint.scale_factor
    # One normalised unit is own_factor of its pixels; drawn in a frame of FRAME_SIZE it is scale_factor units.
    checkpoint.scale_factor = FRAME_SIZE / _usual_side(checkpoint)
    checkpoint.epsilon = OWN_EPSILON * checkpoint.scale_factor / own_factor
    checkpoint.training = {
        "data": f"Quick, Draw! ({shown(info.get('name'))}), by Magenta",
        "source": str(source),
        "scale_factor": own_factor,
        "info": {
            shown(key): shown(value) if isinstance(value, str) else value
            for key, value in info.items()
            if isinstance(value, str | int | float)
        },
    }
    return checkpoint


def card(checkpoint: Checkpoint) -> str:
    """A model card of an imported model."""
    kind = "an encoder and a decoder" if checkpoint.needs_z else "a decoder only"
    return f"""# {checkpoint.name}

Published by Google Magenta (https://github.com/magenta/magenta-js), read from `{checkpoint.training["source"]}`:
{kind}, LSTM {checkpoint.architecture.decoder_size}, trained by them on {checkpoint.training["data"]}.
Magenta's code is under the Apache License 2.0; the weights carry no licence text of their own.

It knows one kind of drawing and no categories{"" if checkpoint.needs_z else ", and cannot vary or blend"}.
"""


def _fetch(source: str | Path) -> tuple[str, str]:
    """The name of a file and what is in it."""
    text = str(source)
    name = text.rstrip("/").rsplit("/", 1)[-1].split(".")[0]
    try:
        if text.startswith(("http://", "https://")):
            with urllib.request.urlopen(text, timeout=60) as answer:
                content = answer.read(MAX_BYTES + 1)
        else:
            with Path(text).open("rb") as file:
                content = file.read(MAX_BYTES + 1)
    except (OSError, http.client.HTTPException, ValueError) as error:  # URLError is an OSError
        raise MagentaError(f"{text} cannot be read: {error}.") from None
    if len(content) > MAX_BYTES:
        raise MagentaError(f"{name} is too large to be a model of Magenta's.")
    try:
        return name, content.decode("utf-8")
    except UnicodeDecodeError:
        raise MagentaError(f"{name} is not a JSON file.") from None


def _parse(text: str, name: str) -> tuple[dict[str, Any], list[Floats]]:
    try:
        if sum(text.count(mark) for mark in ",[{") > MAX_VALUES:  # each would take as much memory as 60 characters
            raise ValueError
        model = json.loads(text)
    except (ValueError, RecursionError):
        raise MagentaError(f"{name} is not a JSON file.") from None
    if not (isinstance(model, list) and len(model) == 3 and isinstance(model[0], dict)):
        raise MagentaError(f"{name} is not a model of Magenta's: it should hold information, dimensions and weights.")
    info, dimensions, weights = model
    if not (isinstance(dimensions, list) and isinstance(weights, list) and len(dimensions) == len(weights)):
        raise MagentaError(f"{name} should have as many dimensions as weights.")
    if info.get("mode") not in (0, 1, 2, "vae", "gen") or info.get("version") != VERSION:
        raise MagentaError(f"{name} is of a kind or version that this program does not know (it reads {VERSION}).")
    factor = info.get("scale_factor")
    if type(factor) not in (int, float) or not 0 < factor < 1e6:
        raise MagentaError(f"{name} has no positive scale factor.")
    arrays = []
    for shape, encoded in zip(dimensions, weights, strict=True):
        try:
            values = np.frombuffer(base64.b64decode(encoded, validate=True), dtype="<i2")
            if not all(type(side) is int and side > 0 for side in shape):
                raise ValueError
            arrays.append((values.astype(np.float32) * np.float32(MAX_WEIGHT / 32767)).reshape(shape))
        except (ValueError, TypeError, OverflowError, binascii.Error):
            raise MagentaError(f"{name} has weights that are damaged or do not fit their dimensions.") from None
    return info, arrays


def _assembled(info: dict[str, Any], arrays: list[Floats], decoder_only: bool) -> Checkpoint:
    """The weights under the names of :class:`sketch_core.model.SketchRNN`."""
    name = str(info.get("name"))[:60]
    if len(arrays) != (5 if decoder_only else 17):
        raise MagentaError(f"{name} should have {5 if decoder_only else 17} weight arrays, not {len(arrays)}.")
    weights: dict[str, Floats] = {}
    try:
        w_out, b_out, w_xh, w_hh, bias = arrays[-5:]
        size = len(w_hh)
        z_size = 0 if decoder_only else len(arrays[10])
        encoder_size = 0 if decoder_only else len(arrays[1])
        config = SketchRNNConfig(
            n_categories=0,
            category_size=0,
            encoder_size=encoder_size,
            decoder_size=size,
            z_size=z_size,
            n_mixtures=N_MIXTURES,
            positions=False,
            min_sigma=0.0,
        )
        weights |= _lstm("decoder.lstm", w_xh, w_hh, bias)
        weights["decoder.output.weight"], weights["decoder.output.bias"] = w_out.T, b_out
        if not decoder_only:
            for way, begin in (("forward", 0), ("backward", 3)):
                weights |= _lstm(f"encoder.{way}_lstm", *arrays[begin : begin + 3])
            for part, begin in (("mu", 6), ("sigma_hat", 8)):
                weights[f"encoder.{part}.weight"] = arrays[begin].T
                weights[f"encoder.{part}.bias"] = arrays[begin + 1]
            swap = np.r_[size : 2 * size, :size]  # [c0; h0] to [h0; c0]
            weights["decoder.initial.weight"] = arrays[10].T[swap]
            weights["decoder.initial.bias"] = arrays[11][swap]
        checkpoint = Checkpoint(
            config,
            {key: np.ascontiguousarray(array, dtype=np.float32) for key, array in weights.items()},
            [],
            float(info["scale_factor"]),
            n_max=int(np.clip(info.get("max_seq_len") or 250, 1, 1000)),
            needs_z=not decoder_only,
        )
        with torch.device("meta"):  # which takes no memory, whatever sizes are claimed
            parameters = dict(SketchRNN(config).named_parameters())
        if {key: array.shape for key, array in weights.items()} != {k: tuple(v.shape) for k, v in parameters.items()}:
            raise ValueError
    except (ValueError, IndexError, TypeError, KeyError, OverflowError, RuntimeError):
        raise MagentaError(f"{name} has weights whose dimensions do not fit together.") from None
    return checkpoint


def _lstm(prefix: str, w_xh: Floats, w_hh: Floats, bias: Floats) -> dict[str, Floats]:
    """PyTorch's parameters of an LSTM whose gates come as i, g, f, o."""
    i, g, f, o = np.arange(4 * len(w_hh)).reshape(4, -1)
    order = np.concatenate([i, f, g, o])
    bias = bias.copy()
    bias[f] += 1.0
    return {
        f"{prefix}.weight_ih_l0": w_xh.T[order],
        f"{prefix}.weight_hh_l0": w_hh.T[order],
        f"{prefix}.bias_ih_l0": bias[order],
        f"{prefix}.bias_hh_l0": np.zeros_like(bias),
    }


def _usual_side(checkpoint: Checkpoint) -> float:
    """Longest side of its free drawings in normalised units, in the median."""
    sketcher = Sketcher(checkpoint)
    sides = []
    for steps in _free_points(sketcher):
        drawing = [np.cumsum(steps, axis=0)]
        sides.append(longest_side(drawing))
    usual = float(np.median(sides))
    return usual if usual > 0 else 1.0


def _free_points(sketcher: Sketcher) -> list[NDArray[np.float64]]:
    """Offsets (N, 2), normalised, of free drawings at the demos' temperature."""
    job = sketcher.prepare("draw", None, temperature=0.5, n=SIZING, seed=0, rule="demos", guidance=0.0)
    drawn: list[list[tuple[float, float]]] = [[(0.0, 0.0)] for _ in range(SIZING)]
    for step in sketcher.engine.sample(job.state, job.noise, job.temperatures, allow_empty=False):
        for row, (dx, dy), pen in zip(step.rows.tolist(), step.offsets.tolist(), step.pens.tolist(), strict=True):
            if pen != PEN_END:
                drawn[row].append((dx, dy))
    return [np.array(points) for points in drawn]
