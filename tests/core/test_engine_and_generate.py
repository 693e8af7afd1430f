"""The fast sampler against the plain network, and what the Sketcher promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sketch_core import checkpoint, losses, prefix, strokes
from sketch_core import engine as engines
from sketch_core.engine import PEN_END, CpuEngine, draw_noise, sample_guided, sample_point
from sketch_core.generate import SETTLING, CategoryError, Sketcher
from sketch_core.mixture import CANDIDATES, temperatures
from sketch_core.torch_engine import TorchEngine


def rows_of(drawing, factor):
    return strokes.to_stroke5(strokes.to_stroke3(drawing), scale_factor=factor)


@pytest.fixture(params=["compiled", "compiled, as stored", "numpy", "numpy, as stored", "torch"])
def engine(request, tiny_sketcher, monkeypatch):
    """Each way an engine works, in the place of the tiny sketcher's own."""
    if request.param == "torch":
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        other = TorchEngine(tiny_sketcher.source.architecture, tiny_sketcher.source.weights, device)
        monkeypatch.setattr(tiny_sketcher, "engine", other)
        return other
    weights = dict(tiny_sketcher.source.weights)
    if "stored" in request.param:
        weights = {name: checkpoint.stored(name, array).astype(np.float32) for name, array in weights.items()}
        for name, parameter in tiny_sketcher.model.named_parameters():
            monkeypatch.setattr(parameter, "data", torch.from_numpy(weights[name]))
    engine = CpuEngine(tiny_sketcher.source.architecture, weights, compiled="compiled" in request.param)
    assert engine.compiled == ("compiled" in request.param), "Numba is among the requirements"
    assert (engine._packed is not None) <= ("stored" in request.param)
    assert (engine._pairs is not None) == (request.param == "compiled, as stored")
    monkeypatch.setattr(tiny_sketcher, "engine", engine)
    return engine


def test_reading_equals_the_network(engine, tiny_sketcher, half_cat):
    stroke5 = rows_of(half_cat, tiny_sketcher.scale_factor)[None]
    previous = np.concatenate([strokes.START_TOKEN[None, None], stroke5[:, :-1]], axis=1)
    with torch.no_grad():
        y = tiny_sketcher.model(torch.from_numpy(previous), None, torch.tensor([1])).numpy()
    state, fast = engine.read(engine.start(tiny_sketcher._condition(1, None, 1)), stroke5[:, :-1])
    assert np.abs(fast - y[:, :-1]).max() < 1e-4
    assert np.abs(engine.predict(state) - y[:, -1]).max() < 1e-4


@pytest.mark.parametrize("rows", [2, 3, 4, 5])
def test_reading_several_rows_equals_reading_each(engine, tiny_sketcher, half_cat, rows):
    stroke5 = rows_of(half_cat, tiny_sketcher.scale_factor)[None, :-1]
    points = np.concatenate([stroke5 * np.array([k, k, 1, 1, 1], dtype=np.float32) for k in range(1, rows + 1)])
    start = engine.start(np.concatenate([tiny_sketcher._condition(k % 3, None, 1) for k in range(rows)]))
    together, y = engine.read(start, points)
    for row in range(rows):
        alone, y_alone = engine.read(start.take([row]), points[row : row + 1])
        assert np.abs(y[row] - y_alone[0]).max() < 1e-4
        for got, expected in zip(together.take([row]), alone, strict=True):
            assert np.abs(got - expected).max() < 1e-5


def test_the_likeliest_size_lies_between_those_tried():
    logs = np.log2(prefix.SHARES)
    for share in (0.71, 0.6, 0.5):
        found = prefix.likeliest_share(-4.0 * (logs - np.log2(share)) ** 2)
        assert abs(np.log2(found / share)) <= 0.5 / prefix.SHARE_STEPS + 0.01
        assert prefix.SHARE_STEPS * np.log2(found) == pytest.approx(round(prefix.SHARE_STEPS * np.log2(found)))
    assert prefix.likeliest_share(logs) == 1.0
    assert prefix.likeliest_share(-logs) == 0.25


def test_reading_rows_of_different_lengths(engine, tiny_sketcher, half_cat):
    long = rows_of(half_cat, tiny_sketcher.scale_factor)[:-1]
    both = np.stack([long, long])
    start = engine.start(tiny_sketcher._condition(0, None, 2))
    together, _ = engine.read(start, both, np.array([7, len(long)]))
    for row, n in enumerate((7, len(long))):
        alone, _ = engine.read(start.take([row]), long[None, :n])
        for got, expected in zip(together.take([row]), alone, strict=True):
            assert np.abs(got - expected).max() < 1e-5


def plain_loop(sketcher, noise, heat, guidance=None):
    """The reference: torch, one point at a time, the whole past again at every step."""
    points = [strokes.START_TOKEN]
    factors = np.array([[1 / heat.pi, 1 / heat.pen, heat.sigma**0.5]], dtype=np.float32)
    low = sketcher.engine.min_log_sigma
    drawn = []
    for age, row in enumerate(noise):
        no_end = np.array([age == 0])
        with torch.no_grad():
            past = torch.from_numpy(np.stack(points)[None])
            y, any_y = (sketcher.model(past, None, torch.tensor([k]))[:, -1].numpy() for k in (2, 3))
        if guidance is None:
            offsets, pens = sample_point(y, row[None], factors, low, no_end)
        else:
            offsets, pens, _ = sample_guided(y, any_y, row[None], factors, low, guidance[None], no_end)
        pen = PEN_END if age + 1 == len(noise) else int(pens[0])
        drawn.append((*offsets[0].tolist(), pen))
        if pen == PEN_END:
            return drawn
        points.append(np.array([*offsets[0], pen == 0, pen == 1, 0], dtype=np.float32))
    return drawn


@pytest.mark.parametrize("guidance", [0.0, 3.0])
def test_sampling_equals_the_plain_loop(engine, tiny_sketcher, guidance):
    heat = temperatures(0.7)
    noise = [draw_noise(5, k, 40, CANDIDATES if guidance else 1) for k in range(4)]
    state, reference = tiny_sketcher.free_state("tree", 4), tiny_sketcher.free_state(None, 4)
    drawn = {k: [] for k in range(4)}
    for step in engine.sample(state, noise, [heat] * 4, reference=reference, guidance=guidance, allow_empty=False):
        for k, (dx, dy), pen in zip(step.rows, step.offsets, step.pens, strict=True):
            drawn[int(k)].append((float(dx), float(dy), int(pen)))
    weights = np.array([guidance, guidance * engines.PEN_GUIDANCE], dtype=np.float32) if guidance else None
    for k in range(4):
        expected = plain_loop(tiny_sketcher, noise[k], heat, weights)
        assert [pen for *_, pen in drawn[k]] == [pen for *_, pen in expected]
        assert np.allclose(np.array(drawn[k])[:-1], np.array(expected)[:-1], atol=1e-4)


def test_guidance_moves_towards_what_the_reference_does_not_expect():
    """Two equal components at -1 and 1; the reference expects the first one alone."""
    y = np.zeros((500, 3 + 6 * 2), dtype=np.float32)
    y[:, 5:7] = (-1.0, 1.0)  # μx
    y[:, 9:13] = -2.0  # log σ
    reference = y.copy()
    reference[:, 3:5] = (2.0, -2.0)
    noise = np.stack([draw_noise(0, k, 1, CANDIDATES)[0] for k in range(500)])
    heat = np.ones((500, 3), dtype=np.float32)
    shares = []
    for weight in (0.0, 1.0, 4.0):
        guidance = np.tile(np.array([weight, 0.0], dtype=np.float32), (500, 1))
        offsets, _, _ = sample_guided(y, reference, noise, heat, -5.0, guidance, np.zeros(500, dtype=bool))
        shares.append(float((offsets[:, 0] > 0).mean()))
    assert shares[0] == pytest.approx(0.5, abs=0.07)
    assert shares[0] + 0.2 < shares[1] < shares[2]
    assert shares[2] > 0.95


def test_guidance_does_not_choose_what_both_readers_think_impossible():
    """An end at 1e-4 for one and 1e-9 for the other is 1e5 times likelier, and still no end."""
    y = np.zeros((2000, 3 + 6 * 2), dtype=np.float32)
    y[:, :3] = np.log([0.6, 0.4, 1e-4])
    reference = y.copy()
    reference[:, :3] = np.log([0.4, 0.6, 1e-9])
    noise = np.stack([draw_noise(0, k, 1, CANDIDATES)[0] for k in range(len(y))])
    heat, guidance = np.ones((len(y), 3), dtype=np.float32), np.full((len(y), 2), 8.0, dtype=np.float32)
    _, pens, _ = sample_guided(y, reference, noise, heat, -5.0, guidance, np.zeros(len(y), dtype=bool))
    assert (pens == PEN_END).mean() < 0.005
    assert (pens == 0).mean() > 0.9, "what it does think possible is still moved"


def test_guided_rows_need_enough_noise(tiny_sketcher):
    state = tiny_sketcher.free_state("tree", 1)
    with pytest.raises(ValueError, match="candidates"):
        tiny_sketcher.engine.batch().add(
            state, [draw_noise(0, 0, 9)], [temperatures(0.5)], reference=state, guidance=1.0
        )


def test_rows_join_and_leave_without_disturbing_others(engine, tiny_sketcher):
    heat = temperatures(0.7)
    noise = [draw_noise(9, k, 30, CANDIDATES) for k in range(3)]
    guided = {"reference": tiny_sketcher.free_state(None, 1), "guidance": 2.0}
    alone = {}
    for k in range(3):
        options = guided if k == 0 else {}
        alone[k] = list(
            engine.sample(tiny_sketcher.free_state("cat" if k == 0 else None, 1), [noise[k]], [heat], **options)
        )
    batch = engine.batch()
    first = int(batch.add(tiny_sketcher.free_state("cat", 1), noise[:1], [heat], **guided)[0])
    assert batch.cell_rows == 2
    step = batch.step()
    got = {first: [(step.offsets[0], step.pens[0])]}
    rows = batch.add(tiny_sketcher.free_state(None, 2), noise[1:], [heat] * 2)
    batch.drop([rows[1]])
    while len(batch):
        step = batch.step()
        assert rows[1] not in step.rows
        for i, row in enumerate(step.rows):
            got.setdefault(int(row), []).append((step.offsets[i], step.pens[i]))
    for k, number in enumerate((first, int(rows[0]))):
        assert len(got[number]) == len(alone[k])
        for (offset, pen), expected in zip(got[number], alone[k], strict=True):
            assert pen == expected.pens[0]
            assert pen == PEN_END or np.allclose(offset, expected.offsets[0], atol=1e-4)


def test_a_crowds_room_is_given_back_when_all_have_left(tiny_sketcher):
    heat, noise = temperatures(0.7), [draw_noise(9, k, 30) for k in range(100)]
    batch = tiny_sketcher.engine.batch()
    everyone = batch.add(tiny_sketcher.free_state("cat", 100), noise, [heat] * 100)
    batch.drop(everyone[1:])
    assert batch._noise.values.nbytes >= 100 * noise[0].nbytes, "somebody is still drawing"
    batch.drop(everyone[:1])
    assert batch._noise.values.nbytes == 0
    batch.add(tiny_sketcher.free_state("cat", 1), noise[:1], [heat])
    for expected in tiny_sketcher.engine.sample(tiny_sketcher.free_state("cat", 1), noise[:1], [heat]):
        step = batch.step()
        assert np.array_equal(step.offsets, expected.offsets) and step.pens == expected.pens
    assert not len(batch)


def same(a, b, tolerance=1e-3):
    assert [len(stroke) for stroke in a] == [len(stroke) for stroke in b]
    assert all(np.allclose(x, y, atol=tolerance) for x, y in zip(a, b, strict=True))


def test_same_seed_same_endings_alone_and_in_a_batch(tiny_sketcher, half_cat):
    many = tiny_sketcher.complete(half_cat, "cat", n=5, seed=4)
    same(many[0], tiny_sketcher.complete(half_cat, "cat", n=1, seed=4)[0])
    for a, b in zip(many, tiny_sketcher.complete(half_cat, "cat", n=5, seed=4), strict=True):
        same(a, b, 0.0)
    other = tiny_sketcher.complete(half_cat, "cat", n=5, seed=5)
    assert any(len(a) != len(b) or not np.array_equal(a[0], b[0]) for a, b in zip(many, other, strict=True))


def test_streaming_gives_what_collecting_gives(tiny_sketcher, half_cat):
    for kind, drawing in (("complete", half_cat), ("vary", half_cat), ("draw", None)):
        options = {"category": "dog", "n": 3, "seed": 1}
        rows = [row for new in tiny_sketcher.stream(kind, drawing, **options) for row in new]
        whole = getattr(tiny_sketcher, kind)(*([drawing] if drawing else []), **options)
        for k in range(3):
            assert [row.pen for row in rows if row.k == k][-1] == 2
            points = [(row.x, row.y) for row in rows if row.k == k and row.pen != 2]
            assert np.allclose(np.concatenate(whole[k]), points)


def test_completion_starts_at_the_pen(tiny_sketcher, half_cat):
    for ending in tiny_sketcher.complete(half_cat, n=6, pen_down=True):
        assert ending[0][0].tolist() == half_cat[-1][-1].tolist()


def test_endings_move_and_scale_with_the_drawing(tiny_sketcher, half_cat):
    plain = tiny_sketcher.complete(half_cat, "cat", n=3)
    moved = tiny_sketcher.complete([stroke * 2.5 + [100, -40] for stroke in half_cat], "cat", n=3)
    for a, b in zip(plain, moved, strict=True):
        same([stroke * 2.5 + [100, -40] for stroke in a], b, 0.05)


def test_another_temperature_or_seed_does_not_read_the_start_again(tiny_sketcher, half_cat):
    drawing = [stroke + 3.0 for stroke in half_cat]
    tiny_sketcher.complete(drawing, n=1)
    steps = tiny_sketcher.engine.prefix_steps
    tiny_sketcher.complete(drawing, n=9, temperature=0.9, seed=8)
    assert tiny_sketcher.engine.prefix_steps == steps


def test_variations_fit_the_drawing_and_free_ones_the_frame(tiny_sketcher, half_cat):
    x0, y0, x1, y1 = strokes.bounds(half_cat)
    for drawing in tiny_sketcher.vary(half_cat, n=4):
        a0, b0, a1, b1 = strokes.bounds(drawing)
        assert max(a1 - a0, b1 - b0) <= max(x1 - x0, y1 - y0) + 1e-6
        assert ((a0 + a1) / 2, (b0 + b1) / 2) == pytest.approx(((x0 + x1) / 2, (y0 + y1) / 2))
    for drawing in tiny_sketcher.draw("cat", n=4, size=100):
        assert strokes.longest_side(drawing) == pytest.approx(100)


def test_nats_equal_the_losses_by_hand(tiny_sketcher):
    square = [np.array([[0, 0], [255, 0], [255, 255], [0, 255.0]]), np.array([[50, 50], [90, 90.0]])]
    whole, half = tiny_sketcher.nats([square], "dog"), tiny_sketcher.nats([square], "dog", given=0.5)
    assert whole[0, 1] == 6 and half[0, 1] == 4  # five offsets and the end; 5 // 2 are given
    stroke5 = rows_of(square, 30.0)
    engine = tiny_sketcher.engine
    _, y = engine.read(engine.start(tiny_sketcher._condition(1, None, 1)), stroke5[None])
    from sketch_core import losses

    steps = losses.step_losses(torch.from_numpy(y), torch.from_numpy(stroke5[None]), torch.tensor([5]), min_sigma=0.01)
    expected = float(steps.offset.sum() + steps.pen.sum()) + 5 * 2 * np.log(30.0)
    assert whole[0, 0] == pytest.approx(expected, rel=1e-5)
    mixed = tiny_sketcher.nats([square, square[:1]], ["dog", None])
    assert mixed[0] == pytest.approx(whole[0], rel=1e-5)


@pytest.mark.parametrize(
    "bad", [[], [np.full((3, 2), np.nan)], [np.zeros((3, 5, 2))], [np.zeros((50_000, 2))], "cat", [["a"]]]
)
def test_bad_drawings_are_one_sentence(tiny_sketcher, bad):
    with pytest.raises(strokes.DrawingError) as error:
        tiny_sketcher.complete(bad)
    assert str(error.value).count(". ") == 0


def test_bad_settings(tiny_sketcher, half_cat):
    with pytest.raises(CategoryError, match="cat"):
        tiny_sketcher.draw("catt")
    for wrong in ({"n": 0}, {"n": True}, {"seed": -1}, {"seed": 1.5}, {"temperature": float("nan")}, {"rule": "x"}):
        with pytest.raises(ValueError):
            tiny_sketcher.draw(**wrong)


def test_a_single_dot_can_be_completed(tiny_sketcher):
    for dot in ([np.array([[10.0, 10.0]])], [np.array([[10.0, 10.0]] * 3)]):
        assert len(tiny_sketcher.complete(dot, n=2)) == 2
        assert len(tiny_sketcher.vary(dot, n=2)) == 2


def test_the_best_of_several_is_the_one_that_gained_most_a_step(tiny_sketcher):
    candidates = tiny_sketcher.draw("dog", n=6, seed=4, guidance=4.0, best_of=1)
    noise = [draw_noise(4, k, tiny_sketcher.source.n_max, CANDIDATES) for k in range(6)]
    gains, steps = np.zeros(6), np.zeros(6)
    for step in tiny_sketcher.engine.sample(
        tiny_sketcher.free_state("dog", 6),
        noise,
        [temperatures(0.4)] * 6,
        reference=tiny_sketcher.free_state(None, 6),
        guidance=4.0,
        allow_empty=False,
    ):
        gains[step.rows] += step.gains
        steps[step.rows] += 1
    gains /= steps + SETTLING
    chosen = tiny_sketcher.draw("dog", n=2, seed=4, best_of=3, guidance=4.0)
    assert len(chosen) == 2
    for slot in range(2):
        same(chosen[slot], candidates[3 * slot + int(gains[3 * slot : 3 * slot + 3].argmax())])


def log_p(sketcher, rows, category):
    """log p(drawing | category) without z, one drawing by itself."""
    target = strokes.to_stroke5(rows)[None]
    previous = np.concatenate([np.asarray(strokes.START_TOKEN)[None, None], target[:, :-1]], axis=1)
    label = torch.tensor([sketcher.category_index(category)])
    with torch.inference_mode():
        y = sketcher.model(torch.from_numpy(previous.astype(np.float32)), None, label)
        steps = losses.step_losses(
            y, torch.from_numpy(target), torch.tensor([len(rows)]), min_sigma=sketcher.model.config.min_sigma
        )
    return -float(steps.offset.sum() + steps.pen.sum())


@pytest.mark.parametrize("category", [None, "dog"])
def test_the_best_of_several_variations_is_like_the_original_and_of_its_category(tiny_sketcher, half_cat, category):
    """Of the three of six whose μ is nearest to the original's, the likeliest dog; without a category the nearest."""
    unit = tiny_sketcher.scale_factor / strokes.fit_frame(half_cat).scale
    for guidance, seed in ((0.0, 5), (4.0, 5), (4.0, 6), (4.0, 7)):
        options = {"category": category, "n": 1, "seed": seed, "temperature": 0.8, "guidance": guidance, "spread": 0.0}
        every = tiny_sketcher.prepare("vary", half_cat, best_of=6, **options)
        every.best_of = 1  # all six, as they come
        for k, pen in enumerate(every._pens):
            pen.k, pen.plan.box = k, None
        rows = [[] for _ in range(6)]
        for step in tiny_sketcher.engine.sample(
            every.state,
            every.noise,
            every.temperatures,
            reference=every.reference,
            guidance=guidance,
            allow_empty=False,
        ):
            for k, (dx, dy), pen in zip(step.rows, step.offsets, step.pens, strict=True):
                if pen != PEN_END:
                    rows[k].append((dx, dy, pen == 1))
        stroke3 = [np.array(item, dtype=np.float32) for item in rows]
        unscaled = [item * np.array([tiny_sketcher.scale_factor] * 2 + [1], dtype=np.float32) for item in stroke3]
        mu = np.concatenate([tiny_sketcher._encode([item], tiny_sketcher.scale_factor)[0] for item in unscaled])
        distances = ((mu - tiny_sketcher.encode([half_cat])[0]) ** 2).sum(axis=1)
        near = sorted(range(6), key=lambda k: distances[k])[: 6 if category is None else 3]
        if category is not None:
            near.sort(key=lambda k: log_p(tiny_sketcher, stroke3[k], None) - log_p(tiny_sketcher, stroke3[k], category))
        (chosen,) = tiny_sketcher.vary(half_cat, best_of=6, **options)
        best = np.array(rows[near[0]])
        drawn = np.concatenate(chosen)
        moved = np.diff(drawn, axis=0)
        expected = best[:, :2] * unit
        assert len(drawn) == len(best) + 1 and np.ptp(distances) > 0
        scale = np.abs(moved).max() / np.abs(expected).max()  # it is shrunk into the original's place
        np.testing.assert_allclose(moved, expected * scale, atol=1e-3 * unit)


def test_gains_are_the_log_ratio_of_the_two_readers(tiny_sketcher):
    """Summed over a drawing: what the network's own likelihoods with and without the category say."""
    noise = [draw_noise(8, 0, tiny_sketcher.source.n_max, CANDIDATES)]
    start, reference = tiny_sketcher.free_state("tree", 1), tiny_sketcher.free_state(None, 1)
    rows, total = [], 0.0
    for step in tiny_sketcher.engine.sample(
        start, noise, [temperatures(0.4)], reference=reference, guidance=2.0, allow_empty=False
    ):
        total += float(step.gains[0])
        if step.pens[0] != PEN_END:
            rows.append((*step.offsets[0], step.pens[0] == 0, step.pens[0] == 1, 0))
    rows.append((0, 0, 0, 0, 1))
    target = torch.tensor(np.array([rows], dtype=np.float32))
    previous = torch.cat([torch.from_numpy(strokes.START_TOKEN)[None, None], target[:, :-1]], dim=1)
    with torch.no_grad():
        nats = [
            sum(
                part.sum()
                for part in losses.step_losses(
                    tiny_sketcher.model(previous, None, torch.tensor([label])),
                    target,
                    torch.tensor([len(rows) - 1]),
                    min_sigma=0.01,
                )
            )
            for label in (2, 3)
        ]
    assert total == pytest.approx(float(nats[1] - nats[0]), abs=1e-3)


def test_best_of_is_checked(tiny_sketcher, half_cat):
    for wrong in (0, 17, True, 2.0):
        with pytest.raises(ValueError, match="best_of"):
            tiny_sketcher.draw("cat", best_of=wrong)
    with pytest.raises(ValueError, match="best_of"):
        tiny_sketcher.prepare("complete", half_cat, best_of=2)


def test_one_more_stroke_costs_its_own_points_only(tiny_sketcher):
    head = np.array([[100, 200], [110, 120], [200, 90], [290, 130], [300, 220], [210, 300], [120, 260.0]])
    eye, mouth = np.array([[150, 150], [160, 155.0]]), np.array([[150, 220], [200, 240], [250, 220.0]])
    engine, reader = tiny_sketcher.engine, tiny_sketcher.reader
    reader.read([head], 1)
    before = engine.prefix_steps
    drawn_on = reader.read([head, eye], 1)
    cost = engine.prefix_steps - before
    assert 0 < cost <= (len(prefix.SHARES) + 2) * len(eye)
    reader.read([head, eye, mouth], 1)
    undone = engine.prefix_steps
    assert reader.read([head, eye], 1) is drawn_on  # undo
    assert engine.prefix_steps == undone
    fresh = Sketcher(tiny_sketcher.source)
    expected = fresh.reader.read([head, eye], 1)
    assert expected.share == drawn_on.share and expected.scale == drawn_on.scale
    for got, wanted in zip(drawn_on.state, expected.state, strict=True):
        assert np.allclose(got, wanted, atol=1e-5)


def test_an_unfinished_stroke_is_not_taken_for_a_finished_one(tiny_sketcher):
    line = [np.array([[0, 0], [80, 10], [90, 90.0]])]
    down = tiny_sketcher.reader.read(line, 0, pen_down=True)
    up = Sketcher(tiny_sketcher.source).reader.read(line, 0)
    again = tiny_sketcher.reader.read(line, 0)
    assert not np.allclose(down.state.previous, up.state.previous)
    assert np.allclose(again.state.h, up.state.h, atol=1e-6)
