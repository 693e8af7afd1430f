"""The page's endpoints from Python: python examples/client.py [http://127.0.0.1:7860]

Needs `pip install gradio_client` and a page that runs (`python app.py`), here or anywhere else.
"""

import sys
from pathlib import Path

from gradio_client import Client

client = Client(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7860", verbose=False)

# Strokes are lists of [x, y] in pixels, y down; here two ears and the top of a head.
start = [[[60, 200], [120, 90], [200, 60], [300, 90], [360, 200]]]

endings = client.predict(strokes=start, category="cat", n=3, seed=7, api_name="/complete")
print(len(endings), "endings; the first adds", len(endings[0]), "strokes")

pictures = client.predict(strokes=start, category="cat", n=3, seed=7, form="svg", api_name="/complete")
Path("ending.svg").write_text(pictures[0], encoding="utf-8")
print("the first one is in ending.svg")

whole = [*start, *endings[0]]
print("it is taken for", client.predict(strokes=whole, api_name="/guess")[0])
print(len(client.predict(strokes=whole, category="cat", n=2, spread=0.3, api_name="/vary")), "variations of it")
print(len(client.predict(drawings=[start, whole], how="strip", steps=4, api_name="/blend")), "steps to it")
print("networks:", [model["name"] for model in client.predict(api_name="/models")])
