"""Magenta's published models: the same parameters as @magenta/sketch gives for them, and clean refusals."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sketch_core import Sketcher, checkpoint, magenta, mixture, strokes
from sketch_core.__main__ import main
from sketch_core.engine import State
from sketch_core.magenta import MagentaError

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
TINY = FIXTURES / "tiny.gen.json"
REFERENCE = json.loads((FIXTURES / "magenta.json").read_text(encoding="utf-8"))


def parameters_equal(path, expected):
    source = magenta.load(path)
    sketcher = Sketcher(source)
    rows = np.array(REFERENCE["strokes"], dtype=np.float32)  # in the model's own pixels
    rows[:, :2] /= source.training["scale_factor"]
    start = sketcher.engine.start(np.zeros((1, 0), dtype=np.float32))
    # The reference reads its first row as it stands.
    start = State(start.h, start.c, start.constant, rows[:1], start.place)
    _, y = sketcher.engine.read(start, np.concatenate([rows[1:], rows[:1]])[None])
    got = mixture.split(torch.from_numpy(y[0]), 0.0)
    for name, value in {
        "pi": got.log_pi.exp(),
        "mu_x": got.mu_x,
        "mu_y": got.mu_y,
        "sigma_x": got.log_sigma_x.exp(),
        "sigma_y": got.log_sigma_y.exp(),
        "rho": got.rho,
        "pen": torch.softmax(got.pen_logits, dim=1),
    }.items():
        place = ["pi", "mu_x", "mu_y", "sigma_x", "sigma_y", "rho", "pen"].index(name)
        wanted = np.array([step[place] for step in expected])
        if name.startswith("sigma"):
            wanted = wanted.clip(np.exp(mixture.MIN_LOG_SIGMA))  # ours is never less
        assert (np.abs(value.numpy() - wanted) < 1e-4 * np.maximum(1.0, np.abs(wanted))).all(), name


def test_parameters_are_those_of_magenta_sketch():
    parameters_equal(TINY, REFERENCE["tiny"])


def test_parameters_of_a_published_model(shared_data):
    parameters_equal(shared_data / "magenta" / "ant.gen.json", REFERENCE["ant"])


def test_a_published_model_draws_and_finishes(shared_data, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DUET_CHECKPOINTS", str(tmp_path))
    assert main(["checkpoints", "import", str(shared_data / "magenta" / "ant.gen.json"), "--to", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip().endswith("magenta-ant-gen")
    source = checkpoint.load(tmp_path / "magenta-ant-gen")
    exact = magenta.load(shared_data / "magenta" / "ant.gen.json")
    assert all((source.weights[name] == exact.weights[name]).all() for name in exact.weights), "nothing is rounded"
    sketcher = Sketcher(source)
    drawings = sketcher.draw(temperature=0.4, n=4, size=200, rule="demos")
    assert all(len(drawing) and strokes.longest_side(drawing) == pytest.approx(200, abs=1) for drawing in drawings)
    endings = sketcher.complete(drawings[0][:1], n=3)
    assert len(endings) == 3
    assert set(sketcher.lacks) == {"vary", "blend", "guess"}
    with pytest.raises(ValueError, match="no encoder"):
        sketcher.vary(drawings[0])
    assert 0.3 < source.epsilon < 2.0, "Magenta's points lie closer together"


def vae(size=5, encoder=4, z=3, seed=0):
    generator = np.random.default_rng(seed)
    shapes = [[5, 4 * encoder], [encoder, 4 * encoder], [4 * encoder]] * 2
    shapes += [[2 * encoder, z], [z]] * 2 + [[z, 2 * size], [2 * size]]
    shapes += [[size, 123], [123], [5 + z, 4 * size], [size, 4 * size], [4 * size]]
    arrays = [(generator.normal(size=shape) * 0.4 * 3276.7).astype("<i2") for shape in shapes]
    info = {"mode": 0, "version": 6, "max_seq_len": 30, "name": "tiny", "scale_factor": 40.0}
    return [info, shapes, [base64.b64encode(array.tobytes()).decode() for array in arrays]], arrays


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def plain_cell(x, h, c, weights):
    """sketch_rnn.js's LSTM, in its own words."""
    w_xh, w_hh, bias = weights
    i, g, f, o = np.split(x @ w_xh + h @ w_hh + bias, 4)
    c = c * sigmoid(f + 1.0) + np.tanh(g) * sigmoid(i)
    return np.tanh(c) * sigmoid(o), c


def test_a_vae_encodes_and_decodes_as_in_the_demos(tmp_path):
    model, raw = vae()
    file = tmp_path / "tiny.vae.json"
    file.write_text(json.dumps(model))
    source = magenta.load(file)
    arrays = [array.astype(np.float64) * 10 / 32767 for array in raw]
    sequence = np.array([[0.4, 0.1, 1, 0, 0], [0.2, -0.5, 0, 1, 0], [-0.3, 0.2, 1, 0, 0]])
    ends = []
    for begin, points in ((0, sequence), (3, sequence[::-1])):
        h = c = np.zeros(4)
        for point in points:
            h, c = plain_cell(point, h, c, arrays[begin : begin + 3])
        ends.append(h)
    mu = np.concatenate(ends) @ arrays[6] + arrays[7]
    presig = np.concatenate(ends) @ arrays[8] + arrays[9]
    network = source.model()
    with torch.no_grad():
        got_mu, got_sigma = network.encode(torch.from_numpy(sequence[None]).float(), torch.tensor([3]))
    assert np.abs(got_mu[0].numpy() - mu).max() < 1e-4
    assert np.abs(got_sigma[0].numpy() - presig).max() < 1e-4, "σ = sqrt(exp(presig)) = exp(σ̂ / 2)"
    c, h = np.split(np.tanh(mu @ arrays[10] + arrays[11]), 2)
    h, c = plain_cell(np.concatenate([[0, 0, 1, 0, 0], mu]), h, c, arrays[14:])
    y = h @ arrays[12] + arrays[13]
    sketcher = Sketcher(source)
    state = sketcher.engine.start(sketcher._condition(0, mu[None].astype(np.float32), 1))
    assert np.abs(sketcher.engine.predict(state)[0] - y).max() < 1e-4
    checkpoint.save(source, tmp_path / "again", half=False)
    again = Sketcher(checkpoint.load(tmp_path / "again"))
    start = [np.array([[0, 0], [50, 10], [90, 60.0]])]
    assert again.source.needs_z and set(again.lacks) == {"guess"}
    assert len(again.vary(start, n=2)) == len(again.complete(start, n=2)) == len(again.draw(n=2)) == 2
    first, second = again.draw(n=2, seed=3)
    assert any(a.shape != b.shape or (a != b).any() for a, b in zip(first, second, strict=False)), "another z each"


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda model: model[0].update(version=5), "version"),
        (lambda model: model[0].update(scale_factor=0), "scale factor"),
        (lambda model: model[0].update(mode="other"), "kind"),
        (lambda model: model[2].pop(), "as many"),
        (lambda model: (model[1].pop(), model[2].pop()), "weight arrays"),
        (lambda model: model[2].__setitem__(0, "%%%"), "damaged"),
        (lambda model: model[2].__setitem__(0, model[2][1]), "damaged"),
        (lambda model: model[1].__setitem__(0, [-1, -738]), "damaged"),
        (lambda model: model[1].__setitem__(0, [123, 6]), "fit"),
        (lambda model: model.pop(), "information"),
    ],
)
def test_spoilt_files_are_refused(tmp_path, spoil, match):
    model = json.loads(TINY.read_text(encoding="utf-8"))
    spoil(model)
    (tmp_path / "bad.json").write_text(json.dumps(model))
    with pytest.raises(MagentaError, match=match):
        magenta.load(tmp_path / "bad.json")


@pytest.mark.parametrize("content", [b"", b"[", b"{}", b"[[[[", b"\xff\xfe", b"[" * 100_000, b"[1, 2, 3]"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "bad.json").write_bytes(content)
    with pytest.raises(MagentaError):
        magenta.load(tmp_path / "bad.json")
    with pytest.raises(MagentaError, match="cannot be read"):
        magenta.load(tmp_path / "missing.json")
