"""Animations: whose stroke is whose, and that only what changes is drawn again changes nothing."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from sketch_core import render

LEFT, RIGHT = np.array([[10.0, 20.0], [10.0, 80.0]]), np.array([[90.0, 20.0], [90.0, 80.0]])
OPTIONS = {"size": 100, "view": (0, 0, 100, 100), "color": "#000000", "accent_color": "#ff0000"}


def frames(film: bytes) -> list[np.ndarray]:
    picture = Image.open(io.BytesIO(film))
    found = []
    for number in range(picture.n_frames):
        picture.seek(number)
        found.append(np.asarray(picture.convert("RGB")).astype(int))
    return found


def test_two_hands_that_take_turns_keep_colour_width_and_order():
    film = frames(
        render.gif(
            [LEFT, RIGHT, LEFT + np.array([20, 0])],
            accents=[False, True, False],
            width=6.0,
            accent_width=2.0,
            seconds=1.5,
            frames_per_second=10,
            hold=0.0,
            **OPTIONS,
        )
    )
    last = film[-1]
    assert tuple(last[50, 10]) == (0, 0, 0) and tuple(last[50, 30]) == (0, 0, 0)
    assert last[50, 90, 0] > 240 and last[50, 90, 1:].max() < 40
    widths = [(last[50, column - 8 : column + 8].sum(axis=1) < 600).sum() for column in (10, 30)]
    assert set(widths) <= {6, 7} and (last[50, 82:98, 1] < 200).sum() <= 3, "the network's lines are thinner"
    middle = film[7]
    assert tuple(middle[50, 10]) == (0, 0, 0) and middle[30, 90, 1] < 100, "the second hand comes second"
    assert tuple(middle[50, 30]) == (255, 255, 255), "and the third stroke after it"


def test_drawing_only_what_changed_gives_the_same_last_frame():
    dice = np.random.default_rng(3)
    drawing = [dice.uniform(-20, 120, 2) + dice.normal(0, 8, (30, 2)).cumsum(axis=0) for _ in range(12)]
    marks = [bool(k % 2) for k in range(12)]
    slow = frames(render.gif(drawing, accents=marks, seconds=6.0, **OPTIONS))[-1]
    fast = frames(render.gif(drawing, accents=marks, seconds=0.1, frames_per_second=10, **OPTIONS))[-1]
    assert (np.abs(slow - fast).max(axis=2) > 60).mean() < 0.01, "but for the joints of lines"


def test_a_large_drawing_is_no_trouble():
    dice = np.random.default_rng(4)
    drawing = [dice.uniform(50, 450, 2) + dice.normal(0, 3, (50, 2)).cumsum(axis=0) for _ in range(400)]
    film = render.gif(drawing, size=512, seconds=5.0, view=(0, 0, 512, 512))
    assert Image.open(io.BytesIO(film)).n_frames <= 100 and len(film) < 2_000_000


def test_marks_must_fit_the_strokes():
    with pytest.raises(render.RenderError, match="2 strokes has 1 marks"):
        render.gif([LEFT, RIGHT], accents=[True])
    with pytest.raises(render.RenderError, match="line width"):
        render.gif([LEFT], accent_width=float("nan"))
