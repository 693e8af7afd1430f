"""The endpoints as programs meet them: documented, called from Python, JavaScript and curl against a real server."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from sketch_core import render
from sketch_core.generate import GUIDANCE
from tests.conftest import needs

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
START = [[[100, 100], [200, 120], [260, 220], [180, 300]]]
NAMES = {"complete", "vary", "draw", "compare", "blend", "inspect", "guess", "categories", "models"}
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def client(server):
    return Client(server, verbose=False)


def test_each_endpoint_says_what_it_does(client):
    api = client.view_api(print_info=False, return_format="dict")["named_endpoints"]
    assert set(api) == {f"/{name}" for name in NAMES}
    for name, endpoint in api.items():
        assert len(endpoint["description"]) > 20, name
        assert all(len(result["python_type"]["description"]) > 10 for result in endpoint["returns"]), name
        for parameter in endpoint["parameters"]:
            said = parameter["python_type"]["description"]
            assert len(said) > 12 and said.endswith("."), (name, parameter["parameter_name"], said)
            example = parameter["example_input"]
            assert example is not None or parameter["parameter_default"] is None, (name, parameter["parameter_name"])
    required = {
        name: [p["parameter_name"] for p in e["parameters"] if not p["parameter_has_default"]]
        for name, e in api.items()
    }
    assert {name: wanted for name, wanted in required.items() if wanted} == {
        "/complete": ["strokes"], "/vary": ["strokes"], "/blend": ["drawings"],
        "/inspect": ["strokes"], "/guess": ["strokes"],
    }  # fmt: skip


def test_the_examples_that_are_shown_work(client):
    api = client.view_api(print_info=False, return_format="dict")["named_endpoints"]
    for name, endpoint in api.items():
        shown = {parameter["parameter_name"]: parameter["example_input"] for parameter in endpoint["parameters"]}
        if "category" in shown:
            assert shown["category"] == "cat"
        assert client.predict(**shown, api_name=name), name


def test_what_is_left_out_has_its_usual_value(client, tiny_sketcher):
    drawings = [np.array(stroke, dtype=float) for stroke in START]
    expected = tiny_sketcher.complete(drawings, None, canvas=512.0)
    got = client.predict(strokes=START, api_name="/complete")
    assert [[len(stroke) for stroke in drawing] for drawing in got] == [[len(s) for s in d] for d in expected]
    cats = [client.predict(strokes=START, category="cat", guidance=g, api_name="/complete") for g in (0, GUIDANCE, 20)]
    assert (
        cats[1] == client.predict(strokes=START, category="cat", api_name="/complete") and cats[0] != cats[1] != cats[2]
    )
    far = client.predict(strokes=START, n=1, spread=3, api_name="/vary")
    assert far != client.predict(strokes=START, n=1, api_name="/vary")
    assert len(client.predict(of="draw", temperatures=[0.3, 0.6], seeds=2, api_name="/compare")) == 4
    assert client.predict(n=2.0, seed=3.0, api_name="/draw") == client.predict(n=2, seed=3, api_name="/draw")


@pytest.mark.parametrize(
    ("name", "arguments", "pictures"),
    [
        ("complete", {"strokes": START, "n": 2}, 2), ("vary", {"strokes": START, "n": 2}, 2), ("draw", {"n": 3}, 3),
        ("compare", {"strokes": START, "temperatures": [0.2, 0.9]}, 2),
        ("compare", {"of": "draw", "temperatures": [0.2, 0.9]}, 2),
        ("blend", {"drawings": [START, START], "steps": 3}, 3),
    ],
)  # fmt: skip
def test_pictures(client, name, arguments, pictures):
    drawings = client.predict(**arguments, api_name=f"/{name}")
    svgs = client.predict(**arguments, form="svg", api_name=f"/{name}")
    assert len(svgs) == len(drawings) == pictures
    completed = name == "complete" or (name == "compare" and "of" not in arguments)
    for picture, drawing in zip(svgs, drawings, strict=True):
        assert ElementTree.fromstring(picture).tag == f"{SVG}svg"
        shown = render.svg(START, accent=drawing, size=256) if completed else render.svg(drawing, size=256)
        assert picture == shown, "the start in ink, what was added in another colour"


def test_a_network_is_chosen(client, tiny_sketcher):
    known = client.predict(api_name="/models")
    assert [model["name"] for model in known] == ["tiny", "magenta-tiny-gen"]
    assert known[0] == {"name": "tiny", "categories": 3, "lacks": {}} and "vary" in known[1]["lacks"]
    assert client.predict(api_name="/categories") == tiny_sketcher.categories
    assert client.predict(model="magenta-tiny-gen", api_name="/categories") != tiny_sketcher.categories
    other = client.predict(n=1, model="magenta-tiny-gen", api_name="/draw")
    assert other and other != client.predict(n=1, api_name="/draw")


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("draw", {"category": "unicorn"}, "unicorn"), ("draw", {"form": "pdf"}, "json, svg"),
        ("draw", {"n": 10}, "from 1 to 9"), ("draw", {"n": 2.5}, "whole number"),
        ("draw", {"temperature": "hot"}, "0.1"),
        ("draw", {"model": "nobody"}, "nobody"), ("categories", {"model": "nobody"}, "nobody"),
        ("categories", {"model": ["tiny"]}, "no network"), ("complete", {"strokes": []}, "nothing drawn"),
        ("complete", {"strokes": [[[1, "2"]]]}, "Stroke 1"), ("complete", {"strokes": None}, "list of strokes"),
        ("complete", {"strokes": START, "pen_down": "yes"}, "pen_down"), ("draw", {"form": ["svg"]}, "json, svg"),
        ("vary", {"strokes": START, "model": "magenta-tiny-gen"}, "no encoder"),
        ("blend", {"drawings": [START]}, "drawings"), ("compare", {"of": "draw", "temperatures": [9]}, "temperature"),
    ],
)  # fmt: skip
def test_errors_are_one_sentence(client, name, arguments, sentence):
    with pytest.raises(AppError) as error:
        client.predict(**arguments, api_name=f"/{name}")
    message = str(error.value)
    assert sentence in message and 10 < len(message) < 200 and message.endswith("."), message


def run(command, folder, url):
    done = subprocess.run([*command, url], check=False, cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_python_example(server, tmp_path):
    said = run([sys.executable, EXAMPLES / "client.py"], tmp_path, server)
    assert "3 endings" in said and "taken for" in said and "'tiny'" in said
    ElementTree.fromstring((tmp_path / "ending.svg").read_text())


def test_the_curl_example(server, tmp_path):
    needs(shutil.which("curl") is not None, "The example for curl needs curl.")
    events = [
        block.split("\ndata: ")
        for block in run(["sh", EXAMPLES / "client.sh"], tmp_path, server).strip().split("\n\n")
        if not block.startswith("event: heartbeat")
    ]
    assert [kind for kind, _ in events] == ["event: complete", "event: complete", "event: error"]
    endings, pictures, error = (json.loads(data) for _, data in events)
    assert len(endings[0]) == 2 and pictures[0][0].startswith("<svg") and "unicorn" in error["error"]


def test_the_javascript_example(server, tmp_path):
    needs(shutil.which("node") is not None and shutil.which("npm") is not None, "The JavaScript example needs node.")
    install = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--silent", "@gradio/client@2"],
        check=False, cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    needs(install.returncode == 0, f"npm could not install @gradio/client: {install.stderr[-300:]}")
    shutil.copy(EXAMPLES / "client.mjs", tmp_path)  # packages are looked for beside the file
    said = run(["node", "client.mjs"], tmp_path, server)
    assert "3 endings" in said and "taken for" in said and "unicorn" in said
    ElementTree.fromstring((tmp_path / "cat.svg").read_text())


def test_the_schema_for_other_tools(server):
    with urllib.request.urlopen(f"{server}/gradio_api/openapi.json") as answer:
        paths = json.load(answer)["paths"]
    assert {f"/gradio_api/call/v2/{name}" for name in NAMES} <= set(paths)
