"""How fast drawings are sampled, against the plain loop and the peers, in one run on one machine.

    python -m benchmarks.sampling --install ~/peers    # once: @magenta/sketch from npm, labml-nn from pip
    python -m benchmarks.sampling --peers ~/peers

All contenders take turns, at least seven times each; medians are given, and ratios to ours. LSTM 512, M = 20,
exactly n points (nothing may end early), one thread unless said otherwise. Peers that are not installed are left
out. What is timed is the decoder alone, unguided, as the peers know no guidance; guided rows stand beside.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # before NumPy and torch are imported

import numpy as np
import torch

import sketch_core
from benchmarks.plain import PlainDecoder
from sketch_core.engine import CpuEngine, draw_noise
from sketch_core.generate import GUIDANCE, Sketcher
from sketch_core.mixture import CANDIDATES, temperatures

HERE = Path(__file__).resolve().parent


class Peer:
    """A process that samples n points for each line on its standard input."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1
        )

    def ms(self, n: int) -> float:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{n}\n")
        self.process.stdin.flush()
        while True:
            line = self.process.stdout.readline()
            if not line:
                raise RuntimeError("the peer has stopped")
            if line.startswith("{"):  # TensorFlow.js prints advice as well
                return float(json.loads(line)["ms"])


def install(folder: Path) -> None:
    """Fetch the peers into a folder of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "@magenta/sketch@0.2.0", "@tensorflow/tfjs@1"],
        cwd=folder,
        check=False,
    )
    subprocess.run([sys.executable, "-m", "venv", "--system-site-packages", folder / "venv"], check=False)
    subprocess.run([folder / "venv" / "bin" / "pip", "install", "-q", "labml-nn", "matplotlib"], check=False)


def peers(folder: Path | None) -> dict[str, Peer]:
    """Those that start and answer."""
    if folder is None:
        return {}
    commands = {
        "@magenta/sketch 0.2.0, node, tfjs CPU": ["node", str(HERE / "peers" / "magenta.js"), str(folder)],
        "labml-nn (PyTorch port)": [str(folder / "venv" / "bin" / "python"), str(HERE / "peers" / "labml_port.py")],
    }
    found = {}
    for name, command in commands.items():
        try:
            peer = Peer(command)
            peer.ms(3)
            found[name] = peer
        except (OSError, RuntimeError) as error:
            print(f"left out: {name} ({error})", file=sys.stderr)
    return found


def endless(sketcher: Sketcher, *, compiled: bool = True) -> CpuEngine:
    """The sketcher's engine with an end that never comes."""
    weights = dict(sketcher.source.weights)
    bias = weights["decoder.output.bias"].copy()
    bias[2] = -1e9
    return CpuEngine(sketcher.source.architecture, weights | {"decoder.output.bias": bias}, compiled=compiled)


def draw_ours(sketcher: Sketcher, engine: CpuEngine, n_points: int, batch: int, guidance: float = 0.0) -> None:
    """``batch`` drawings of ``n_points`` each, from their noise on."""
    candidates = CANDIDATES if guidance else 1
    noise = [draw_noise(0, k, n_points + 1, candidates) for k in range(batch)]
    sampling = engine.batch()
    sampling.add(
        sketcher.free_state("cat", batch),
        noise,
        [temperatures(0.4)] * batch,
        reference=sketcher.free_state(None, batch) if guidance else None,
        guidance=guidance,
    )
    for _ in range(n_points):
        if len(sampling.step().rows) != batch:
            raise RuntimeError("a drawing has ended early")


def with_threads(threads: int, work: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> None:
        torch.set_num_threads(threads)
        work()
        torch.set_num_threads(1)

    return run


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint")
    parser.add_argument("--install", type=Path, metavar="DIR", help="fetch the peers into this folder, and stop")
    parser.add_argument("--peers", type=Path, metavar="DIR", help="folder with installed peers")
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.install:
        install(options.install)
        return
    torch.set_num_threads(1)
    sketcher = sketch_core.load(options.checkpoint, device="cpu")
    engine, uncompiled = endless(sketcher), endless(sketcher, compiled=False)
    plain = PlainDecoder().eval()
    weights = np.random.default_rng(0).standard_normal(engine._w_lone.shape).astype(np.float32)
    vector, product = np.ones(weights.shape[1], dtype=np.float32), np.empty(len(weights), dtype=np.float32)
    cores = min(os.cpu_count() or 1, 2)

    def read_weights() -> None:
        for _ in range(100):
            np.dot(weights, vector, out=product)

    contenders: dict[str, Callable[[], float]] = {
        "ours, 1 x 100": lambda: timed(lambda: draw_ours(sketcher, engine, 100, 1)),
        "ours without Numba, 1 x 100": lambda: timed(lambda: draw_ours(sketcher, uncompiled, 100, 1)),
        "ours guided, 1 x 100": lambda: timed(lambda: draw_ours(sketcher, engine, 100, 1, GUIDANCE)),
        "floor: the gates' weights read 100 times": lambda: timed(read_weights),
        "plain loop, 1 x 100": lambda: timed(lambda: plain.draw(100)),
        "ours, 10 x 100": lambda: timed(lambda: draw_ours(sketcher, engine, 100, 10)),
        "plain loop, 10 x 100": lambda: timed(lambda: plain.draw(100, 10)),
        "ours, 1 x 50": lambda: timed(lambda: draw_ours(sketcher, engine, 50, 1)),
        "ours, 9 x 50": lambda: timed(lambda: draw_ours(sketcher, engine, 50, 9)),
        f"ours, 9 x 50, {cores} threads": lambda: timed(
            with_threads(cores, lambda: draw_ours(sketcher, engine, 50, 9))
        ),
        f"ours guided, 9 x 50, {cores} threads": lambda: timed(
            with_threads(cores, lambda: draw_ours(sketcher, engine, 50, 9, GUIDANCE))
        ),
    }
    found = peers(options.peers)
    for name, peer in found.items():
        contenders[f"{name}, 1 x 100"] = lambda peer=peer: peer.ms(100)  # type: ignore[misc]
    for contender in contenders.values():
        contender()  # compilers and caches
    results: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(max(options.repeats, 7)):
        for name, contender in contenders.items():
            results[name].append(contender())
    medians = {name: statistics.median(values) for name, values in results.items()}
    width = max(map(len, medians))
    print(f"{'median of ' + str(max(options.repeats, 7)) + ' turns':<{width}}        ms")
    for name, value in medians.items():
        print(f"{name:<{width}} {value:9.1f}   ({min(results[name]):.1f} to {max(results[name]):.1f})")
    ours, one = medians["ours, 1 x 100"], medians["ours, 1 x 50"]
    ratios = {
        "plain loop / ours, 1 x 100": medians["plain loop, 1 x 100"] / ours,
        "plain loop / ours, 10 x 100": medians["plain loop, 10 x 100"] / medians["ours, 10 x 100"],
        "ours / floor": ours / medians["floor: the gates' weights read 100 times"],
        "nine endings of 50 / one": medians["ours, 9 x 50"] / one,
        f"nine endings of 50 on {cores} threads / one": medians[f"ours, 9 x 50, {cores} threads"] / one,
    } | {f"{name} / ours": medians[f"{name}, 1 x 100"] / ours for name in found}
    print()
    for name, ratio in ratios.items():
        print(f"{name:<{width}} {ratio:9.2f}")
    if options.json:
        about = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
        options.json.write_text(json.dumps({"about": about, "ms": results, "ratios": ratios}, indent=1) + "\n")


if __name__ == "__main__":
    main()
