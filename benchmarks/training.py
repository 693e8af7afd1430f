"""Drawings a second in training: batches of like length against the same network padded to N_max, in fp32.

    python -m benchmarks.training ../shared/data/quickdraw

Both train the same weights on the same drawings in the same order with the same noise, turn about, so that the
losses they go through can be laid side by side: padding changes the time and nothing else.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from sketch_core import quickdraw
from sketch_core.train import TrainConfig, Trainer

PADDING = (0.0, 0.0, 0.0, 0.0, 1.0)


class Padded:
    """A sampler's batches, filled up to N_max as the paper's code does."""

    def __init__(self, sampler: quickdraw.BatchSampler, n_max: int) -> None:
        self.sampler, self.n_max = sampler, n_max

    def __getitem__(self, step: int) -> Any:
        batch = self.sampler[step]
        missing = self.n_max + 1 - batch.drawing.shape[1]
        rows = np.broadcast_to(np.array(PADDING, dtype=np.float32), (len(batch.drawing), max(missing, 0), 5))
        return dataclasses.replace(batch, drawing=np.concatenate([batch.drawing, rows], axis=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a .npz or .ndjson file, or a folder of them")
    parser.add_argument("--batch-size", type=int, default=TrainConfig.batch_size)
    parser.add_argument("--rounds", type=int, default=4, help="of both, in turn [4]")
    parser.add_argument("--steps", type=int, default=12, help="of each turn [12]")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trainers = {}
        for name, precision in (("ours", "auto"), ("padded to N_max, fp32", "fp32")):
            trainers[name] = Trainer(
                TrainConfig(
                    data=options.data,
                    out=str(Path(folder) / str(len(trainers))),
                    batch_size=options.batch_size,
                    device=options.device,
                    threads=options.threads,
                    precision=precision,
                    workers=0,  # what is prepared in one turn would be used in the next
                    steps=options.rounds * options.steps + 1,
                )
            )
        padded = trainers["padded to N_max, fp32"]
        n_max = int(padded.model.n_max)
        padded.sampler = Padded(padded.sampler, n_max)  # type: ignore[assignment]
        speeds: dict[str, list[float]] = {name: [] for name in trainers}
        curves: dict[str, list[float]] = {name: [] for name in trainers}
        for trainer in trainers.values():
            trainer.train_step()  # libraries allocate at their first call
        for _ in range(options.rounds):
            for name, trainer in trainers.items():
                began = time.perf_counter()
                curves[name] += [trainer.train_step()["loss"] for _ in range(options.steps)]
                speeds[name].append(options.steps * options.batch_size / (time.perf_counter() - began))
    ours, other = trainers
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    lengths = trainers[ours].train_set.lengths
    print(f"N_max {n_max}, {lengths.mean():.1f} points a drawing, batches of {options.batch_size}, {padded.device}")
    for name, value in medians.items():
        print(f"{name:<26}{value:9.1f} drawings/s   loss {curves[name][0]:.4f} … {curves[name][-1]:.4f}")
    apart = float(np.abs(np.array(curves[ours]) - np.array(curves[other])).max())
    print(f"\nratio {medians[ours] / medians[other]:.2f}; losses of the same step differ by {apart:.1e} at most")
    if options.json:
        options.json.write_text(json.dumps({"n_max": n_max, "drawings_per_second": speeds, "losses": curves}) + "\n")


if __name__ == "__main__":
    main()
