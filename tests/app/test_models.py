"""Several networks behind one page: each known by its name, loaded when asked for, its card readable alone."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request

import pytest

from app import studio as studio_module
from app.studio import Studio, StudioError
from sketch_core import checkpoint

START = [[[100, 100], [200, 120], [260, 220], [180, 300]]]


@pytest.fixture
def studio(tiny_sketcher, models):
    made = Studio(tiny_sketcher, others=lambda: {folder.name: folder for folder in sorted(models.iterdir())})
    yield made
    made.close()


def test_every_sound_checkpoint_is_listed(studio, models):
    listed = {model["name"]: model for model in studio.models()}
    assert list(listed) == ["tiny", "magenta-tiny-gen"], "the first network, then others; the broken one is left out"
    assert listed["tiny"]["lacks"] == {} and listed["tiny"]["categories"] == studio.categories
    assert set(listed["magenta-tiny-gen"]["lacks"]) == {"vary", "blend", "guess"}
    shutil.copytree(models / "magenta-tiny-gen", models / "later")
    try:
        assert "later" in [model["name"] for model in studio.models()]
        assert len(studio.answer(do="draw", model="later", n=2)) == 2
    finally:
        shutil.rmtree(models / "later")


def test_a_named_network_answers(studio, tiny_sketcher):
    other = studio.answer(do="complete", model="magenta-tiny-gen", strokes=START, n=2, seed=1)
    assert len(other) == 2 and other != studio.answer(do="complete", strokes=START, n=2, seed=1)
    own = studio.answer(do="draw", n=1, seed=5)
    assert own == studio.answer(do="draw", n=1, seed=5, model=tiny_sketcher.name)


@pytest.mark.parametrize("model", ["none", "../models", "", 3, ["tiny"], {}, "broken", "a" * 5000])
def test_other_names_are_refused(studio, model):
    with pytest.raises(StudioError) as error:
        studio.answer(do="draw", model=model)
    assert 10 < len(str(error.value)) < 200


@pytest.mark.parametrize("fields", [{"do": "vary"}, {"do": "compare", "of": "vary", "temperatures": [0.4]}])
def test_what_it_lacks_is_refused_with_the_reason(studio, fields):
    with pytest.raises(StudioError, match="no encoder") as error:
        studio.answer(model="magenta-tiny-gen", strokes=START, **fields)
    assert error.value.code == "unable"


def test_networks_make_room(studio, models, monkeypatch):
    monkeypatch.setattr(studio_module, "MAX_OTHERS", 1)
    shutil.copytree(models / "magenta-tiny-gen", models / "second")
    try:
        for model in ("magenta-tiny-gen", "second", "tiny", "magenta-tiny-gen"):
            assert len(studio.answer(do="draw", model=model, n=1)) == 1
            assert len(studio._others) <= 1 and "tiny" not in studio._others
    finally:
        shutil.rmtree(models / "second")


def fetch(address):
    try:
        with urllib.request.urlopen(address) as answer:
            return answer.status, answer.headers.get_content_type(), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers.get_content_type(), error.read()


def test_cards_are_readable_and_nothing_else(server, models):
    status, kind, content = fetch(f"{server}/models")
    assert (status, kind) == (200, "application/json")
    assert [model["name"] for model in json.loads(content)] == ["tiny", "magenta-tiny-gen"]
    card = models / "magenta-tiny-gen" / checkpoint.CARD_FILE
    before = card.read_text()
    card.write_text("# A card\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n<script>alert(1)</script> ![x](sheet.png)")
    (models / "magenta-tiny-gen" / "sheet.png").write_bytes(b"\x89PNG")
    try:
        status, kind, content = fetch(f"{server}/models/magenta-tiny-gen")
        assert (status, kind) == (200, "text/html")
        assert b"<table>" in content and b"<script" not in content
        assert b'src="./magenta-tiny-gen/sheet.png"' in content
        assert fetch(f"{server}/models/magenta-tiny-gen/sheet.png")[:2] == (200, "image/png")
    finally:
        card.write_text(before)
    others = ["magenta-tiny-gen/config.json", "magenta-tiny-gen/weights.safetensors", "magenta-tiny-gen/.png"]
    others += ["none", "tiny", "magenta-tiny-gen/..%2Fbroken%2Fconfig.json", "..%2F..%2Fetc%2Fpasswd"]
    for path in others:
        assert fetch(f"{server}/models/{path}")[0] == 404, path
