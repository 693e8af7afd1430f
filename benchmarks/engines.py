"""The CPU engine and the torch engine side by side: the same drawings, and how long each takes.

    python -m benchmarks.engines                  # on a GPU if there is one, else PyTorch's operations on the CPU
    python -m benchmarks.engines --device cuda

The check comes first and fails loudly: with the same noise both engines must draw the same points.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import numpy as np
import torch

import sketch_core
from sketch_core.device import choose_device
from sketch_core.engine import CpuEngine, Engine, draw_noise
from sketch_core.generate import GUIDANCE, Sketcher
from sketch_core.mixture import CANDIDATES, temperatures
from sketch_core.torch_engine import TorchEngine

Points = list[tuple[list[int], np.ndarray, list[int]]]


def draw(sketcher: Sketcher, engine: Engine, n: int, guidance: float, n_points: int = 100) -> Points:
    """n drawings of at most ``n_points`` points: rows, offsets and pen states of each step."""
    candidates = CANDIDATES if guidance else 1
    steps = engine.sample(
        sketcher.free_state("cat", n),
        [draw_noise(0, k, n_points, candidates) for k in range(n)],
        [temperatures(0.4)] * n,
        reference=sketcher.free_state(None, n),
        guidance=guidance,
    )
    return [(step.rows.tolist(), step.offsets, step.pens.tolist()) for step in steps]


def parted(a: Points, b: Points, n: int) -> list[int]:
    """Drawings that are not the same point for point (a rounded number may tip a choice, seldom)."""

    def sorted_by_drawing(points: Points) -> list[list[tuple[float, float, int]]]:
        drawings: list[list[tuple[float, float, int]]] = [[] for _ in range(n)]
        for rows, offsets, pens in points:
            for row, (dx, dy), pen in zip(rows, offsets.tolist(), pens, strict=True):
                drawings[row].append((dx, dy, pen))
        return drawings

    pairs = zip(sorted_by_drawing(a), sorted_by_drawing(b), strict=True)
    return [
        k for k, (x, y) in enumerate(pairs) if len(x) != len(y) or not np.allclose(x[:-1], y[:-1], rtol=0.0, atol=1e-2)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 9, 64, 256, 1024])
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    device = choose_device(options.device)
    sketcher = sketch_core.load(options.checkpoint, device="cpu")
    weights, config = sketcher.source.weights, sketcher.source.architecture
    engines: dict[str, Engine] = {"CPU engine": CpuEngine(config, weights)}
    engines[f"torch engine on {device}"] = torch_engine = TorchEngine(config, weights, device)
    for guidance in (0.0, GUIDANCE):
        differing = parted(*(draw(sketcher, engine, 64, guidance) for engine in engines.values()), 64)
        print(f"guidance {guidance:g}: {64 - len(differing)} of 64 drawings are the same on both")
        if len(differing) > 2:
            return 1
    if device.type == "cuda":
        print("CUDA graphs:", "captured" if torch_engine.graphs else "not to be had, steps are launched one by one")
        engines["torch engine without graphs"] = TorchEngine(config, weights, device, graphs=False)
    print(f"\n{torch.get_num_threads()} CPU threads; drawings to their ends, median ms of {options.repeats} turns")
    print(f"{'drawings':>9}{'guided':>8}" + "".join(f"{name:>30}" for name in engines))
    for n in options.batches:
        for guidance in (0.0, GUIDANCE):
            times: dict[str, list[float]] = {name: [] for name in engines}
            for turn in range(options.repeats + 1):
                for name, engine in engines.items():
                    began = time.perf_counter()
                    draw(sketcher, engine, n, guidance)
                    if turn:
                        times[name].append((time.perf_counter() - began) * 1e3)
            cells = "".join(f"{statistics.median(values):>30.1f}" for values in times.values())
            print(f"{n:>9}{'yes' if guidance else 'no':>8}{cells}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
