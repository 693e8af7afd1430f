"""What the temperature does, all else being equal: python -m examples.compare [FOLDER]

The same noise is drawn from ever wider distributions (paper, equation 8; README.md says where our rule differs).
"""

import sys
from pathlib import Path

import sketch_core
from sketch_core import render

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
sketcher = sketch_core.load()

temperatures = [0.1, 0.25, 0.4, 0.6, 0.8, 1.0]
seeds = [0, 1, 2]
# A list for each temperature, with a drawing for each seed. Without guidance, as in the paper.
grid = sketcher.compare("draw", category="bicycle", temperatures=temperatures, seeds=seeds, guidance=0)

rows = [[drawings[k] for drawings in grid] for k in range(len(seeds))]
heads = [f"τ {temperature}" for temperature in temperatures]
(folder / "compare.png").write_bytes(render.sheet_png(rows, heads=heads, size=96))

for temperature, drawings in zip(temperatures, grid, strict=True):
    points = [sum(map(len, drawing)) for drawing in drawings]
    print(f"τ {temperature}: {points} points")
print(folder / "compare.png")
