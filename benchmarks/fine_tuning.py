"""What keeps the old categories while a new one is learned: the table of docs/training-your-own.md.

    python -m benchmarks.fine_tuning ../shared/data [--steps 160] [--only upside-down letters-30 …] [--keep distil …]

Two things that no network has seen: flamingos turned upside down (30 to learn from), and Omniglot's letters (30, 300).
Of each, 150 others are measured before and after; before, as "anything". Forgetting is measured on one validation
drawing of each Quick, Draw! category, which the fine-tuning never sees.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sketch_core import checkpoint, evaluate, quickdraw
from sketch_core.device import choose_precision
from sketch_core.fine_tune import KEEPS, FineTuneConfig, FineTuner
from sketch_core.quickdraw import DrawingSet

FIGURES = ("nats_free", "nats_half", "nats_z")
MEASURED = 150
WEIGHTS = {"distil": 5.0, "rehearsal": 1.0, "l2sp": 1.0, "embedding": 0.0, "nothing": 0.0}


def turned(rows: NDArray[Any]) -> NDArray[Any]:
    """A drawing upside down."""
    return np.column_stack([-rows[:, 0], -rows[:, 1], rows[:, 2]])


def things(data: Path) -> dict[str, tuple[list[NDArray[Any]], list[NDArray[Any]]]]:
    """{name: (drawings to learn from, others)}."""
    flamingos = quickdraw.load_sets(data / "quickdraw", ["flamingo"])
    letters = quickdraw.load_sets(data / "formats" / "omniglot.npz")
    first, second = (np.random.default_rng(100).permutation(len(sets["train"])) for sets in (flamingos, letters))
    upside_down = [turned(flamingos["train"].stroke3[i]) for i in first[:30]]
    some = [letters["train"].stroke3[i] for i in second[:300]]
    return {
        "upside-down": (upside_down, [turned(rows) for rows in flamingos["test"].stroke3[:MEASURED]]),
        "letters-30": (some[:30], letters["test"].stroke3[:MEASURED]),
        "letters-300": (some, letters["test"].stroke3[:MEASURED]),
    }


def figures(network: checkpoint.Checkpoint, drawings: DrawingSet) -> NDArray[np.float64]:
    """(3,) of ``FIGURES``."""
    precision = choose_precision("auto", torch.device("cpu"))
    summary = evaluate.measure(network.model(), drawings, precision=precision).summary()
    return np.array([summary[name] for name in FIGURES])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--from", dest="source", default="")
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--keep", nargs="+", choices=KEEPS, default=list(KEEPS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dropout", type=float, default=FineTuneConfig.dropout)
    options = parser.parse_args()

    source = checkpoint.load(checkpoint.resolve(options.source or None))
    sets = quickdraw.load_sets(options.data / "quickdraw", source.categories, ("valid",), max_points=source.n_max - 1)
    old = sets["valid"].per_category(1)
    old_before = figures(source, old)
    print(f"{len(old)} drawings of old categories: " + " / ".join(f"{value:.3f}" for value in old_before))
    print("nats a step free / second half / with z")
    for name, (learn, others) in things(options.data).items():
        if options.only and name not in options.only:
            continue
        usable = [rows for rows in others if 2 <= len(rows) < source.n_max]
        new = DrawingSet([*source.categories, name], usable, np.full(len(usable), len(source.categories)))
        print(f"{name}: before " + " / ".join(f"{value:.3f}" for value in figures(source, new)))
        for keep in options.keep:
            config = FineTuneConfig(
                out=str(Path(tempfile.gettempdir()) / "none"),
                source=options.source,
                keep=keep,
                weight=WEIGHTS[keep],
                steps=options.steps,
                threads=options.threads,
                dropout=options.dropout,
            )
            tuner = FineTuner(config, {name: {"train": learn}})
            learned = tuner.run()
            after, moved = figures(learned, new), figures(learned, old) - old_before
            print(
                f"  {keep:<10} after {' / '.join(f'{value:.3f}' for value in after)}"
                f"   old {' / '.join(f'{value:+.3f}' for value in moved)}"
                f"   best step {tuner.history.get('best_step')}, {tuner.seconds:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
