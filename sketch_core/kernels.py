"""What a step does beside its matrix products, compiled by Numba: the gates and the sampling.

These are a dozen NumPy calls and more, each a microsecond or two: a third of a lone row's step, half of nine
rows'. Where Numba cannot be had, :data:`advance` and :data:`sample` are ``None`` and the engine does the same in
NumPy. The code is cached on disk, so only a fresh installation waits for the compiler (some seconds, once); where
nothing may be written beside the code nor in the user's cache, every start does.
"""

from __future__ import annotations

import atexit
import importlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from types import ModuleType

advance: Callable[..., None] | None = None
"""advance(gates, constant, half, c, inputs): (B, 4H) gates to new c (B, H) and h, into inputs (B, H + P)."""
sample: Callable[..., None] | None = None
"""sample(outputs, inputs, own, references, guidance, noise, slots, ages, may_end, temperatures, min_log_sigma,
place, positions, offsets, pens, gains): draw a point of each drawing from y (B, 6M + 3) in its row (and its
reference's), into offsets (B, 2), pens and gains (B,), and feed it to those rows of inputs and place; see
:class:`engine.SampleBatch`."""
few_products: Callable[..., None] | None = None
"""few_products(pairs, w_points, inputs, gates): inputs (B, H + P) times the weights, into gates (B, 4H). The recurrent
ones are given in bf16, column j and column H / 2 + j in the lower and the upper half of pairs (4H, H / 2), uint32:
half the bytes of fp32, which is what a row or two wait for. The points' ones are w_points (P, 4H)."""
finish_step: Callable[..., None] | None = None
"""finish_step(gates, constant, c, w_out, b_out, outputs, *what sample takes after outputs): all of a step that follows
the product: a dozen rows spend as long on calls as on this."""
few_step: Callable[..., None] | None = None
"""few_step(pairs, w_points, *what finish_step takes): the whole step of a row or two in one call."""

read_few: Callable[..., None] | None = None
"""read_few(pairs, w_points, gates, constant, c, inputs, place, positions, points, outputs): known points (B, T, 5) of a
few rows, and h (B, T, H) before each into outputs."""

rdp_keep: Callable[..., None] | None = None
"""rdp_keep(points, epsilon, keep): which of points (N, 2), float64, stay, into keep (N,); see :func:`strokes.rdp`."""


def _load() -> ModuleType:
    """The compiled module. Numba refuses it where it finds no folder to keep the code in, so give it one."""
    try:
        return importlib.import_module("sketch_core.compiled")
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
    # Of this process alone: what Numba finds in its cache, it runs.
    folder = tempfile.mkdtemp(prefix="doodle-duet-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    importlib.import_module("numba").config.CACHE_DIR = folder
    return importlib.import_module("sketch_core.compiled")


if os.environ.get("DUET_COMPILED", "1") != "0":
    try:
        compiled = _load()
        advance, sample = compiled.advance, compiled.sample
        few_products, finish_step = compiled.few_products, compiled.finish_step
        few_step, read_few = compiled.few_step, compiled.read_few
        rdp_keep = compiled.rdp_keep
    except Exception as error:  # Numba fails in many ways on unknown systems; NumPy always works
        logging.getLogger(__name__).info("No compiled kernels (%s): sampling in NumPy.", error)
