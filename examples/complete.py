"""Finish half a cat eight times: python -m examples.complete [FOLDER]

The decoder reads the start and goes on from the state it is in (paper, section 4.4, "predicting different endings").
"""

import sys
from pathlib import Path

import numpy as np

import sketch_core
from sketch_core import render

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")

# A drawing is a list of strokes; a stroke is an (N, 2) array of pixels, y down. This one is a head and two ears.
angle = np.linspace(-np.pi / 2, 1.5 * np.pi, 24)
head = np.column_stack([256 + 130 * np.cos(angle), 300 + 110 * np.sin(angle)])
left_ear = np.array([[150.0, 238.0], [140.0, 130.0], [215.0, 196.0]])
right_ear = np.array([[297.0, 196.0], [372.0, 130.0], [362.0, 238.0]])
start = [head, left_ear, right_ear]

sketcher = sketch_core.load()
endings = sketcher.complete(start, category="cat", temperature=0.4, n=8, seed=1)

# What was given is drawn in ink, what the network added in another colour.
rows = [[(start, ending) for ending in endings[:4]], [(start, ending) for ending in endings[4:]]]
(folder / "complete.png").write_bytes(render.sheet_png(rows, size=128))
print(f"{len(endings)} endings of {[len(ending) for ending in endings]} strokes in {folder / 'complete.png'}")
