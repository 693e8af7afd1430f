"""New categories from a few drawings; the old ones stay."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch

import sketch_core
from sketch_core import checkpoint, fine_tune, mixture, quickdraw, strokes
from sketch_core.__main__ import main
from sketch_core.fine_tune import KEEPS, FineTuneConfig, FineTuner, divergence, divide, extend, read_words
from sketch_core.generate import Sketcher
from sketch_core.losses import step_losses
from sketch_core.model import SketchRNN, SketchRNNConfig
from sketch_core.train import TrainConfig, Trainer, TrainingError, hold_out
from tests.conftest import write_npz


def zigzag(k: int) -> list[list[list[int]]]:
    """A drawing unlike the square of ``write_npz``, as Quick, Draw! writes it."""
    xs = [0, 85, 170, 255]
    return [[xs, [(i % 2) * (120 + 3 * k) for i in range(4)]], [[10, 245], [250 - k, 255]]]


def lines(word: str, n: int, first: int = 0) -> list[str]:
    return [json.dumps({"word": word, "key_id": str(k), "drawing": zigzag(k)}) for k in range(first, first + n)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small network that has really learned two categories, so that there is something to forget."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "data").mkdir()
    for seed, name in enumerate(("box", "crate")):
        write_npz(folder / "data" / f"{name}.npz", 40, seed)
    architecture = SketchRNNConfig(category_size=8, encoder_size=16, decoder_size=48, z_size=8, n_mixtures=3)
    config = TrainConfig(
        data=str(folder / "data"), out=str(folder / "run"), minutes=0.0, steps=250, batch_size=8, warmup_steps=20,
        threads=1, device="cpu", precision="fp32", validate_minutes=100, architecture=architecture,
    )  # fmt: skip
    Trainer(config).run()
    return folder


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.ndjson"
    path.write_text("\n".join(lines("lightning", 30)))
    return path


def settings(trained, mine, **changes):
    given = {"data": str(mine), "out": str(mine.parent / "out"), "source": str(trained / "run" / "last")}
    given |= {"steps": 80, "batch_size": 8, "learning_rate": 2e-3, "embedding_rate": 2e-2, "rehearsal": 12}
    return FineTuneConfig(**(given | {"threads": 1, "precision": "fp32", "device": "cpu"} | changes))


def nats(network: checkpoint.Checkpoint, drawings: quickdraw.DrawingSet) -> float:
    names = [drawings.categories[label] for label in drawings.labels]
    found = Sketcher(network).nats([strokes.from_stroke3(rows) for rows in drawings.stroke3], names).sum(axis=0)
    return float(found[0] / found[1])


@pytest.mark.parametrize("keep", KEEPS)
def test_a_new_category_is_learned_and_the_old_ones_stay(trained, mine, keep):
    before = checkpoint.load(trained / "run" / "last")
    tuner = FineTuner(settings(trained, mine, keep=keep))
    after = tuner.run()
    assert after.categories == ["box", "crate", "lightning"]
    held = tuner.history
    assert held["after"]["nats_free"] < held["before"]["nats_free"] - (0.3 if keep == "embedding" else 0.8)

    for name in ("encoder.mu.weight", "encoder.forward_lstm.weight_hh_l0"):
        assert np.array_equal(after.weights[name], before.weights[name])
    table, old_table = after.weights["category.weight"], before.weights["category.weight"]
    assert np.array_equal(table[:2], old_table[:2]) and np.array_equal(table[3], old_table[2])
    decoder = [name for name in before.weights if name.startswith("decoder")]
    same = [np.array_equal(after.weights[name], before.weights[name]) for name in decoder]
    assert all(same) if keep == "embedding" else not any(same)

    if keep == "embedding":
        test = quickdraw.load_sets(trained / "data")["test"]
        assert nats(after, test) == pytest.approx(nats(before, test), abs=1e-5)


def test_rehearsal_is_what_keeps_them(trained, mine):
    test = quickdraw.load_sets(trained / "data")["test"]
    before = nats(checkpoint.load(trained / "run" / "last"), test)
    kept, lost = (nats(FineTuner(settings(trained, mine, keep=keep)).run(), test) for keep in ("distil", "nothing"))
    assert kept - before < 0.5 * (lost - before) and lost - before > 0.1, (before, kept, lost)


def test_it_is_repeatable(trained, mine):
    first, again = (FineTuner(settings(trained, mine, steps=6)).run() for _ in range(2))
    assert all(np.array_equal(first.weights[name], again.weights[name]) for name in first.weights)


def test_several_words_and_one_that_is_known(trained, tmp_path, caplog):
    path = tmp_path / "mine.ndjson"
    path.write_text("\n".join(lines("lightning", 8) + lines("box", 6, 40) + lines("wave", 7, 60)))
    with caplog.at_level(logging.INFO):
        tuner = FineTuner(settings(trained, path, steps=4))
    assert tuner.words == ["box", "lightning", "wave"] and tuner.categories == ["box", "crate", "lightning", "wave"]
    assert "6 drawings to learn from, 2 others" in caplog.text and "'box', which it knows" in caplog.text
    only = FineTuner(settings(trained, path, steps=4, categories=["wave"]))
    assert only.categories == ["box", "crate", "wave"] and set(only.train_set.labels) == {2}
    after = tuner.run()
    before = checkpoint.load(trained / "run" / "last").weights["category.weight"]
    assert np.array_equal(after.weights["category.weight"][1], before[1])
    assert not np.array_equal(after.weights["category.weight"][0], before[0]), "the known word's own row goes on"


def test_held_out_drawings_are_never_learned_from():
    rows = [strokes.to_stroke3([np.array([[0, 0], [255, k]], dtype=float)]) for k in range(30)]
    learned, held = divide({"train": [*rows, *rows]}, "line")
    assert len(learned) == 24 and len(held) == 6, "a fifth, and twins are one drawing"
    keys = [{item.tobytes() for item in part} for part in (learned, held)]
    assert not keys[0] & keys[1]
    learned, held = divide({"train": rows[:20], "valid": rows[15:25]}, "line")
    assert len(learned) == 20 and len(held) == 5, "a file's own validation drawings, but for those it also trains on"
    for few in ({"train": rows[:4]}, {"train": rows[:1] * 50}, {}, {"valid": rows}):
        with pytest.raises(TrainingError, match="better 30"):
            divide(few, "line")


def test_training_without_validation_drawings_holds_some_out(tmp_path, caplog):
    path = tmp_path / "mine.ndjson"
    keys = [k for k in range(100) if quickdraw._split_of(str(k)) == "train"][:6]
    path.write_text("\n".join(lines("lightning", 1, k)[0] for k in keys))
    assert len(quickdraw.load_sets(path)["train"]) == 6
    architecture = SketchRNNConfig(category_size=4, encoder_size=8, decoder_size=16, z_size=4, n_mixtures=2)
    config = TrainConfig(data=str(path), out=str(tmp_path / "run"), steps=1, minutes=0.0, architecture=architecture)
    with caplog.at_level(logging.INFO):
        trainer = Trainer(config)
    assert "1 of the training drawings are held out" in caplog.text
    held = {rows.tobytes() for rows in trainer.valid_set.stroke3}
    assert held and not held & {rows.tobytes() for rows in trainer.train_set.stroke3}
    one = quickdraw.DrawingSet(["a"], trainer.train_set.stroke3[:1] * 3, np.zeros(3, dtype=np.int64), "one.ndjson")
    with pytest.raises(TrainingError, match="at least two"):
        hold_out(one)


def test_words_and_files(trained, mine, tmp_path):
    words = read_words(mine)
    assert list(words) == ["lightning"] and len(words["lightning"]["train"]) == 30
    folder = tmp_path / "folder"
    folder.mkdir()
    write_npz(folder / "square.npz")
    (folder / "more.ndjson").write_text("\n".join(lines("lightning", 3) + lines("square", 2)))
    words = read_words(folder)
    assert {word: {split: len(rows) for split, rows in splits.items()} for word, splits in words.items()} == {
        "lightning": {"train": 3}, "square": {"train": 14, "valid": 4, "test": 4},
    }  # fmt: skip
    for word in ("", "  ", "x" * 61, "a\nb"):
        with pytest.raises(TrainingError, match="no name"):
            extend(checkpoint.load(trained / "run" / "last"), [word])
    with pytest.raises(TrainingError, match="'cat'; it has 'lightning'"):
        FineTuner(settings(trained, mine, categories=["cat"]))
    with pytest.raises(TrainingError, match="overwrite"):
        FineTuner(settings(trained, mine, out=str(trained / "run" / "last")))
    unconditional = SketchRNN(SketchRNNConfig.paper(decoder_only=True))
    with pytest.raises(TrainingError, match="without categories"):
        extend(checkpoint.Checkpoint.from_model(unconditional, []), ["cat"])


@pytest.mark.parametrize("wrong", [{"keep": "all"}, {"steps": 0}, {"learning_rate": 2.0}, {"weight": float("nan")},
                                   {"dropout": 1.0}, {"precision": "fp8"}])  # fmt: skip
def test_wrong_settings(wrong):
    with pytest.raises(TrainingError, match=f"--{next(iter(wrong)).replace('_', '-')}"):
        FineTuneConfig(**wrong)


def test_divergence_bounds_the_mean_loss_of_likelihood():
    """Against its definition, by Monte Carlo: KL(old || new) = E_old[log old - log new]."""
    generator = torch.Generator().manual_seed(0)
    old = torch.randn(1, 1, 6 * 2 + 3, generator=generator) * 0.5
    new = old + 0.2 * torch.randn(old.shape, generator=generator)
    assert divergence(old, old, 0.01).abs().max() < 1e-6
    n = 200_000
    parts = mixture.split(old[0, 0], 0.01)
    chosen = torch.multinomial(parts.log_pi.exp(), n, replacement=True, generator=generator)
    e = torch.randn(n, 2, generator=generator)
    rho = parts.rho[chosen]
    x = parts.mu_x[chosen] + parts.log_sigma_x[chosen].exp() * e[:, 0]
    y = parts.mu_y[chosen] + parts.log_sigma_y[chosen].exp() * (rho * e[:, 0] + (1 - rho**2).sqrt() * e[:, 1])
    pens = torch.multinomial(parts.pen_logits.softmax(-1), n, replacement=True, generator=generator)
    target = torch.cat([torch.stack([x, y], 1), torch.eye(3)[pens]], dim=1)[:, None]
    lengths = torch.ones(n, dtype=torch.long)
    log_p = [-sum(step_losses(z.expand(n, 1, -1), target, lengths, min_sigma=0.01, floor=0)) for z in (old, new)]
    kl = float((log_p[0] - log_p[1]).mean())
    bound = float(divergence(new, old, 0.01))
    assert 0.5 * bound < kl < bound * 1.02, (kl, bound)


def test_the_command(trained, mine, tmp_path, capsys):
    out = tmp_path / "with-lightning"
    common = ["train", "--from", str(trained / "run" / "last"), "--data", str(mine), "--out", str(out)]
    assert main([*common, "--steps", "5", "--batch-size", "4", "--device", "cpu", "--threads", "1"]) == 0
    said = capsys.readouterr().out
    assert "held-out drawings" in said and "old categories" in said
    sketcher = sketch_core.load(out)
    assert sketcher.categories == ["box", "crate", "lightning"] and sketcher.draw("lightning", n=1)
    assert (out / fine_tune.SHEET_FILE).read_bytes().startswith(b"\x89PNG")
    assert "taught lightning from 24 drawings" in (out / checkpoint.CARD_FILE).read_text()
    assert sketcher.info["training"]["from"] == "last"
    for wrong, word in (
        ([*common, "--minutes", "3"], "--minutes"), ([*common, "--decoder-size", "9"], "--decoder-size"),
        ([*common, "--paper"], "--paper"), (["train", "--data", str(mine), "--out", "x", "--keep", "distil"], "--keep"),
        ([*common[:2], "nobody", *common[3:]], "nobody"),
    ):  # fmt: skip
        assert main(wrong) == 1
        assert word in capsys.readouterr().err


def test_a_loss_that_is_not_finite_names_the_step(trained, mine):
    tuner = FineTuner(settings(trained, mine))
    with torch.no_grad():
        tuner.model.decoder.output.bias[0] = float("nan")
    with pytest.raises(TrainingError, match="step 0"):
        tuner.run()
