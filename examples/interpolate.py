"""Morph a cat into a pig, as an animated GIF: python -m examples.interpolate [FOLDER]

Between two drawings' z lies a path of other drawings (paper, section 4.2: spherical interpolation).
"""

import io
import sys
from pathlib import Path

from PIL import Image

import sketch_core
from sketch_core import render

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
sketcher = sketch_core.load()

(cat,) = sketcher.draw("cat", 0.25, n=1, seed=4)
(pig,) = sketcher.draw("pig", 0.25, n=1, seed=3)
steps = sketcher.blend([cat, pig], ["cat", "pig"], steps=9)

frames = [Image.open(io.BytesIO(render.png(drawing, size=128))).convert("L") for drawing in steps]
film = [*frames, *frames[-2:0:-1]]  # there and back
film[0].save(folder / "morph.gif", save_all=True, append_images=film[1:], duration=180, loop=0)
(folder / "morph.png").write_bytes(render.sheet_png([steps], size=96))
print(f"{len(steps)} drawings in {folder / 'morph.gif'} and side by side in {folder / 'morph.png'}")
