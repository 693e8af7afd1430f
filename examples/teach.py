"""Teach the shipped network your own doodles: python -m examples.teach [DRAWINGS.ndjson] [FOLDER] [STEPS]

Without a file it learns 30 handwritten letters (letters.ndjson). Yours may come from the page: "my set" under Share.
The same on the command line: python -m sketch_core train --from duet-345 --data my.ndjson --out checkpoints/mine
"""

import sys
from pathlib import Path

import sketch_core
from sketch_core import fine_tune, render
from sketch_core.fine_tune import FineTuneConfig, FineTuner

arguments = dict(enumerate(sys.argv))
data = arguments.get(1, str(Path(__file__).parent / "letters.ndjson"))
folder = Path(arguments.get(2, "."))
steps = int(arguments.get(3, FineTuneConfig.steps))

tuner = FineTuner(FineTuneConfig(data=data, out=str(folder / "taught"), steps=steps))
print(f"{tuner.words}: {len(tuner.train_set)} drawings to learn from, {len(tuner.valid_set)} others to measure by")
learned = tuner.run(on_step=lambda step: print(f"\rstep {step} of {steps}", end=""))
print("\n" + fine_tune.summary(tuner))

print("saved in", fine_tune.save(tuner, learned))
sketcher = sketch_core.Sketcher(learned)
rows = [sketcher.draw(word, temperature, n=10) for word in tuner.words for temperature in (0.3, 0.6)]
labels = [f"τ {temperature}" for _ in tuner.words for temperature in (0.3, 0.6)]
(folder / "taught.png").write_bytes(
    render.sheet_png([*rows, sketcher.draw("cat", n=10)], labels=[*labels, "cat"], size=80)
)
print("what it draws of them, and a cat:", folder / "taught.png")
