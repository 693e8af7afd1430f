"""Rare inputs that once went wrong, and pictures down to their numbers."""

from __future__ import annotations

import builtins
import dataclasses
import http.server
import io
import json
import threading
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from sketch_core import checkpoint, download, quickdraw, render, strokes
from sketch_core.model import SketchRNNConfig
from sketch_core.train import TrainConfig, Trainer, TrainingError
from tests.conftest import write_npz

COORDINATE = st.integers(-300, 300)
LINES = st.lists(st.tuples(COORDINATE, COORDINATE), min_size=3, max_size=40)

# ---------------------------------------------------------------------------------------------------
# Strokes


@settings(max_examples=100, deadline=None)
@given(LINES, st.floats(0.5, 30))
def test_simplified_lines_stay_near_their_pieces(points, epsilon):
    line = np.array(points, dtype=float)
    kept = strokes.rdp(line, epsilon)
    a, ab = kept[:-1], np.diff(kept, axis=0)
    for x in line:
        t = np.clip(((x - a) * ab).sum(1) / np.maximum((ab**2).sum(1), 1e-12), 0, 1)
        assert np.hypot(*(a + t[:, None] * ab - x).T).min() <= epsilon + 1e-6


def test_a_line_back_along_itself_keeps_its_far_end():
    assert strokes.rdp(np.array([[0, 0], [100, 0], [50, 0.0]]), 2.0).tolist() == [[0, 0], [100, 0], [50, 0]]


def test_a_drawing_too_small_to_see_has_a_finite_frame():
    drawing, frame = strokes.canonical(strokes.drawing_from_json([[[0, 0], [1e-320, 0]]]))
    assert frame.scale == 1.0 and all(np.isfinite(stroke).all() for stroke in drawing)


# ---------------------------------------------------------------------------------------------------
# Files of drawings


def test_raw_files_with_canonical_medians_are_converted(tmp_path):
    rows = np.empty(101, dtype=object)
    for i, side in enumerate(np.linspace(100, 400, 101).round()):
        x = np.linspace(0, side, 50)
        rows[i] = strokes.to_stroke3([np.column_stack([x.round(), np.zeros(50)]), np.array([[0, 9], [9, 9]])])
    np.savez(tmp_path / "cat.npz", train=rows)
    for item in quickdraw.load_sets(tmp_path)["train"].stroke3:
        assert strokes.longest_side(strokes.from_stroke3(item)) == pytest.approx(255, abs=0.01)
        assert len(item) == 3


def python2_array() -> bytes:
    """An object array of one int16 (2, 3) array as Python 2 pickled it: byte strings, numpy.core names."""
    rows = np.array([[200, -3, 0], [0, 255, 1]], dtype="<i2").tobytes()
    build = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    none = b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
    int16 = b"cnumpy\ndtype\nU\x02i2K\x00K\x01\x87R(K\x03U\x01<" + none + b"K\x00tb"
    objects = b"cnumpy\ndtype\nU\x02O8K\x00K\x01\x87R(K\x03U\x01|" + none + b"K?tb"
    inner = build + b"(K\x01K\x02K\x03\x86" + int16 + b"\x89U" + bytes([len(rows)]) + rows + b"tb"
    return b"\x80\x02" + build + b"(K\x01K\x01\x85" + objects + b"\x89]" + inner + b"atb."


def test_pickles_of_python_2_are_read(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    with zipfile.ZipFile(tmp_path / "cat.npz", "w") as archive:
        archive.writestr("train.npy", header.getvalue() + python2_array())
    assert quickdraw.read_npz(tmp_path / "cat.npz")["train"][0].tolist() == [[200, -3, 0], [0, 255, 1]]


# ---------------------------------------------------------------------------------------------------
# Checkpoints and sizes


def change_config(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def half_precision(folder):
    weights = checkpoint.load(folder).weights
    save_file({k: torch.from_numpy(v).bfloat16() for k, v in weights.items()}, folder / "weights.safetensors")


def sizes(folder, **changes):
    change_config(folder, architecture=checkpoint.load(folder).architecture.as_dict() | changes)


@pytest.mark.parametrize(
    "breakage",
    [
        lambda f: change_config(f, scale_factor=10**400),
        lambda f: sizes(f, min_sigma=float("nan")),
        lambda f: sizes(f, min_sigma=float("inf")),
        lambda f: sizes(f, z_size=0),
        half_precision,
    ],
    ids=["huge scale", "NaN sigma", "infinite sigma", "no z", "bfloat16"],
)
def test_odd_checkpoints_are_one_sentence(tmp_path, tiny_sketcher, breakage):
    folder = checkpoint.save(tiny_sketcher.source, tmp_path / "tiny")
    breakage(folder)
    with pytest.raises(checkpoint.CheckpointError, match="tiny"):
        checkpoint.load(folder)


def test_flipped_bits_never_raise_anything_else(tmp_path, tiny_sketcher):
    folder = checkpoint.save(tiny_sketcher.source, tmp_path / "tiny")
    file = folder / "weights.safetensors"
    good, generator, refused = file.read_bytes(), np.random.default_rng(0), 0
    for _ in range(60):
        bad = bytearray(good)
        bad[int(generator.integers(0, 600))] ^= 1 << int(generator.integers(8))  # in the header
        file.write_bytes(bad)
        try:
            checkpoint.load(folder)
        except checkpoint.CheckpointError:
            refused += 1
    assert refused > 50


def test_names_too_long_for_a_file():
    with pytest.raises(checkpoint.CheckpointError, match="available"):
        checkpoint.resolve("a" * 5000)


# ---------------------------------------------------------------------------------------------------
# Training


def paper_config(tmp_path, **changes):
    (tmp_path / "data").mkdir(exist_ok=True)
    write_npz(tmp_path / "data" / "cat.npz", 20)
    architecture = SketchRNNConfig(
        decoder_size=16, encoder_size=8, z_size=4, category_size=0, n_mixtures=3, positions=False
    )
    given = {
        "data": str(tmp_path / "data"), "out": str(tmp_path / "run"), "minutes": 0.0, "steps": 20,
        "batch_size": 4, "device": "cpu", "threads": 1, "architecture": architecture,
    }  # fmt: skip
    return TrainConfig.paper(**(given | changes))


def test_a_run_that_was_stopped_equals_one_that_was_not(tmp_path):
    straight = Trainer(paper_config(tmp_path, out=str(tmp_path / "a")))
    straight.run()
    stopped = Trainer(paper_config(tmp_path, out=str(tmp_path / "b")))
    plain = stopped.train_step

    def step():
        stopped._stop = stopped.step == 9  # what Ctrl-C sets
        return plain()

    stopped.train_step = step
    stopped.run()
    assert stopped.step == 10
    second = Trainer(paper_config(tmp_path, out=str(tmp_path / "b")))
    assert second.resume()
    second.run()
    assert second.step == straight.step == 20
    for a, b in zip(straight.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_nan_gradients_stop_the_run_before_they_reach_the_weights(tmp_path):
    trainer = Trainer(paper_config(tmp_path))
    trainer.model.decoder.output.weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(TrainingError, match="step 0"):
        trainer.train_step()
    assert all(torch.isfinite(parameter).all() for parameter in trainer.model.parameters())


def test_the_papers_loss_minds_the_floor_of_sigma(tmp_path):
    config = paper_config(tmp_path, point_dropout=0.0)
    losses = []
    for floor in (0.0, 5.0):
        config.architecture = dataclasses.replace(config.architecture, min_sigma=floor)
        losses.append(Trainer(config).train_step()["loss"])
    assert losses[1] > losses[0] + 0.5


def test_best_is_judged_by_what_was_trained(tmp_path):
    trainer = Trainer(paper_config(tmp_path, steps=2))
    trainer.run()
    assert trainer.best == trainer.history["nats_z"] != trainer.history["nats_free"]


def test_a_state_of_something_else_is_one_error(tmp_path):
    trainer = Trainer(paper_config(tmp_path))
    trainer.save_state()
    state = torch.load(trainer.out / "state.pt", weights_only=True)
    del state["step"]
    torch.save(state, trainer.out / "state.pt")
    with pytest.raises(TrainingError, match="does not fit"):
        trainer.resume()


# ---------------------------------------------------------------------------------------------------
# Downloads


class Ranges(http.server.BaseHTTPRequestHandler):
    body = bytes(range(250)) * 40

    def do_GET(self):
        begin = int(self.headers["Range"][6:-1]) if "Range" in self.headers else 0
        if begin >= len(self.body):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if begin else 200)
        self.send_header("ETag", '"v1"')
        self.send_header("Content-Length", str(len(self.body) - begin))
        self.end_headers()
        self.wfile.write(self.body[begin:])

    def log_message(self, *args):
        pass


def test_a_whole_part_of_a_killed_run_is_no_dead_end(tmp_path):
    (tmp_path / "cat.npz.part").write_bytes(Ranges.body)
    (tmp_path / "cat.npz.part.etag").write_text('"v1"')
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ranges)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        path = download.fetch("cat", folder=tmp_path, base_url=f"http://127.0.0.1:{server.server_port}/")
    finally:
        server.shutdown()
        server.server_close()
    assert path.read_bytes() == Ranges.body


def test_files_put_there_by_hand_need_no_network_but_changed_ones_do(tmp_path):
    nowhere = "http://127.0.0.1:9/"
    (tmp_path / "cat.npz").write_bytes(b"mine")
    assert download.fetch("cat", folder=tmp_path, base_url=nowhere).read_bytes() == b"mine"
    (tmp_path / "cat.npz.json").write_text('{"sha256": "of another file"}')
    for _ in range(2):  # a failed download must not make it trusted
        with pytest.raises(download.DownloadError, match="without a network"):
            download.fetch("cat", folder=tmp_path, base_url=nowhere)


def test_a_folder_that_cannot_be_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(download.DownloadError):
        download.fetch("cat", folder=tmp_path / "file", base_url="http://127.0.0.1:9/")


def test_categories_are_those_of_the_data(shared_data):
    names = {path.stem for path in (shared_data / "quickdraw").glob("*.npz")}
    assert set(download.official_categories()) == names and len(names) == 345


# ---------------------------------------------------------------------------------------------------
# Pictures


@settings(max_examples=100, deadline=None)
@given(LINES, st.sampled_from([0.0, 2.0]))
def test_curves_go_through_their_points_and_stay_finite(points, tolerance):
    line = np.array(points, dtype=float)
    segments = render.smooth(line, tolerance=tolerance)
    distinct = line[np.concatenate([[True], (line[1:] != line[:-1]).any(axis=1)])]
    assert np.isfinite(segments).all() and len(segments) == len(distinct) - 1
    if len(segments):
        assert np.array_equal(segments[:, 0], distinct[:-1]) and np.array_equal(segments[:, 3], distinct[1:])


def test_corners_stay_and_circles_are_round():
    square = np.array([[0, 0], [10, 0], [10, 10], [0, 10], [0, 0.0]])
    for segment in render.smooth(square):
        assert np.allclose(segment, np.linspace(segment[0], segment[3], 4))
    angle = np.linspace(0, 2 * np.pi, 13)
    circle = 100 * np.column_stack([np.cos(angle), np.sin(angle)])
    circle[-1] = circle[0]
    assert np.hypot(*render.flatten(render.smooth(circle)).T) == pytest.approx(100, abs=0.2)
    # Simplified to a hexagon, a small circle turns by 60 degrees and more: the tolerance keeps it round.
    angle = np.linspace(0, 2 * np.pi, 6)
    eye = 8 * np.column_stack([np.cos(angle), np.sin(angle)])
    eye[-1] = eye[0]
    assert np.hypot(*render.flatten(render.smooth(eye, tolerance=2.0), 0.5).T).min() > 7.5
    assert np.hypot(*render.flatten(render.smooth(eye), 0.5).T).min() < 6.6


def inked(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture)).convert("L")) < 128


def test_pictures_lie_in_their_frame():
    wide = [np.array([[0, 0], [1000, 0]]), np.array([[500, 100.0]])]
    rows, columns = np.nonzero(inked(render.png(wide, size=200, margin=0.1)))
    assert columns.min() >= 18 and columns.max() <= 181 and abs(columns.min() + columns.max() - 199) <= 1
    assert rows.min() > 80 and rows.max() < 120
    part = Image.open(io.BytesIO(render.png(wide, size=200, view=(0, -50, 400, 150))))
    assert part.size == (200, 100) and inked(render.png(wide, size=200, view=(0, -50, 400, 150)))[25, 100]


def test_empty_drawings_and_dots():
    assert "<path" not in render.svg([]) and not inked(render.png([])).any()
    dot = inked(render.png([np.array([[7, 7]])], size=100, width=4))
    assert dot[50, 50] and 10 < dot.sum() < 60
    assert Image.open(io.BytesIO(render.gif([]))).n_frames == 1


def test_outside_words_are_escaped_and_cut():
    picture = render.svg([], title='</title><script>"&\x00\x0b')
    assert "<script>" not in picture and "\x00" not in picture and "&amp;" in picture
    assert "…" in render.sheet([[[]]], labels=["x" * 500])
    assert render.sheet_png([[[], None]], labels=["猫 & <b>"], heads=["a", "b"]).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "options",
    [
        {"size": 0}, {"size": 10**6}, {"size": 3.5}, {"size": True}, {"margin": 0.9}, {"width": float("nan")},
        {"color": 'red"/><script>'}, {"background": "url(http://x)"}, {"view": (0, 0, 0, 1)}, {"view": "abcd"},
        {"view": (0, 0, float("inf"), 1)},
    ],
)  # fmt: skip
def test_bad_options_of_pictures(options):
    with pytest.raises(render.RenderError):
        render.svg([np.zeros((2, 2))], **options)


def test_bad_sheets_and_animations(half_cat):
    for call in (
        lambda: render.sheet([]),
        lambda: render.sheet([[half_cat]], labels=["a", "b"]),
        lambda: render.sheet([[half_cat]], heads=["a", "b"]),
        lambda: render.sheet([[half_cat]] * 1000, size=200),
        lambda: render.gif(half_cat, color="nosuchcolour"),
        lambda: render.gif(half_cat, seconds=60, frames_per_second=50),
        lambda: render.gif(half_cat, size=2000),
    ):
        with pytest.raises(render.RenderError):
            call()
    with pytest.raises(strokes.DrawingError):
        render.svg([[["a", "b"]]])


def test_animations_draw_at_an_even_pace_on_true_paper():
    line = [np.array([[0, 0], [100, 0]])]
    extra = [np.array([[0, 50], [100, 50]])]
    picture = render.gif(line, accent=extra, size=120, seconds=2.0, hold=1.0, frames_per_second=10)
    animation = Image.open(io.BytesIO(picture))
    widths, durations = [], []
    for number in range(animation.n_frames):
        animation.seek(number)
        frame = np.asarray(animation.convert("RGB"))
        assert tuple(frame[2, 2]) == (255, 255, 255)
        widths.append(int((frame.min(axis=2) < 160).any(axis=0).sum()))
        durations.append(animation.info["duration"])
    assert len(widths) == 20 and durations[0] == 100 and durations[-1] == 1100
    first_line = np.diff(widths[:10])  # the first half draws the first of two equal lines
    assert first_line.min() >= 0 and first_line.max() - first_line.min() <= 4
    given_first = Image.open(io.BytesIO(render.gif(line, accent=extra, size=120, given_at_once=True))).convert("RGB")
    assert (np.asarray(given_first).max(axis=2) < 160).any(axis=0).sum() > 90


def test_without_cairo_there_is_one_sentence(monkeypatch, half_cat):
    plain = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "cairosvg":
            raise OSError('no library called "cairo-2" was found')
        return plain(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(render.RenderError, match="cairo"):
        render.png(half_cat)
    assert render.svg(half_cat) and render.gif(half_cat)
