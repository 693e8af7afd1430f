"""Draw a flamingo anew, nearer and farther from the first: python -m examples.vary [FOLDER]

The encoder turns a drawing into the mean and the spread of z; the decoder draws from z = mean + spread x noise
(paper, section 3.2). How far the noise goes is ``spread``: 0 is the mean itself.
"""

import sys
from pathlib import Path

import sketch_core
from sketch_core import render

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
sketcher = sketch_core.load()

(original,) = sketcher.draw("flamingo", 0.25, n=1, seed=4)
spreads = [0.0, 0.5, 1.5]
rows = [[original, *sketcher.vary(original, "flamingo", n=6, spread=spread)] for spread in spreads]
heads = ["original", *[""] * 6]
picture = render.sheet_png(rows, labels=[f"spread {spread}" for spread in spreads], heads=heads, size=96)
(folder / "vary.png").write_bytes(picture)

mu, sigma = sketcher.encode([original])
print(f"z has {mu.shape[1]} numbers; |mean| {abs(mu).mean():.2f}, spread {sigma.mean():.2f} on average")
print(f"{folder / 'vary.png'}")
