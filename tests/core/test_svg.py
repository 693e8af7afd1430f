"""Pictures from elsewhere become drawings: checked against another renderer, and against files made to do harm."""

from __future__ import annotations

import io
import json
import re
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from sketch_core import render, strokes, svg
from sketch_core.__main__ import main, read_drawing

HEAD = (
    '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 200 200" '
    'width="400" height="400" fill="none" stroke="black" stroke-width="1">'
)


def wrap(body: str, attributes: str = "") -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {attributes}>{body}</svg>'
    )


def ink(picture: str) -> np.ndarray:
    import cairosvg

    found = Image.open(io.BytesIO(cairosvg.svg2png(bytestring=picture.encode(), background_color="white")))
    return np.asarray(found.convert("L")) < 200


def thicker(mask: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(mask).convert("L").filter(ImageFilter.MaxFilter(7))) > 0


PICTURES = {
    "path": "M20 20 L80 20 H100 V60 C120 60 140 80 140 100 S 100 160 60 150 Q 20 140 20 100 T 60 60 "
    "A 30 20 30 1 0 150 150 Z",
    "relative": "m20 20 l60 0 h20 v40 c20 0 40 20 40 40 s-40 60 -80 50 q-40 -10 -40 -50 t40-40 a30 20 30 01 60 90z"
    "m10 10 20 20",
    "arcs": "M50 50 a20 20 0 0 1 40 0 a5 5 0 0 0 60 10 A40 25 -20 1 1 100 150 A1 1 0 0 1 20 150",
    "several": "M10 10L50 50M60 60 70 20 90 90zM100 100 l 50 0 0 50 z l 10 30",
    "shapes": '<rect x="10" y="10" width="50" height="30" rx="8"/><rect x="70" y="10" width="40" height="20"/>'
    '<rect x="120" y="10" width="60" height="40" rx="10" ry="20"/><circle cx="40" cy="100" r="25"/>'
    '<ellipse cx="120" cy="100" rx="40" ry="15"/><polyline points="10,150 40,190 70 150"/>'
    '<polygon points="100,150 130,190 160,150"/><line x1="170" y1="20" x2="190" y2="180"/>',
    "transforms": '<g transform="translate(100 100) rotate(30)"><g transform="scale(1 -.8),skewX(20)">'
    '<rect x="-40" y="-40" width="80" height="80" rx="10" ry="20"/></g>'
    '<path transform="matrix(.9 .2 -.1 .7 3 4) rotate(20 5 5) skewY(10)" d="M0 0 L50 0 50 50z"/></g>',
    "use": '<defs><g id="a"><circle r="10"/><path d="M0 0L9 9"/></g></defs><use href="#a" x="50" y="50"/>'
    '<use xlink:href="#a" transform="translate(120 40) scale(1.2)"/>',
    "nested": '<svg x="10" y="100" width="60" height="80" viewBox="0 0 60 60"><path d="M0 0L60 60M60 0L0 60"/></svg>',
    "units": '<line x1="10%" y1="1cm" x2="2in" y2="50%"/><circle cx="30mm" cy="90pt" r="10%"/>',
    "styles": '<g style="display:none"><path d="M0 0L200 200"/></g><path style="visibility: hidden" d="M0 200L200 0"/>'
    '<path d="M20 30L90 160"/>',
}


@pytest.mark.parametrize("name", PICTURES)
def test_outlines_lie_where_another_renderer_puts_them(name):
    body = PICTURES[name] if PICTURES[name].startswith("<") else f'<path d="{PICTURES[name]}"/>'
    drawing = svg.drawing_from_svg(HEAD + body + "</svg>")
    lines = "".join('<path d="M' + "L".join(f"{x:.3f} {y:.3f}" for x, y in stroke) + '"/>' for stroke in drawing)
    theirs, ours = ink(HEAD + body + "</svg>"), ink(HEAD + lines + "</svg>")
    assert theirs.sum() > 200
    assert not (theirs & ~thicker(ours)).any(), "nothing is missing"
    assert not (ours & ~thicker(theirs)).any(), "nothing was made up"
    assert sum(map(len, drawing)) < 250, "simplified"


def test_symbols_are_as_large_as_their_use_says():
    symbol = '<symbol id="s" viewBox="0 0 10 20"><path d="M0 0L10 20"/></symbol>'
    (stroke,) = svg.drawing_from_svg(HEAD + symbol + '<use href="#s" x="50" y="60" width="40" height="40"/></svg>')
    np.testing.assert_allclose(stroke, [[60, 60], [80, 100]])


def test_what_inkscape_and_illustrator_write_is_read():
    inkscape = """<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<!-- Created with Inkscape (http://www.inkscape.org/) -->
<svg width="210mm" height="297mm" viewBox="0 0 210 297" version="1.1" id="svg5"
   xmlns:inkscape="http://www.inkscape.org/namespaces/inkscape" xmlns="http://www.w3.org/2000/svg"
   xmlns:sodipodi="http://sodipodi.sourceforge.net/DTD/sodipodi-0.dtd">
  <sodipodi:namedview id="namedview7" pagecolor="#ffffff"><inkscape:grid type="xygrid"/></sodipodi:namedview>
  <g inkscape:label="Layer 1" inkscape:groupmode="layer" id="layer1" transform="translate(1,2)">
    <path style="fill:none;stroke:#000000;stroke-width:0.26px" d="m 40,50 c 10,0 20,10 20,20" id="path1"/>
    <path sodipodi:type="arc" style="fill:none;stroke:#000" d="m 90,80 a 10,10 0 0 1 -10,10"/>
  </g></svg>"""
    drawing = svg.drawing_from_svg(inkscape)
    assert len(drawing) == 2
    np.testing.assert_allclose([drawing[0][0], drawing[0][-1], drawing[1][0]], [[41, 52], [61, 72], [91, 82]])
    illustrator = """<?xml version="1.0" encoding="iso-8859-1"?>
<!-- Generator: Adobe Illustrator 16.0.0, SVG Export Plug-In . SVG Version: 6.00 Build 0)  -->
<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">
<svg version="1.1" id="Capa_1" xmlns="http://www.w3.org/2000/svg" x="0px" y="0px" viewBox="0 0 100 100">
<style>.st0{fill:none;stroke:#000000;}</style><title>caf\xe9</title>
<polygon class="st0" points="10.5,10 90,10 50,90 "/></svg>"""
    (triangle,) = svg.drawing_from_svg(illustrator.encode("latin-1"))
    np.testing.assert_allclose(triangle, [[10.5, 10], [90, 10], [50, 90], [10.5, 10]])


def test_our_own_pictures_come_back(half_cat):
    dot = np.array([[250.0, 250.0]])
    picture = render.svg([*half_cat, dot], view=(0, 0, 400, 400), size=400, background="#fff")
    drawing = svg.drawing_from_svg(picture)
    assert len(drawing) == 3, "without the paper"
    assert len(drawing[2]) == 1, "a dot is a dot"
    np.testing.assert_allclose(drawing[2], dot, atol=0.1)
    for before, after in zip(half_cat, drawing, strict=False):
        np.testing.assert_allclose([after[0], after[-1]], [before[0], before[-1]], atol=0.11)
        far = [np.abs(strokes.rdp(np.vstack([after]), 0) - point).sum(axis=1).min() for point in before]
        assert max(far) < 25, "along the same way"


def test_a_background_alone_is_a_drawing():
    (square,) = svg.drawing_from_svg(wrap('<rect width="20" height="20"/>', 'viewBox="0 0 20 20"'))
    assert len(square) == 5
    both = svg.drawing_from_svg(wrap('<rect width="100%" height="100%"/><path d="M1 1L9 9"/>', 'viewBox="0 0 20 20"'))
    assert len(both) == 1
    framed = wrap('<rect width="20" height="20" stroke="red"/><path d="M1 1L9 9"/>', 'viewBox="0 0 20 20"')
    assert len(svg.drawing_from_svg(framed)) == 2, "a frame that somebody drew stays"


def test_many_points_are_simplified_until_they_fit():
    angle = np.linspace(0, 60 * np.pi, 15_000)
    spiral = np.column_stack([angle * np.cos(angle), angle * np.sin(angle)])
    text = wrap('<path d="M' + "L".join(f"{x:.2f} {y:.2f}" for x, y in spiral) + '"/>')
    (stroke,) = svg.drawing_from_svg(text)
    assert 500 < len(stroke) <= svg.MAX_POINTS
    away = [np.hypot(*(stroke - point).T).min() for point in spiral[::50]]
    assert max(away) < 30
    assert len(svg.drawing_from_svg(text, max_points=900)[0]) <= 900


ENTITIES = '<!DOCTYPE svg [<!ENTITY a SYSTEM "file:///etc/passwd">]><svg><text>&a;</text><path d="M0 0L1 1"/></svg>'
LAUGHS = (
    "<!DOCTYPE svg ["
    + "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10 if i else "ha"}">' for i in range(12))
    + ']><svg><text>&a11;</text><path d="M0 0L1 1"/></svg>'
)
USES = "".join(f'<g id="a{i}">' + f'<use href="#a{i - 1}"/>' * 10 + "</g>" for i in range(1, 12))
RANDOM = np.random.default_rng(0).uniform(0, 1000, (6000, 2)).round(1)
HOSTILE = {
    "external entity": (ENTITIES, "entities"),
    "entity bomb": (LAUGHS, "entities"),
    "DTD elsewhere": ('<!DOCTYPE svg [<!ENTITY % x SYSTEM "http://a.invalid/x.dtd"> %x;]><svg/>', "entities"),
    "10 MB path": (wrap('<path d="M0 0' + "L1 1" * 2_500_000 + '"/>'), "large"),
    "2 MB path": (wrap('<path d="M0 0' + "L1 1" * 490_000 + '"/>'), "large"),
    "one long command": (wrap('<path d="M0 0L' + "1 2 3 4 5 6 7 9 " * 60_000 + '"/>'), "large"),
    "long curves": (wrap('<path d="M0 0' + "C0 9e5 9e5 9e5 9e5 0L0 0" * 9_000 + '"/>'), "detailed"),
    "many elements": (wrap("<g/>" * 100_000), "large"),
    "deep": (wrap("<g>" * 100_000 + "</g>" * 100_000), "large"),
    "noise": (wrap('<path d="M' + "L".join(f"{x} {y}" for x, y in RANDOM) + '"/>'), "detailed"),
    "many strokes": (wrap('<path d="' + "M0 0L9 9" * 3000 + '"/>'), "detailed"),
    "NaN": (wrap('<path d="M0 0LNaN 3"/>'), "broken"),
    "infinity": (wrap('<path d="M0 0L1e999 3"/>'), "numbers"),
    "far away": (wrap('<path d="M0 0L1e30 3"/>'), "numbers"),
    "infinite scale": (
        wrap('<g transform="scale(1e200)"><g transform="scale(1e200)"><path d="M0 0L3 3"/></g></g>'),
        "numbers",
    ),
    "scale NaN": (wrap('<g transform="scale(NaN)"><path d="M0 0L3 3"/></g>'), "broken"),
    "no such transform": (wrap('<g transform="explode(3)"><path d="M0 0L3 3"/></g>'), "broken"),
    "half a matrix": (wrap('<g transform="matrix(1 2 3)"><path d="M0 0L3 3"/></g>'), "broken"),
    "many transforms": (wrap('<g transform="' + "scale(1)" * 200_000 + '"><path d="M0 0L3 3"/></g>'), "large"),
    "viewBox without end": (wrap('<path d="M0 0L9 9"/>', 'viewBox="0 0 1e999 9"'), "numbers"),
    "uses itself": (wrap('<g id="a"><path d="M0 0L9 9"/><use href="#a"/></g>'), "loop"),
    "use each other": (wrap('<g id="a"><use href="#b"/></g><g id="b"><use href="#a"/></g>'), "loop"),
    "use bomb": (wrap(f'<defs><path id="a0" d="M0 0L9 9"/>{USES}</defs><use href="#a11"/>'), "large"),
    "a long path used often": (
        wrap('<defs><path id="p" d="' + "M0 0" * 100_000 + '"/></defs>' + '<use href="#p"/>' * 15_000),
        "large",
    ),
    "other files only": (
        wrap('<use xlink:href="file:///etc/passwd#a"/><image href="http://a.invalid/x.png"/>'),
        "empty",
    ),
    "nothing": (wrap(""), "empty"),
    "script only": (wrap("<script>alert(1)</script>"), "empty"),
    "HTML": ("<html><body>hello</body></html>", "broken"),
    "words": ("hello", "broken"),
    "nothing at all": ("", "broken"),
    "cut off": (wrap('<path d="M0 0L10 10"/>')[:-10], "broken"),
    "not text": (b"\xff\xfe\x00\x12abc", "broken"),
    "unheard-of encoding": (b'<?xml version="1.0" encoding="nonsense"?><svg/>', "broken"),
    "path without a start": (wrap('<path d="z"/>'), "broken"),
    "half an arc": (wrap('<path d="M0 0A1 1 0"/>'), "broken"),
    "a radius of nearly nothing": (wrap('<path d="M0 0A1e-300 1e-300 0 0 1 1 1"/>'), "broken"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pictures_cost_little_and_get_one_sentence(name):
    text, code = HOSTILE[name]
    begun = time.process_time()
    with pytest.raises(svg.SvgError) as refused:
        svg.drawing_from_svg(text)
    assert refused.value.code == code
    assert re.fullmatch(r"[A-Z][^\n]{10,160}\.|[A-Z][^\n]{10,160}'", str(refused.value))
    assert time.process_time() - begun < 10


@pytest.mark.parametrize("name", ["10 MB path", "long curves", "entity bomb", "deep"])
def test_hostile_pictures_take_little_memory(name):
    tracemalloc.start()
    try:
        with pytest.raises(svg.SvgError):
            svg.drawing_from_svg(HOSTILE[name][0])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100e6


def test_scripts_are_passed_over():
    (stroke,) = svg.drawing_from_svg(wrap('<script>alert(1)</script><path onload="alert(1)" d="M0 0L10 10"/>'))
    assert len(stroke) == 2


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(alphabet="MmLlHhVvCcSsQqTtAaZz0123456789.,- +eENan", max_size=60))
def test_any_path_is_read_or_refused(path):
    try:
        drawing = svg.drawing_from_svg(wrap(f'<path d="{path}"/>'))
    except svg.SvgError:
        return
    assert all(np.isfinite(stroke).all() and stroke.ndim == 2 and len(stroke) for stroke in drawing)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 400))
def test_a_damaged_file_is_read_or_refused(junk, at):
    whole = (HEAD + PICTURES["transforms"] + PICTURES["use"] + "</svg>").encode()
    try:
        svg.drawing_from_svg(whole[:at] + junk + whole[at:])
    except svg.SvgError:
        return


def test_the_command_line_starts_from_any_form(tmp_path, half_cat):
    forms = {
        "a.svg": wrap('<path d="M60 200Q120 90 200 60T360 200"/>'),
        "a.json": json.dumps(strokes.drawing_to_json(half_cat)),
        "b.json": json.dumps({"strokes": strokes.drawing_to_json(half_cat), "by": ["hand", "net"]}),
        "c.json": json.dumps(np.round(strokes.to_stroke3(half_cat), 1).tolist()),
        "a.ndjson": json.dumps({"word": "cat", "drawing": [stroke.T.tolist() for stroke in half_cat]}) + "\n",
    }
    for name, text in forms.items():
        (tmp_path / name).write_text(text)
        drawing = read_drawing(str(tmp_path / name))
        assert len(drawing) == (1 if name == "a.svg" else 2), name
    np.testing.assert_allclose(
        read_drawing(str(tmp_path / "c.json"))[1], half_cat[1] - half_cat[0][0], atol=0.05 * len(half_cat[0])
    )
    (tmp_path / "empty.ndjson").write_text('{"word": "cat", "recognized": false, "drawing": [[[0], [0]]]}\n')
    for name, text in {"empty.ndjson": "", "bad.svg": "<svg", "bad.json": "{", "bad.ndjson": "{}\n"}.items():
        if text:
            (tmp_path / name).write_text(text)
        with pytest.raises(strokes.DrawingError):
            read_drawing(str(tmp_path / name))
    with pytest.raises(strokes.DrawingError, match="no readable file"):
        read_drawing(str(tmp_path / "none.svg"))


def test_the_command_line_completes_an_svg(tmp_path, tiny_sketcher, monkeypatch):
    (tmp_path / "start.svg").write_text(wrap('<circle cx="50" cy="50" r="40"/>'))
    monkeypatch.setattr("sketch_core.load", lambda *_: tiny_sketcher)
    out = tmp_path / "out.json"
    assert main(["sample", "--start", str(tmp_path / "start.svg"), "-n", "2", "--out", str(out)]) == 0
    assert len(json.loads(out.read_text())) == 2
