"""Comparing temperatures, blending in z, and looking inside."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sketch_core import inspection, losses, strokes
from sketch_core.generate import slerp
from sketch_core.inspection import guess, inspect


def flat(drawing):
    return np.concatenate(drawing) if drawing else np.zeros((0, 2))


def test_compared_drawings_are_the_first_of_each_temperature_and_seed(tiny_sketcher, half_cat):
    heats, seeds = (0.2, 0.7), (5, 6)
    for kind in ("complete", "draw", "vary"):
        drawing = None if kind == "draw" else half_cat
        grid = tiny_sketcher.compare(kind, drawing, "cat", temperatures=heats, seeds=seeds)
        assert [len(row) for row in grid] == [2, 2]
        for row, heat in zip(grid, heats, strict=True):
            for got, seed in zip(row, seeds, strict=True):
                options = {} if kind == "complete" else {"best_of": 1}
                given = [] if drawing is None else [drawing]
                one = getattr(tiny_sketcher, kind)(*given, "cat", temperature=heat, n=1, seed=seed, **options)[0]
                assert [len(s) for s in got] == [len(s) for s in one]
                assert np.allclose(flat(got), flat(one), atol=1e-2)


def test_slerp_by_hand():
    a, b = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    assert np.allclose(slerp(a, b, 0.5), [np.sqrt(0.5), np.sqrt(0.5)])
    assert np.allclose(slerp(a, b, 1 / 3), [np.cos(np.pi / 6), 0.5])
    assert np.allclose(slerp(a, 2 * a, 0.5), [1.5, 0.0]), "where the angle vanishes it is a straight line"
    assert np.allclose(slerp(np.zeros(2), b, 0.25), [0.0, 0.25])


def test_a_blend_begins_and_ends_with_the_decoded_two(tiny_sketcher, half_cat):
    other = [stroke[::-1] * 0.5 for stroke in half_cat]
    strip = tiny_sketcher.blend([half_cat, other], ["cat", "dog"], steps=5, seed=2)
    back = tiny_sketcher.blend([other, half_cat], ["dog", "cat"], steps=5, seed=2)
    assert len(strip) == 5
    for one, two in zip(strip, reversed(back), strict=True):
        assert np.allclose(flat(one), flat(two), atol=0.5)
    grid = tiny_sketcher.blend([half_cat, other, other, half_cat], how="grid", steps=3, seed=2)
    corners = [grid[0], grid[2], grid[6], grid[8]]
    assert np.allclose(flat(corners[0]), flat(corners[3]), atol=0.5)
    same = tiny_sketcher.blend([half_cat, other, other], how="sum", seed=2)[0]  # A - B + B
    assert np.allclose(flat(same), flat(grid[0]), atol=0.5)
    with pytest.raises(ValueError, match="grid needs 4"):
        tiny_sketcher.blend([half_cat, other], how="grid")


def test_an_inspection_adds_up(tiny_sketcher, half_cat):
    found = inspect(tiny_sketcher, half_cat, "cat")
    n, m = len(found.l_s), tiny_sketcher.source.architecture.n_mixtures
    assert found.pi.shape == (n + 1, m) and found.mu.shape == (n + 1, m, 2)
    assert np.allclose(found.pi.sum(axis=1), 1, atol=1e-5)
    assert np.allclose(found.pen_probabilities.sum(axis=1), 1, atol=1e-5)
    # The losses are those of the plain network over the same points.
    previous, target = found.stroke5[None, :-1], found.stroke5[None, 1:]
    with torch.no_grad():
        y = tiny_sketcher.model(torch.from_numpy(previous), None, torch.tensor([tiny_sketcher.category_index("cat")]))
    low = tiny_sketcher.model.config.min_sigma
    steps = losses.step_losses(y, torch.from_numpy(target), torch.tensor([n]), min_sigma=low)
    assert np.allclose(steps.offset[0], found.l_s, atol=1e-3) and np.allclose(steps.pen[0], found.l_p, atol=1e-3)
    # Positions are the canvas's, up to what simplification moves.
    assert np.allclose(found.pen[0], half_cat[0][0]) and np.allclose(found.pen[-1], half_cat[-1][-1], atol=1.0)
    assert np.abs(np.exp(-found.l_p) - found.pen_probabilities[np.arange(n), target[0, :, 2:].argmax(1)]).max() < 1e-3


def test_a_guess_is_bayes_rule_over_the_likelihoods(tiny_sketcher, half_cat):
    shares = dict(guess(tiny_sketcher, half_cat, n=99))
    assert set(shares) == set(tiny_sketcher.categories) and abs(sum(shares.values()) - 1) < 1e-6
    nats, n = tiny_sketcher.reader.category_nats(strokes.check_drawing(half_cat), len(shares))
    assert n > 3
    a, b = (tiny_sketcher.category_index(name) for name in ("cat", "dog"))
    expected = np.exp(-inspection.SHARPNESS * (nats[a] - nats[b]))
    assert np.isclose(shares["cat"] / shares["dog"], expected)
    # One stroke more is read alone, and gives what reading all gives.
    part = strokes.check_drawing(half_cat)[:1]
    tiny_sketcher.reader._guesses.clear()
    guess(tiny_sketcher, part)
    again = dict(guess(tiny_sketcher, half_cat, n=99))
    assert all(np.isclose(again[name], share, atol=1e-4) for name, share in shares.items())


@pytest.mark.parametrize("dot", [[[[5.0, 5.0]]], [[[5.0, 5.0], [5.0, 5.0]]], [[[5, 5]], [[5, 5]]]])
def test_a_dot_can_be_looked_at(tiny_sketcher, dot):
    dot = [np.array(stroke, dtype=float) for stroke in dot]
    assert guess(tiny_sketcher, dot)
    assert len(inspect(tiny_sketcher, dot).pi) >= 1
    assert len(tiny_sketcher.blend([dot, dot], steps=2)) == 2
    assert tiny_sketcher.compare("complete", dot, temperatures=[0.3])


def test_guesses_are_counted(tiny_sketcher, tmp_path):
    from sketch_core import quickdraw, recognition
    from tests.conftest import write_npz

    for name in ("cat", "dog"):
        write_npz(tmp_path / f"{name}.npz")
    drawings = quickdraw.load_sets(str(tmp_path), ["cat", "dog"], ("test",))["test"]
    found = recognition.guesses(tiny_sketcher, drawings, shares=(0.5, 1.0), n_best=1)
    assert set(found) == {"0.5", "1"} and set(found["1"]) == {"all", "best"}
    assert found["1"]["all"]["top5"] == 1.0, "there are but a few categories"


class OnlyCats:
    """A judge that calls everything a cat."""

    def __init__(self):
        self.info = {"sha256": ""}

    def ranks(self, drawings, names):
        assert len(drawings) == len(names)
        return np.array([0 if name == "cat" else 7 for name in names])


@pytest.mark.parametrize("only_best", [False, True])
def test_what_a_judge_names_is_counted(tiny_sketcher, tmp_path, only_best):
    from sketch_core import quickdraw, recognition
    from tests.conftest import write_npz

    for name, n in (("cat", 9), ("dog", 6)):
        write_npz(tmp_path / f"{name}.npz", n)
    drawings = quickdraw.load_sets(str(tmp_path), ["cat", "dog"], ("train",))["train"]
    found = recognition.measure(
        tiny_sketcher, OnlyCats(), drawings, per_category=3, n_best=1, only_best=only_best, retrieval=not only_best
    )
    cats = {"top1": 1.0, "top5": 1.0, "drawings": 3}
    assert found["real"]["best"] == found["free"]["0.25"]["best"] == found["endings"]["0.25"]["best"] == cats
    assert found["variations"]["0.3"]["best"] == cats | {"kept": 1.0, "kept_of": 3}
    printed = recognition.table(found)
    assert "1.000 of 3" in printed and "1 best filled" in printed
    if only_best:
        assert "all" not in found["real"] and " all" not in printed
    else:
        free = found["free"]["0.25"]["all"]
        assert free["drawings"] == 3 * len(tiny_sketcher.categories) and 0 < free["top1"] < 1
        assert found["real"]["all"] == {"top1": 0.5, "top5": 0.5, "drawings": 6}
        assert found["retrieval"]["among"] == 6
