"""Drawing formats: round trips, simplification, frames, validation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sketch_core import strokes

COORDINATE = st.integers(-500, 500)
DRAWINGS = st.lists(st.lists(st.tuples(COORDINATE, COORDINATE), min_size=1, max_size=8), min_size=1, max_size=6)


@settings(max_examples=200, deadline=None)
@given(DRAWINGS)
def test_stroke3_and_stroke5_lose_nothing(points):
    drawing = [np.array(stroke, dtype=float) for stroke in points]
    if len(drawing[0]) == 2 and (drawing[0][0] == drawing[0][1]).all():
        drawing[0] = drawing[0][:1]  # a dot drawn twice is a dot
    rows = strokes.to_stroke3(drawing)
    stroke5 = strokes.to_stroke5(rows, scale_factor=30.0, n_max=len(rows) + 3)
    assert (stroke5[len(rows) :] == [0, 0, 0, 0, 1]).all()
    assert (stroke5[:, 2:].sum(axis=1) == 1).all()
    back = strokes.from_stroke3(strokes.from_stroke5(stroke5, scale_factor=30.0), tuple(drawing[0][0]))
    assert [len(stroke) for stroke in back] == [len(stroke) for stroke in drawing]
    assert all(np.allclose(a, b, atol=1e-2) for a, b in zip(back, drawing, strict=True))


@settings(max_examples=100, deadline=None)
@given(DRAWINGS)
def test_canvas_and_frame(points):
    drawing = [np.array(stroke, dtype=float) for stroke in points]
    frame = strokes.fit_frame(drawing, share=0.5)
    inside = frame.from_canvas(drawing)
    side = strokes.longest_side(drawing)
    assert strokes.longest_side(inside) == pytest.approx(127.5 if side else 0.0)
    assert all(np.allclose(a, b) for a, b in zip(frame.to_canvas(inside), drawing, strict=True))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(COORDINATE, COORDINATE), min_size=3, max_size=60), st.floats(0.5, 30))
def test_simplified_lines_stay_near(points, epsilon):
    line = np.array(points, dtype=float)
    kept = strokes.rdp(line, epsilon)
    assert (kept[0] == line[0]).all() and (kept[-1] == line[-1]).all()
    for x in line:
        a, b = kept[:-1], kept[1:]
        ab = b - a
        t = np.clip(((x - a) * ab).sum(1) / np.maximum((ab**2).sum(1), 1e-12), 0, 1)
        # Distance to the infinite line is what RDP bounds; to the piece it may be a little more.
        distance = np.hypot(*(a + t[:, None] * ab - x).T).min() if len(a) else np.hypot(*(kept[0] - x))
        cross = np.abs(ab[:, 0] * (x - a)[:, 1] - ab[:, 1] * (x - a)[:, 0]) / np.maximum(np.hypot(*ab.T), 1e-12)
        assert min(distance, cross.min()) <= epsilon + 1e-6


def test_compiled_rdp_keeps_what_the_vectorised_one_keeps(monkeypatch):
    generator = np.random.default_rng(1)
    lines = [generator.normal(size=(n, 2)).cumsum(axis=0) * 5.0 for n in (3, 10, 50, 400)]
    lines.append(np.tile([[0.0, 0.0], [30.0, 1.0]], (20, 1)))  # on and back again
    compiled = [strokes.rdp(line, 2.0).tolist() for line in lines]
    assert strokes.kernels.rdp_keep is not None, "Numba is among the requirements"
    monkeypatch.setattr(strokes.kernels, "rdp_keep", None)
    assert [strokes.rdp(line, 2.0).tolist() for line in lines] == compiled


def test_rdp_by_hand():
    line = np.array([[0, 0], [1, 0.5], [2, 0], [2, 5], [2, 10.0]])
    assert strokes.rdp(line, 1.0).tolist() == [[0, 0], [2, 0], [2, 10]]
    assert len(strokes.rdp(np.random.default_rng(0).normal(size=(100_000, 2)).cumsum(0), 5.0)) < 50_000


def test_padding_and_limits():
    rows = np.array([[3, 4, 0], [1, 0, 1]], dtype=np.int16)
    expected = [[3, 4, 1, 0, 0], [1, 0, 0, 1, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 1]]
    assert strokes.to_stroke5(rows, n_max=4).tolist() == expected
    with pytest.raises(strokes.DrawingError, match="at most 1"):
        strokes.to_stroke5(rows, n_max=1)


@pytest.mark.parametrize(
    "payload",
    [
        None, 5, "cat", {}, {"strokes": 3}, [[1, 2]], [[[1]]], [[[1, 2, 3, 4, 5]]], [[[True, 1]]], [[["1", 2]]],
        [[[float("nan"), 1]]], [[[1e300, 1]]], [[[None, 1]]], [], [[]], [[[[1, 2], 3]]],
        [[[0, 0]] * 100_000], [[[0, 0]]] * 1000,
    ],
)  # fmt: skip
def test_bad_json_is_one_sentence(payload):
    with pytest.raises(strokes.DrawingError) as error:
        strokes.drawing_from_json(payload)
    assert 10 < len(str(error.value)) < 160


def test_good_json():
    drawing = strokes.drawing_from_json({"strokes": [[[1, 2, 10, 0.5], [3, 4, None, None]], []]})
    assert [stroke.tolist() for stroke in drawing] == [[[1, 2], [3, 4]]]
    assert strokes.drawing_to_json(drawing) == [[[1, 2], [3, 4]]]
