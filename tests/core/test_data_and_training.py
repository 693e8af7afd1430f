"""Reading drawings safely, batching, training, resuming."""

from __future__ import annotations

import http.server
import io
import json
import os
import pickle
import signal
import threading
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

import sketch_core
from sketch_core import device, download, evaluate, losses, quickdraw, render, strokes
from sketch_core.__main__ import main, write_sample_sheet
from sketch_core.model import SketchRNN, SketchRNNConfig, pen_positions
from sketch_core.train import TrainConfig, Trainer, TrainingError, choose_workers
from tests.conftest import TINY, write_npz


class Evil:
    def __reduce__(self):
        return (os.system, ("touch /tmp/duet_was_here",))


def npz_with(path, payload: bytes):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train.npy", header.getvalue() + payload)
    return path


def test_a_hostile_pickle_is_not_run(tmp_path):
    array = np.empty(1, dtype=object)
    array[0] = Evil()
    for payload in (pickle.dumps(array), pickle.dumps(Evil())):
        with pytest.raises(quickdraw.DataError, match=r"bad\.npz"):
            quickdraw.read_npz(npz_with(tmp_path / "bad.npz", payload))
    assert not os.path.exists("/tmp/duet_was_here")


def test_damaged_and_odd_files(tmp_path):
    good = write_npz(tmp_path / "cat.npz").read_bytes()
    (tmp_path / "short.npz").write_bytes(good[: len(good) // 2])
    (tmp_path / "text.npz").write_text("not a zip")
    odd = np.empty(1, dtype=object)
    odd[0] = np.zeros((3, 4))
    np.savez(tmp_path / "odd.npz", train=odd)
    np.savez(tmp_path / "other.npz", something=np.zeros(3))
    for name in ("short", "text", "odd", "other", "missing"):
        with pytest.raises(quickdraw.DataError, match=name):
            quickdraw.read_npz(tmp_path / f"{name}.npz")


def test_official_layout_in_raw_pixels_becomes_canonical(tmp_path):
    drawing = [np.array([[0, 0], [700, 3], [1400, 0], [1400, 700.0]])]
    rows = np.vstack([[[0, 0, 0]], strokes.to_stroke3(drawing)]).astype(np.int16)
    splits = {}
    for split in quickdraw.SPLITS:
        splits[split] = np.empty(1, dtype=object)
        splits[split][0] = rows
    np.savez(tmp_path / "cat.npz", **splits)
    loaded = quickdraw.load_sets(tmp_path)["train"].stroke3[0]
    assert loaded.tolist() == [[255, 0, 0], [0, 127.5, 1]]  # one point was within 2 units of the line


def test_both_ndjson_forms(tmp_path):
    simplified = {"word": "cat", "key_id": "1", "recognized": True, "drawing": [[[0, 255], [0, 255]], [[3], [4]]]}
    unrecognised = simplified | {"recognized": False}
    lines = [json.dumps(simplified | {"key_id": str(i)}) for i in range(40)] + [json.dumps(unrecognised)]
    (tmp_path / "cat.simplified.ndjson").write_text("\n".join(lines))
    sets = quickdraw.load_sets(tmp_path)
    assert sets["train"].categories == ["cat"] and sum(map(len, sets.values())) == 40
    raw = simplified | {"drawing": [[[10.5, 900.25, 900.25], [0, 700, 0], [0, 120, 130]]]}
    (tmp_path / "cat.simplified.ndjson").write_text(json.dumps(raw))
    rows = [item for split in quickdraw.load_sets(tmp_path).values() for item in split.stroke3]
    assert np.hypot(*rows[0][0, :2]) > 255 and max(abs(rows[0][0, :2])) == pytest.approx(255)
    (tmp_path / "cat.simplified.ndjson").write_text('{"drawing": 3}')
    with pytest.raises(quickdraw.DataError, match="line 1"):
        quickdraw.load_sets(tmp_path)


def test_the_real_files(shared_data):
    sets = quickdraw.load_sets(shared_data / "quickdraw", ["cat"])
    assert [len(sets[split]) for split in quickdraw.SPLITS] == [3970, 250, 250]
    for name in ("cat.simplified.ndjson", "camouflage.raw.ndjson"):
        items = [i for s in quickdraw.load_sets(shared_data / "formats" / name).values() for i in s.stroke3]
        sides = [strokes.longest_side(strokes.from_stroke3(item)) for item in items]
        assert len(items) >= 10 and 250 < np.median(sides) < 256
    assert len(quickdraw.load_sets(shared_data / "formats" / "omniglot.npz", limit=5)["train"]) == 5


def tiny_set(tmp_path, **names):
    for seed, (name, n) in enumerate((names or {"cat": 40, "dog": 4}).items()):
        write_npz(tmp_path / f"{name}.npz", n, seed)
    return quickdraw.load_sets(tmp_path)


def test_batches_are_repeatable_balanced_and_sound(tmp_path):
    train = tiny_set(tmp_path)["train"]
    settings = {"power": 0.0, "augmentation": quickdraw.Augmentation(point_dropout=0.3), "seed": 7}
    a, b = (quickdraw.BatchSampler(train, 8, 30.0, **settings) for _ in range(2))
    labels = []
    for step in (130, 0, 1, 64):
        assert (a[step].target == b[step].target).all()
    for step in range(64):
        batch = a[step]
        labels += batch.labels.tolist()
        assert (batch.target[..., 2:].sum(-1) == 1).all()
        for rows, n in zip(batch.target, batch.lengths, strict=True):
            assert (rows[n:, 4] == 1).all() and (rows[:n, 4] == 0).all() and rows[n - 1, 3] == 1
            assert rows[:n, 3].sum() == 2  # both strokes are still there
        assert (batch.previous[:, 0] == strokes.START_TOKEN).all()
    assert np.mean(labels) == pytest.approx(0.5, abs=0.08)  # power 0: as many of four as of forty


def test_strokes_that_slipped_are_followed_by_what_belongs():
    rows = np.array([[3, 0, 0], [0, 3, 1], [10, 0, 0], [1, 1, 1], [5, 5, 0], [2, 2, 1]], dtype=np.int16)
    slipping = quickdraw.Augmentation(0, 0, 0, 0, 0, drift=4.0, drift_share=1.0)
    batch = quickdraw.collate([rows, rows[:2]], np.zeros(2, int), 1.0, augmentation=slipping)
    assert (batch.drawing[0, :6, :2] == rows[:, :2]).all()  # the encoder sees the drawing as it is
    place, slipped = rows[:, :2].cumsum(axis=0), batch.previous[0, 1:, :2].cumsum(axis=0)
    assert slipped - place == pytest.approx(batch.drift[0, :6], abs=1e-5)
    assert (batch.drift[0, :2] == 0).all() and (batch.drift[1, :2] == 0).all()  # the first stroke stays
    assert (batch.drift[0, 2] == batch.drift[0, 3]).all() and (batch.drift[0, 2] != batch.drift[0, 4]).all()
    within, starts = [0, 1, 3, 5], [2, 4]
    assert (batch.target[0, within, :2] == rows[within, :2]).all()  # shapes are asked for as they are
    before = np.vstack([[0, 0], slipped])[starts]
    assert before + batch.target[0, starts, :2] == pytest.approx(
        place[starts], abs=1e-5
    )  # next strokes where they belong


def test_changes_of_a_drawing_are_told():
    rows = [np.array([[30, 0, 0], [0, 40, 1]], dtype=np.int16)] * 400
    changing = quickdraw.Augmentation(scale=0.2, stretch=0.0, rotate=0.0, shear=0.0, mirror=0.5, share=0.5)
    batch = quickdraw.collate(rows, np.zeros(400, int), 1.0, augmentation=changing, generator=np.random.default_rng(0))
    same = (batch.changes == 0).all(axis=1)
    assert same.mean() == pytest.approx(0.5, abs=0.08)
    assert (batch.drawing[same, 1, 1] == 40).all() and (batch.drawing[~same, 1, 1] != 40).mean() > 0.99
    assert np.log(batch.drawing[:, 1, 1] / 40) * 10 == pytest.approx(batch.changes[:, 0], abs=1e-4)
    mirrored = batch.changes[:, 4] == 1
    assert mirrored.any() and ((batch.drawing[:, 0, 0] < 0) == mirrored).all()


def test_what_tells_changes_is_used_and_resumed(tmp_path):
    told = {"tell_changes": True, "mirror": 0.5, "steps": 6}
    whole = Trainer(config(tmp_path, out=str(tmp_path / "whole"), **told))
    for _ in range(6):
        whole.train_step()
    assert whole.changes is not None and whole.changes[2].weight.abs().max() > 0
    first = Trainer(config(tmp_path, **told))
    for _ in range(3):
        first.train_step()
    first.save_state()
    second = Trainer(config(tmp_path, **told))
    assert second.resume()
    for _ in range(3):
        second.train_step()
    assert torch.equal(second.changes[2].weight, whole.changes[2].weight)
    assert not any(name.startswith("changes") for name in second.checkpoint().weights)


def test_dropping_points_keeps_the_path():
    rows = np.array([[5, 0, 0], [5, 1, 0], [5, 2, 0], [5, 3, 1], [1, 1, 0], [2, 2, 1]], dtype=np.int16)
    thin = quickdraw.drop_points(rows, 0.999, np.random.default_rng(0))
    assert thin[:, :2].sum(axis=0).tolist() == rows[:, :2].sum(axis=0).tolist()
    assert thin[:, 2].sum() == 2 and len(thin) < len(rows)


def test_encoder_reads_each_row_to_its_own_end(tiny_model):
    generator = torch.Generator().manual_seed(0)
    stroke5 = torch.randn(3, 9, 5, generator=generator)
    lengths = torch.tensor([9, 4, 1])
    encoder = tiny_model.encoder
    both = nn.LSTM(5, 8, batch_first=True, bidirectional=True)
    for name, parameter in encoder.forward_lstm.named_parameters():
        dict(both.named_parameters())[name].data.copy_(parameter.data)
        dict(both.named_parameters())[name + "_reverse"].data.copy_(
            dict(encoder.backward_lstm.named_parameters())[name]
        )
    packed = nn.utils.rnn.pack_padded_sequence(stroke5, lengths, batch_first=True)
    with torch.no_grad():
        h = both(packed)[1][0]
        mu, sigma_hat = tiny_model.encode(stroke5, lengths)
        expected = torch.cat([h[0], h[1]], dim=-1)
        assert torch.allclose(mu, encoder.mu(expected), atol=1e-5)
        stroke5[1, 4:], stroke5[2, 1:] = 7.0, -7.0
        again, _ = tiny_model.encode(stroke5, lengths)
    assert torch.equal(mu, again) and sigma_hat.shape == (3, 6)


def test_pen_positions_against_a_plain_loop():
    generator = np.random.default_rng(1)
    rows = np.column_stack([generator.normal(size=(12, 2)), generator.random(12) < 0.3]).astype(np.float32)
    previous = np.concatenate([strokes.START_TOKEN[None], strokes.to_stroke5(rows, end=False)])
    place, start, lifted, expected = np.zeros(2), np.zeros(2), False, []
    for row in previous:
        place = place + row[:2]
        if lifted:
            start = place
        lifted = row[3] > 0.5
        expected.append([*place, *(place - start)])
    got = pen_positions(torch.from_numpy(previous)[None])[0].numpy() / 0.25
    assert np.allclose(got, expected, atol=1e-5)


def test_decoder_only_has_zero_state():
    model = SketchRNN(SketchRNNConfig.paper(decoder_only=True))
    assert model.encoder is None and model.category is None and model.config.output_size == 123
    h, c = model.decoder.initial_state(torch.zeros(2, 0))
    assert not h.any() and not c.any()
    with pytest.raises(ValueError, match="no encoder"):
        model.encode(torch.zeros(1, 2, 5), torch.tensor([2]))


def config(tmp_path, **changes):
    tiny_set(tmp_path / "data") if (tmp_path / "data").mkdir(exist_ok=True) is None else None
    settings = {
        "data": str(tmp_path / "data"), "out": str(tmp_path / "run"), "minutes": 0.0, "steps": 20, "batch_size": 4,
        "warmup_steps": 2, "threads": 1, "device": "cpu", "architecture": TINY,
    }  # fmt: skip
    return TrainConfig(**(settings | changes))


def test_training_learns_and_resumes_exactly(tmp_path):
    straight = Trainer(config(tmp_path, out=str(tmp_path / "a"), steps=60))
    before = straight.validate()["nats_free"]
    straight.run()
    assert straight.validate()["nats_free"] < before - 0.5

    first = Trainer(config(tmp_path, out=str(tmp_path / "b"), steps=60))
    for _ in range(25):
        first.train_step()
    first.save_state()
    second = Trainer(config(tmp_path, out=str(tmp_path / "b"), steps=60))
    assert second.resume() and second.step == 25
    second.run()
    for a, b in zip(straight.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(straight.average, second.average, strict=True):
        assert torch.equal(a, b)
    (tmp_path / "b" / "state.pt").write_bytes(b"damaged")
    with pytest.raises(TrainingError, match="damaged"):
        Trainer(config(tmp_path, out=str(tmp_path / "b"))).resume()


def test_batches_prepared_elsewhere_are_the_same(tmp_path):
    alone, helped = (
        Trainer(config(tmp_path, out=str(tmp_path / str(workers)), steps=12, workers=workers)) for workers in (0, 2)
    )
    for _ in range(5):
        assert alone.train_step() == helped.train_step()
    helped.step = alone.step = 9  # as after resuming: what was prepared in advance is of no use
    assert alone.train_step() == helped.train_step()
    helped.run()
    assert helped.step == 12
    with pytest.raises(TrainingError, match="--workers"):
        config(tmp_path, workers=-2)


def test_workers_are_for_gpus_and_for_processes_that_share_the_drawings(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(3)), raising=False)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert choose_workers(5, cpu) == 5 and choose_workers(0, gpu) == 0
    assert choose_workers(-1, cpu) == 0
    monkeypatch.setattr("multiprocessing.get_start_method", lambda: "fork")
    assert choose_workers(-1, gpu) == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert choose_workers(-1, gpu) == 0
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    monkeypatch.setattr("multiprocessing.get_start_method", lambda: "spawn")
    assert choose_workers(-1, gpu) == 0


def test_precision_is_what_the_hardware_has(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(device, "_cpu_flags", lambda: "flags: avx2")
    assert device.choose_precision("auto", cpu) is None
    with pytest.raises(ValueError, match="bf16"):
        device.choose_precision("bf16", cpu)
    monkeypatch.setattr(device, "_cpu_flags", lambda: "flags: avx512_bf16")
    assert device.choose_precision("auto", cpu) is device.choose_precision("bf16", cpu) is torch.bfloat16
    assert device.choose_precision("fp32", cpu) is None


def test_nan_guard_names_the_step(tmp_path):
    trainer = Trainer(config(tmp_path))
    trainer.train_step()
    with torch.no_grad():
        trainer.model.decoder.output.bias[0] = float("nan")
    with pytest.raises(TrainingError, match="step 1"):
        trainer.train_step()


def test_ctrl_c_saves_and_stops(tmp_path):
    trainer = Trainer(config(tmp_path, steps=100_000))
    threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    trainer.run()
    assert 0 < trainer.step < 100_000
    assert (tmp_path / "run" / "state.pt").is_file() and (tmp_path / "run" / "last" / "weights.safetensors").is_file()


@pytest.mark.parametrize("decoder_only", [False, True])
def test_the_papers_setup_trains(tmp_path, decoder_only):
    small = {"encoder_size": 0 if decoder_only else 8, "z_size": 0 if decoder_only else 4, "category_size": 0}
    architecture = SketchRNNConfig(decoder_size=16, n_mixtures=3, positions=False, min_sigma=0.0, **small)
    base = config(tmp_path)
    paper = TrainConfig.paper(
        decoder_only=decoder_only, data=base.data, out=base.out, minutes=0.0, steps=3, batch_size=4
    )
    paper.architecture = architecture
    trainer = Trainer(paper)
    trainer.run()
    assert trainer.step == 3 and losses.kl_weight(0, paper.w_kl) == pytest.approx(0.005)


def test_evaluation_and_sketcher_agree(tmp_path, tiny_sketcher):
    drawings = tiny_set(tmp_path, cat=4, dog=4, tree=4)["test"]
    figures = evaluate.measure(tiny_sketcher.model, drawings).summary()
    names = [drawings.categories[label] for label in drawings.labels]
    nats = tiny_sketcher.nats([strokes.from_stroke3(rows) for rows in drawings.stroke3], names).sum(axis=0)
    assert figures["nats_free"] == pytest.approx(nats[0] / nats[1], abs=1e-4)


def test_training_without_cairo_draws_its_sheets_as_svg(tmp_path, monkeypatch):
    def missing(picture):
        raise render.CairoMissing("no cairo")

    monkeypatch.setattr(render, "_rasterise", missing)
    trainer = Trainer(config(tmp_path, steps=2), on_validate=[write_sample_sheet])
    trainer.run()
    sheets = list((tmp_path / "run" / "samples").iterdir())
    assert [sheet.suffix for sheet in sheets] == [".svg"] and sheets[0].read_text().startswith("<svg")


def test_the_command_line(tmp_path, capsys):
    data = tmp_path / "data"
    data.mkdir()
    tiny_set(data)
    run = str(tmp_path / "run")
    size = ["--decoder-size", "16", "--encoder-size", "8", "--z-size", "6", "--n-mixtures", "3", "--device", "cpu"]
    assert main(["train", "--data", str(data), "--out", run, "--steps", "5", "--batch-size", "4", *size]) == 0
    assert list((tmp_path / "run" / "samples").glob("*.png"))
    assert main(["evaluate", f"{run}/last", "--data", str(data), "--json", str(tmp_path / "figures.json")]) == 0
    assert {"nats_free", "nats_half", "l_r", "l_kl"} <= set(
        json.loads((tmp_path / "figures.json").read_text())["overall"]
    )
    start = tmp_path / "start.json"
    start.write_text("[[[0, 0], [50, 80], [90, 20]]]")
    for suffix, extra in (
        (".svg", []),
        (".png", ["--start", str(start)]),
        (".gif", []),
        (".json", ["--vary", str(start)]),
    ):
        out = tmp_path / f"picture{suffix}"
        assert main(["sample", "--checkpoint", f"{run}/last", "-n", "4", "--out", str(out), *extra]) == 0
        assert out.stat().st_size > 50
    out = tmp_path / "few.json"
    insist = ["--category", "cat", "--guidance", "2.5", "--best-of", "2", "-n", "2"]
    assert main(["sample", "--checkpoint", f"{run}/last", *insist, "--out", str(out)]) == 0
    drawn = sketch_core.load(f"{run}/last").draw("cat", n=2, guidance=2.5, best_of=2)
    got = [strokes.drawing_from_json(item) for item in json.loads(out.read_text())]
    assert [[len(stroke) for stroke in item] for item in got] == [[len(stroke) for stroke in item] for item in drawn]
    assert main(["sample", "--checkpoint", f"{run}/last", "--start", str(start), *insist, "--out", str(out)]) == 1
    assert "--best-of" in capsys.readouterr().err
    assert main(["data", "info", str(data)]) == 0
    assert main(["checkpoints", "show", f"{run}/last"]) == 0
    assert main(["sample", "--checkpoint", f"{run}/last", "--category", "unicorn", "--out", "x.svg"]) == 1
    assert "unicorn" in capsys.readouterr().err


class Files(http.server.BaseHTTPRequestHandler):
    body = bytes(range(256)) * 500
    cut = 0

    def do_GET(self):
        if "cat.npz" not in self.path:
            self.send_error(404)
            return
        begin = int(self.headers["Range"][6:-1]) if self.headers.get("If-Range") == '"v1"' else 0
        self.send_response(206 if begin else 200)
        self.send_header("ETag", '"v1"')
        self.send_header("Content-Length", str(len(self.body) - begin))
        self.end_headers()
        self.wfile.write(self.body[begin : Files.cut or None])

    def log_message(self, *args):
        pass


def test_downloads_go_on_are_checked_and_fail_clearly(tmp_path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}/"
    try:
        Files.cut = 50_000
        with pytest.raises(download.DownloadError):
            download.fetch("cat", folder=tmp_path, base_url=base)
        assert (tmp_path / "cat.npz.part").stat().st_size > 0
        Files.cut = 0
        path = download.fetch("cat", folder=tmp_path, base_url=base)
        assert path.read_bytes() == Files.body
        path.write_bytes(b"tampered")
        assert download.fetch("cat", folder=tmp_path, base_url=base).read_bytes() == Files.body
        with pytest.raises(download.DownloadError, match="404"):
            download.fetch("dog", folder=tmp_path, base_url=base)
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(download.DownloadError, match="without a network"):
        download.fetch("owl", folder=tmp_path, base_url=base)
    for wrong in ("unicorn", "../cat"):
        with pytest.raises(download.DownloadError, match="no category"):
            download.fetch(wrong, folder=tmp_path)


def test_changes_can_only_be_told_where_there_are_categories(tmp_path):
    alone = SketchRNNConfig(category_size=0, decoder_size=8, encoder_size=4, z_size=2, n_mixtures=2)
    with pytest.raises(TrainingError, match="--no-tell-changes"):
        Trainer(config(tmp_path, architecture=alone))
    Trainer(config(tmp_path, architecture=alone, tell_changes=False)).train_step()
