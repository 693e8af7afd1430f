"""The model and everything about strokes; usable without the page.

>>> import sketch_core
>>> sketcher = sketch_core.load()
>>> endings = sketcher.complete(drawing, category="cat", temperature=0.4, n=9, seed=0)
"""

from sketch_core.generate import Sketcher, load
from sketch_core.inspection import Inspection, guess, inspect
from sketch_core.strokes import Drawing, DrawingError

__version__ = "0.1.0"
__all__ = ["Drawing", "DrawingError", "Inspection", "Sketcher", "__version__", "guess", "inspect", "load"]
