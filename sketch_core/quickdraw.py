"""Quick, Draw! drawings: reading every form they come in, downloading, augmenting, batching.

Read here: the official sketchrnn ``.npz`` (object arrays ``train``, ``valid``, ``test`` of stroke3 rows,
pickled: read by an unpickler that knows plain arrays of numbers and nothing else), both ``.ndjson`` forms
(simplified, and raw with times), and folders of either. All are brought into the canonical frame of
:mod:`sketch_core.strokes` unless they are in it already.

The Quick, Draw! Dataset, Google Creative Lab, CC BY 4.0.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from sketch_core import strokes

SPLITS = ("train", "valid", "test")


class DataError(ValueError):
    """Drawings that cannot be read; the message is one sentence that names the file."""


# ---------------------------------------------------------------------------------------------------
# Reading .npz without running what is in it


_ARRAY_TYPE = object()
"""Stands for the class ``numpy.ndarray``, which a pickle names but must never call: it can ask for any size."""
_KIND = re.compile(r"[biuf][1248]|O8?")


class _Kind:
    """Stands for ``numpy.dtype``, whose own ``__setstate__`` believes whatever flags a pickle gives."""

    def __init__(self, name: Any, *_: Any) -> None:
        if type(name) is not str or not _KIND.fullmatch(name):
            raise pickle.UnpicklingError("it holds values that are no numbers")
        self.name, self.order = name, "="

    def __setstate__(self, state: Any) -> None:
        if state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("a byte order is not one")
        self.order = state[1]


class _Array:
    """Stands for an array while it is read: ``value`` is an array of numbers, or a list of others such."""

    value: Any = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, by_columns, raw = state
        if type(kind) is not _Kind or type(shape) is not tuple:
            raise pickle.UnpicklingError("an array is not built the ordinary way")
        if kind.name.startswith("O"):
            if type(raw) is not list or shape != (len(raw),) or not all(type(item) is _Array for item in raw):
                raise pickle.UnpicklingError("it holds objects that are not arrays")
            self.value = [item.value for item in raw]
            return
        content = raw.encode("latin1") if type(raw) is str else raw  # Python 2 wrote bytes as text
        values = np.frombuffer(content, dtype=np.dtype(kind.order + kind.name))
        self.value = values.reshape(shape, order="F" if by_columns else "C")


def _empty_array(subtype: Any, shape: Any, typecode: Any) -> _Array:
    """Stands for NumPy's ``_reconstruct``, which pickles call with shape (0,) before filling the array."""
    if subtype is not _ARRAY_TYPE or shape != (0,):
        raise pickle.UnpicklingError("an array is not built the ordinary way")
    return _Array()


def _latin1_bytes(text: str, encoding: str) -> bytes:
    """Stands for ``_codecs.encode``, with which Python 3 writes bytes in protocol 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding[:20]!r} is not expected")
    return text.encode("latin1")


class ArrayUnpickler(pickle.Unpickler):
    """Unpickles arrays of numbers and refuses every other object, so no code in a file is ever run."""

    _allowed: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): _empty_array,
        ("numpy._core.multiarray", "_reconstruct"): _empty_array,
        ("numpy", "ndarray"): _ARRAY_TYPE,
        ("numpy", "dtype"): _Kind,
        ("_codecs", "encode"): _latin1_bytes,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Only what arrays are made of; anything else is refused."""
        try:
            return self._allowed[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it holds {module[:40]!r}.{name[:40]!r}, which is not an array") from None

    def persistent_load(self, pid: Any) -> Any:
        """Nothing outside the file is ever fetched."""
        raise pickle.UnpicklingError("it refers to objects outside the file")


# Opcodes that pickled arrays consist of, by how many bytes follow each; negative: that many bytes hold how many more.
_FOLLOWING = (
    dict.fromkeys(b"(t)\x85\x86\x87]aeRbN\x88\x89\x93\x94", 0)
    | {ord("K"): 1, ord("M"): 2, ord("J"): 4, ord("q"): 1, ord("h"): 1, ord("r"): 4, ord("j"): 4, 0x80: 1, 0x95: 8}
    | {ord("U"): -1, ord("T"): -4, 0x8C: -1, ord("X"): -4, ord("C"): -1, ord("B"): -4, 0x8E: -8}
)
_TWO_LINES, _STOP, _LONG_PUT = ord("c"), ord("."), ord("r")


def _check_opcodes(body: bytes) -> None:
    """Refuse a pickle that does more than build arrays, before any of it is done.

    Ten bytes can otherwise ask the unpickler for 64 GB, by a place in its memory of objects that is far off.
    """
    at = 0
    while (code := body[at]) != _STOP:
        at += 1
        if code == _TWO_LINES:
            at = body.index(b"\n", body.index(b"\n", at) + 1) + 1
            continue
        following = _FOLLOWING.get(code)
        if following is None:
            raise pickle.UnpicklingError("it does more than hold arrays")
        if following < 0:
            at, following = at - following, int.from_bytes(body[at : at - following], "little")
        elif code == _LONG_PUT and int.from_bytes(body[at : at + 4], "little") > len(body):
            raise pickle.UnpicklingError("it counts more objects than it has")
        at += following


MAX_ARRAY_BYTES = 500_000_000
"""Of one split, unpacked; the largest official one has some 150 million."""
MAX_PACKING = 100
"""Times that a large array may be smaller in the file; drawings are some three times smaller, bombs a thousand."""
MAX_LINE = 8_000_000
"""Characters of a line of ``.ndjson``; a long raw drawing has 200,000."""


def read_npz(path: str | Path) -> dict[str, list[NDArray[np.int16]]]:
    """The splits of an official-layout ``.npz``: {"train": [(N, 3) int16, ...], "valid": ..., "test": ...}.

    Raises:
        DataError: not such a file, damaged, or it holds anything but arrays of (N, 3) numbers.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            found = {}
            for split in SPLITS:
                member = f"{split}.npy"
                if member not in members:
                    continue
                size, packed = members[member].file_size, members[member].compress_size
                if size > MAX_ARRAY_BYTES or size > max(10_000_000, MAX_PACKING * packed):
                    raise DataError(f"{path.name}: {member} claims {size:,} bytes, which is too large.")
                found[split] = _read_object_array(io.BytesIO(archive.read(member)))
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.") from None
    except DataError:
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything
        why = str(error)[:100] or type(error).__name__
        raise DataError(f"{path.name} is not a sketchrnn .npz file or is damaged ({why}).") from None
    if not found:
        raise DataError(f"{path.name} holds none of the arrays train, valid and test.")
    for split, rows in found.items():
        for number, item in enumerate(rows):
            if (
                not isinstance(item, np.ndarray)
                or item.ndim != 2
                or item.shape[1] != 3
                or not len(item)
                or item.dtype.kind not in "iuf"
                or not (item.min() >= -strokes.MAX_COORDINATE and item.max() <= strokes.MAX_COORDINATE)  # nor NaN
            ):
                raise DataError(f"{path.name}: drawing {number} of {split} is not an (N, 3) array of numbers.")
    return found


def _read_object_array(stream: io.BytesIO) -> list[NDArray[Any]]:
    version = npy_format.read_magic(stream)
    reader = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    shape, _, dtype = reader(stream)
    body = stream.read()
    if not dtype.hasobject:
        return list(np.frombuffer(body, dtype=dtype).reshape(shape))
    _check_opcodes(body)
    # latin1, so that files written by Python 2 (the official ones) can be read.
    array = ArrayUnpickler(io.BytesIO(body), encoding="latin1").load()
    if type(array) is not _Array or type(array.value) is not list:
        raise pickle.UnpicklingError("it does not hold an array of drawings")
    return array.value


# ---------------------------------------------------------------------------------------------------
# Reading .ndjson


def read_ndjson(path: str | Path) -> Iterator[tuple[str, str, strokes.Drawing]]:
    """(category, key, drawing) of each recognised drawing of a Quick, Draw! ``.ndjson`` file.

    Both forms: simplified ``[[xs], [ys]]`` and raw ``[[xs], [ys], [times]]``. Drawings that the game did not
    recognise are skipped, as in the official sketchrnn files.

    Raises:
        DataError: a line is not such a drawing; the message names the line.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8") as file:
            # Never a whole line at once, however long it is.
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE + 1), ""), start=1):
                if not line.strip():
                    continue
                if len(line) > MAX_LINE:
                    raise DataError(f"{path.name}, line {number}, is too long to be a Quick, Draw! drawing.")
                try:
                    record = json.loads(line)
                    if record.get("recognized") is False:
                        continue
                    drawing = [np.column_stack([stroke[0], stroke[1]]) for stroke in record["drawing"]]
                    drawing = strokes.check_drawing(drawing)
                    category, key = str(record.get("word", path.stem)), str(record.get("key_id", number))
                except (ValueError, LookupError, TypeError, AttributeError, RecursionError, ArithmeticError) as error:
                    why = str(error)[:100]
                    raise DataError(f"{path.name}, line {number}, is not a Quick, Draw! drawing ({why}).") from None
                yield category, key, drawing
    except (FileNotFoundError, UnicodeDecodeError):
        raise DataError(f"There is no readable file {path}.") from None


def _split_of(key: str) -> str:
    """train, valid or test (90, 5, 5 in a hundred) by a hash of the drawing's key, so that it never moves."""
    bucket = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % 100
    return "test" if bucket < 5 else "valid" if bucket < 10 else "train"


# ---------------------------------------------------------------------------------------------------
# Sets of drawings


def to_canonical(rows: NDArray[Any]) -> NDArray[np.float32]:
    """stroke3 rows in any pixels to stroke3 rows in the canonical frame; (0, 3) if nothing is left."""
    rows = np.asarray(rows)
    if len(rows) and not rows[0, :2].any() and not rows[0, 2]:
        rows = rows[1:]  # official files give the first point a row (0, 0, 0)
    if not len(rows):
        return np.zeros((0, 3), dtype=np.float32)
    drawing, _ = strokes.canonical(strokes.from_stroke3(rows))
    return strokes.to_stroke3(drawing)


def _canonical_all(rows: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Bring a file's drawings into the canonical frame, unless they are there already."""
    sides = []
    for item in rows[:200]:
        path = np.cumsum(np.vstack([[0, 0], item[:, :2]]), axis=0)
        sides.append(np.ptp(path, axis=0).max())
    low, high = strokes.CANONICAL_SIDES
    # The median alone would take raw drawings of 250 pixels on average for canonical ones: none may be larger.
    if sides and low <= float(np.median(sides)) and max(sides) <= high:
        return list(rows)
    return [to_canonical(item) for item in rows]


@dataclass
class DrawingSet:
    """Drawings of one split in the canonical frame, with their categories."""

    categories: list[str]
    stroke3: list[NDArray[Any]]
    labels: NDArray[np.int64]
    source: str = ""
    _lengths: NDArray[np.int64] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.stroke3)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(len,) number of rows of each drawing."""
        if self._lengths is None:
            self._lengths = np.array([len(rows) for rows in self.stroke3], dtype=np.int64)
        return self._lengths

    def counts(self) -> NDArray[np.int64]:
        """(n_categories,) number of drawings of each category."""
        return np.bincount(self.labels, minlength=len(self.categories))

    def subset(self, indices: Iterable[int]) -> DrawingSet:
        """The drawings at these indices, in their order."""
        chosen = list(indices)
        return DrawingSet(self.categories, [self.stroke3[i] for i in chosen], self.labels[chosen], self.source)

    def per_category(self, n: int, seed: int = 0, every: int = 1) -> DrawingSet:
        """At most ``n`` drawings of each (or each ``every``-th) category, chosen by ``seed``."""
        generator = np.random.default_rng(seed)
        chosen: list[int] = []
        for label in range(0, len(self.categories), every):
            indices = np.flatnonzero(self.labels == label)
            chosen += generator.permutation(indices)[:n].tolist()
        return self.subset(sorted(chosen))

    def digest(self) -> str:
        """SHA-256 over categories and rows: which data a checkpoint was trained on."""
        digest = hashlib.sha256("\n".join(self.categories).encode())
        for label, rows in zip(self.labels, self.stroke3, strict=True):
            digest.update(int(label).to_bytes(4, "big"))
            digest.update(np.asarray(rows, dtype="<f4").tobytes())
        return digest.hexdigest()


def find_files(path: str | Path, categories: Sequence[str] | None = None) -> dict[str, Path]:
    """{name: file} of the drawing files at ``path`` (a file, or a folder of ``.npz`` or ``.ndjson``).

    Raises:
        DataError: nothing there, or a category has no file.
    """
    path = Path(path)
    if path.is_file():
        found = {_category_name(path): path}
    elif path.is_dir():
        files = sorted([*path.glob("*.npz"), *path.glob("*.ndjson")])
        found = {_category_name(file): file for file in files}
    else:
        raise DataError(f"There is no file or folder {path}.")
    if not found:
        raise DataError(f"{path} holds no .npz or .ndjson files.")
    if categories is not None:
        missing = [name for name in categories if name not in found]
        if missing:
            raise DataError(f"{path} has no file for {', '.join(map(repr, missing))}.")
        found = {name: found[name] for name in categories}
    return found


def _category_name(path: Path) -> str:
    """``sketchrnn_cat.full.npz`` and ``cat.simplified.ndjson`` are both files of "cat"."""
    name = path.name.removesuffix(path.suffix).removeprefix("sketchrnn_").removeprefix("full_simplified_")
    for tail in (".full", ".simplified", ".raw"):
        name = name.removesuffix(tail)
    return name


def load_sets(
    path: str | Path,
    categories: Sequence[str] | None = None,
    splits: Sequence[str] = SPLITS,
    *,
    max_points: int = 250,
    min_points: int = 2,
    limit: int | None = None,
) -> dict[str, DrawingSet]:
    """Read drawings into sets, one for each split, all with the same list of categories.

    Args:
        path: a ``.npz`` or ``.ndjson`` file or a folder of them. Files of a folder are a category each, by their
            names; a single ``.ndjson`` file may hold several, by the words of its lines.
        categories: which; all by default, sorted by name.
        max_points, min_points: drawings with more or fewer rows are left out.
        limit: at most this many of each category and split.

    Raises:
        DataError: see :func:`find_files`, :func:`read_npz`, :func:`read_ndjson`.
    """
    read: Callable[[str], Mapping[str, list[NDArray[Any]]]]
    if Path(path).is_file() and Path(path).suffix == ".ndjson":
        words = _read_words(Path(path))
        if missing := [name for name in categories or () if name not in words]:
            raise DataError(f"{path} has no drawing of {', '.join(map(repr, missing))}.")
        names, read = list(categories) if categories is not None else sorted(words), words.__getitem__
    else:
        files = find_files(path, categories)
        names = list(categories) if categories is not None else sorted(files)
        read = lambda name: _read_splits(files[name])  # noqa: E731 (one file at a time in memory)
    collected: dict[str, tuple[list[NDArray[Any]], list[int]]] = {split: ([], []) for split in splits}
    for label, name in enumerate(names):
        for split, rows in read(name).items():
            if split not in collected:
                continue
            kept = [item for item in _canonical_all(rows) if min_points <= len(item) <= max_points][:limit]
            collected[split][0].extend(kept)
            collected[split][1].extend([label] * len(kept))
    return {
        split: DrawingSet(names, rows, np.array(labels, dtype=np.int64), str(path))
        for split, (rows, labels) in collected.items()
    }


def _read_words(path: Path) -> dict[str, dict[str, list[NDArray[Any]]]]:
    """{word: {split: stroke3 rows}} of one ``.ndjson`` file."""
    found: dict[str, dict[str, list[NDArray[Any]]]] = {}
    for word, key, drawing in read_ndjson(path):
        splits = found.setdefault(word, {split: [] for split in SPLITS})
        splits[_split_of(key)].append(strokes.to_stroke3(drawing))
    if not found:
        raise DataError(f"{path} holds no drawings.")
    return found


def _read_splits(path: Path) -> dict[str, list[NDArray[Any]]]:
    if path.suffix == ".npz":
        return dict(read_npz(path))
    found: dict[str, list[NDArray[Any]]] = {split: [] for split in SPLITS}
    for _, key, drawing in read_ndjson(path):
        found[_split_of(key)].append(strokes.to_stroke3(drawing))
    return found


# ---------------------------------------------------------------------------------------------------
# Augmentation and batches


N_CHANGES = 6
"""Numbers that say how a drawing was changed; see :meth:`Augmentation.draw`."""


@dataclass(frozen=True)
class Augmentation:
    """Random changes that keep a drawing what it is. All zero: none."""

    scale: float = 0.10
    """Spread (one standard deviation, in log) of the size of the whole drawing."""
    stretch: float = 0.06
    """Spread (log) of x against y."""
    rotate: float = 0.05
    """Spread in radians."""
    shear: float = 0.05
    """Spread of the shear."""
    point_dropout: float = 0.05
    """Chance of each inner point to go, in half of the drawings."""
    mirror: float = 0.0
    """Chance to mirror left and right."""
    drift: float = 0.0
    """Spread (normalised units) of the places to which strokes slip in drifting drawings; see ``Batch.drift``."""
    drift_share: float = 0.0
    """Share of drawings that drift."""
    share: float = 1.0
    """Share of drawings that are changed at all (drift aside)."""

    def draw(self, n: int, generator: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What happens to n drawings.

        Returns:
            (n, 2, 2) linear maps for row vectors, offsets @ matrix; and (n, N_CHANGES) what they are: log size,
            log stretch, radians and shear, each times 10 to be about 1, mirrored, and points dropped (0 or 1 both).
            Zeros: left as it is.
        """
        changed = (generator.random(n) < self.share).astype(np.float64)
        spreads = np.array([[self.scale], [0.5 * self.stretch], [self.rotate], [self.shear]])
        log_size, log_stretch, angle, shear = spreads * generator.standard_normal((4, n)) * changed
        mirrored = (generator.random(n) < self.mirror) * changed
        dropped = (generator.random(n) < 0.5 * (self.point_dropout > 0)) * changed
        cos, sin = np.cos(angle), np.sin(angle)
        a, d = np.exp(log_size + log_stretch) * (1.0 - 2.0 * mirrored), np.exp(log_size - log_stretch)
        rows = [[a * cos, a * sin], [d * (shear * cos - sin), d * (shear * sin + cos)]]
        changes = np.column_stack([10 * log_size, 10 * log_stretch, 10 * angle, 10 * shear, mirrored, dropped])
        return np.moveaxis(np.array(rows), -1, 0).astype(np.float32), changes.astype(np.float32)


def drop_points(rows: NDArray[Any], probability: float, generator: np.random.Generator) -> NDArray[Any]:
    """Leave out inner points of strokes by chance; their offsets go to the next point."""
    inner = rows[:, 2] == 0
    inner[0] = False
    inner[1:] &= rows[:-1, 2] == 0
    keep = ~(inner & (generator.random(len(rows)) < probability))
    if keep.all():
        return rows
    path = np.cumsum(rows[:, :2], axis=0, dtype=np.float32)[keep]
    offsets = np.diff(path, axis=0, prepend=np.zeros((1, 2), dtype=np.float32))
    return np.column_stack([offsets, rows[keep, 2]])


def stroke_starts(stroke5: NDArray[Any]) -> NDArray[np.bool_]:
    """(B, T): the points that begin a stroke other than the first: those before which the pen was lifted."""
    starts = np.zeros(stroke5.shape[:2], dtype=bool)
    starts[:, 1:] = stroke5[:, :-1, 3] > 0.5
    return starts


@dataclass
class Batch:
    """B drawings padded to the longest.

    Attributes:
        drawing: (B, T + 1, 5) float32 stroke5, normalised; at least one end row each. What the encoder reads.
        lengths: (B,) N_s, number of points without end rows.
        labels: (B,) category indices.
        drift: (B, T + 1, 2) how far each point has slipped from its place, the same for all points of a stroke;
            ``None`` where nothing slips. The decoder sees the strokes where they slipped to and is asked for
            the next stroke where it belongs, so that it learns to mend what it misplaces when it draws alone:
            shapes of strokes are left as they are.
        changes: (B, N_CHANGES) how each drawing was changed, see :meth:`Augmentation.draw`; ``None``: not at all.
    """

    drawing: NDArray[np.float32]
    lengths: NDArray[np.int64]
    labels: NDArray[np.int64]
    drift: NDArray[np.float32] | None = None
    changes: NDArray[np.float32] | None = None

    @property
    def previous(self) -> NDArray[np.float32]:
        """(B, T + 1, 5): the decoder's inputs, the start token before all rows but the last."""
        start = np.broadcast_to(strokes.START_TOKEN, (len(self.drawing), 1, 5))
        previous = np.concatenate([start, self.drawing[:, :-1]], axis=1)
        if self.drift is not None:
            previous[:, 1:, :2] += np.diff(self.drift, axis=1, prepend=0.0)[:, :-1]
        return previous

    @property
    def target(self) -> NDArray[np.float32]:
        """(B, T + 1, 5): what the decoder is asked for; ``drawing``, unless strokes have slipped."""
        if self.drift is None:
            return self.drawing
        target = self.drawing.copy()
        slipped = np.roll(self.drift, 1, axis=1)  # of the point before; a first point starts no later stroke
        target[..., :2] -= slipped * stroke_starts(target)[..., None]
        return target


def collate(
    rows: Sequence[NDArray[Any]],
    labels: NDArray[np.int64],
    scale_factor: float,
    *,
    augmentation: Augmentation | None = None,
    generator: np.random.Generator | None = None,
) -> Batch:
    """Pad drawings in the canonical frame to one batch of normalised stroke5."""
    matrices, changes = None, None
    if augmentation is not None:
        generator = generator or np.random.default_rng()
        matrices, changes = augmentation.draw(len(rows), generator)
        rows = [
            drop_points(item, augmentation.point_dropout, generator) if drop else item
            for item, drop in zip(rows, changes[:, -1], strict=True)
        ]
    lengths = np.array([len(item) for item in rows], dtype=np.int64)
    target = np.zeros((len(rows), int(lengths.max()) + 1, 5), dtype=np.float32)
    for i, item in enumerate(rows):
        n = len(item)
        target[i, :n, :2] = item[:, :2]
        target[i, :n, 3] = item[:, 2]
        target[i, :n, 2] = 1 - item[:, 2]
        target[i, n:, 4] = 1.0
    if matrices is not None:
        target[..., :2] = target[..., :2] @ matrices
    target[..., :2] /= scale_factor
    drift = None
    if augmentation is not None and generator is not None and augmentation.drift * augmentation.drift_share > 0:
        # A place for each stroke, relative to where it belongs; the first stays.
        strokes_of = stroke_starts(target).cumsum(axis=1)  # (B, T + 1), 0 for the first
        places = generator.standard_normal((len(rows), int(strokes_of.max()) + 1, 2)) * augmentation.drift
        places[:, 0] = 0.0
        places[generator.random(len(rows)) >= augmentation.drift_share] = 0.0
        drift = np.take_along_axis(places, strokes_of[..., None], axis=1).astype(np.float32)
    return Batch(target, lengths, np.asarray(labels, dtype=np.int64), drift, changes)


class BatchSampler:
    """An endless, repeatable stream of balanced, length-bucketed batches.

    Categories are drawn with a chance proportional to count ** ``power``. Drawings are drawn a pool at a
    time; a pool is sorted by length (with some noise) and cut into batches, so that little is padded.
    Batch ``i`` depends on the seed and on ``i`` alone, which makes resuming exact.
    """

    POOL_BATCHES = 64

    def __init__(
        self,
        drawings: DrawingSet,
        batch_size: int,
        scale_factor: float,
        *,
        power: float = 0.6,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if not len(drawings):
            raise DataError("There are no drawings to train on.")
        self.drawings, self.batch_size, self.scale_factor = drawings, batch_size, scale_factor
        self.augmentation, self.seed, self.rank, self.world_size = augmentation, seed, rank, world_size
        counts = drawings.counts().astype(np.float64)
        weights = np.where(counts > 0, np.maximum(counts, 1) ** (power - 1.0), 0.0)
        chances = weights[drawings.labels]
        self._cumulative = np.cumsum(chances / chances.sum())
        self._pool_number = -1
        self._pool: list[NDArray[np.int64]] = []

    def _draw_pool(self, number: int) -> None:
        generator = np.random.default_rng([self.seed, self.rank, self.world_size, number])
        n = self.batch_size * self.POOL_BATCHES
        chosen = np.searchsorted(self._cumulative, generator.random(n) * self._cumulative[-1], side="right")
        chosen = np.minimum(chosen, len(self.drawings) - 1)
        lengths = self.drawings.lengths[chosen] * generator.uniform(0.95, 1.05, n)
        batches = chosen[np.argsort(lengths)].reshape(self.POOL_BATCHES, self.batch_size)
        generator.shuffle(batches)
        self._pool = [generator.permutation(batch) for batch in batches]
        self._pool_number = number

    def __getitem__(self, step: int) -> Batch:
        """Batch number ``step``."""
        number, place = divmod(step, self.POOL_BATCHES)
        if number != self._pool_number:
            self._draw_pool(number)
        chosen = self._pool[place]
        generator = np.random.default_rng([self.seed, self.rank, self.world_size, step, 1])
        return collate(
            [self.drawings.stroke3[i] for i in chosen],
            self.drawings.labels[chosen],
            self.scale_factor,
            augmentation=self.augmentation,
            generator=generator,
        )
