"""Checkpoints: a folder with ``config.json`` and ``weights.safetensors``, and never a pickle.

``config.json`` holds the format version, the architecture, the categories, the scale factor, N_max, what
the network was trained on, its metrics with their definitions, and the SHA-256 of the weights' file. Every
failure to load is one sentence: checkpoints come from strangers, so nothing in one is taken on trust.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from sketch_core.model import SketchRNN, SketchRNNConfig
from sketch_core.strokes import EPSILON, FRAME_SIZE

FORMAT_VERSION = 1
CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = "config.json", "weights.safetensors", "README.md"
DIGEST_KEY = "sha256"
"""In the weights' own metadata: of names and values."""
FILE_HASH_KEY = "weights_sha256"
"""In ``config.json``: of the weights' file, whole. Checkpoints of before have none."""
DEFAULT_NAME = "duet-345"
MAX_CONFIG_BYTES = 4_000_000
MAX_WEIGHTS_BYTES = 2_000_000_000
MAX_HEADER_BYTES = 1_000_000
"""Of what comes before the weights in their file; a network has a few dozen of them."""
MAX_SCALE_FACTOR = 1e9
MAX_SIZES = {
    "n_categories": 20_000,
    "category_size": 4_096,
    "encoder_size": 16_384,
    "decoder_size": 16_384,
    "z_size": 16_384,
    "n_mixtures": 1_000,
}
MAX_NAME = 100
"""Characters of a checkpoint's or a category's name."""
KINDS = ("F16", "BF16", "F32", "F64")
"""Safetensors' names of the kinds of numbers that are read; all become float32."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message is one sentence that names it and says why."""


@dataclass
class Checkpoint:
    """A network's weights and all that is known about it."""

    architecture: SketchRNNConfig
    weights: dict[str, NDArray[np.float32]]
    """By the names of :class:`SketchRNN`'s parameters, float32, without its buffers."""
    categories: list[str]
    scale_factor: float
    n_max: int
    name: str = ""
    training: dict[str, Any] = field(default_factory=dict)
    """Data (description, hash), settings, minutes, drawings seen."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """As printed by ``evaluate``, with definitions."""
    epsilon: float = EPSILON
    """What drawings are simplified with before it reads them, in units of the canonical frame."""
    needs_z: bool = False
    """Trained with z alone: it draws freely from a z of N(0, I), and finishes a drawing with the z of its start."""

    @classmethod
    def from_model(cls, model: SketchRNN, categories: list[str], **about: Any) -> Checkpoint:
        """Copy a network's parameters."""
        weights = {
            name: parameter.detach().float().cpu().numpy().copy() for name, parameter in model.named_parameters()
        }
        return cls(model.config, weights, list(categories), float(model.scale_factor), int(model.n_max), **about)

    def model(self, device: str | torch.device = "cpu") -> SketchRNN:
        """The torch network, in evaluation mode.

        Raises:
            CheckpointError: weights that do not fit the architecture.
        """
        model = SketchRNN(self.architecture, self.scale_factor, self.n_max)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(torch.from_numpy(self.weights[name]))
        return model.eval().to(device)

    def info(self) -> dict[str, Any]:
        """What ``config.json`` holds."""
        return {
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "architecture": self.architecture.as_dict(),
            "categories": self.categories,
            "scale_factor": self.scale_factor,
            "n_max": self.n_max,
            "epsilon": self.epsilon,
            "needs_z": self.needs_z,
            "training": self.training,
            "metrics": self.metrics,
        }


def save(checkpoint: Checkpoint, folder: str | Path, *, half: bool = True) -> Path:
    """Write a checkpoint; each file is replaced whole, so that a crash leaves the old or the new one.

    While one file is new and the other is not, ``config.json`` holds the hashes of both weights.

    Args:
        half: store weights in half precision; see :func:`stored`.

    Returns:
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.name = checkpoint.name or folder.name
    weights_part = folder / f".{WEIGHTS_FILE}.part"
    weights = {name: stored(name, array) if half else array for name, array in checkpoint.weights.items()}
    save_file(weights, weights_part, metadata={DIGEST_KEY: _digest(weights)})
    weights_part.chmod(0o644)  # safetensors makes it readable for its owner only

    new = file_hash(weights_part)
    if (folder / WEIGHTS_FILE).is_file():
        _describe(checkpoint, folder, [new, file_hash(folder / WEIGHTS_FILE)])
    os.replace(weights_part, folder / WEIGHTS_FILE)
    _describe(checkpoint, folder, new)
    return folder


def save_description(checkpoint: Checkpoint, folder: Path) -> None:
    """Write what is known about a checkpoint that was loaded from a folder; its weights stay as they are."""
    _describe(checkpoint, folder, file_hash(folder / WEIGHTS_FILE))


def _describe(checkpoint: Checkpoint, folder: Path, hashes: str | list[str]) -> None:
    part = folder / f".{CONFIG_FILE}.part"
    about = checkpoint.info() | {FILE_HASH_KEY: hashes}
    part.write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, folder / CONFIG_FILE)


def file_hash(file: Path) -> str:
    """SHA-256 of a file."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def stored(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """Weights as they are stored: in half precision, unless that would overflow.

    Rounding moves nats a step by less than 0.001, halves the file, and lets the engine multiply by packed
    half-precision weights without any further loss. The decoder's recurrent weights are rounded to bf16's 8 bits as
    well (nats move by less than 0.0001), so that a row or two may read them as bf16, which becomes single precision by
    a shift.
    """
    if name == "decoder.lstm.weight_hh_l0":
        array = torch.from_numpy(np.asarray(array, dtype=np.float32)).bfloat16().float().numpy()
    exact = bool(np.abs(array).max(initial=0.0) > np.finfo(np.float16).max)
    return np.ascontiguousarray(array, dtype=np.float32 if exact else np.float16)


def _digest(weights: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 over names and values as they are stored: finds what a disk or a download changed."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(weights[name]).tobytes())
    return digest.hexdigest()


def load(folder: str | Path) -> Checkpoint:
    """Read a checkpoint folder and check that everything fits together.

    Raises:
        CheckpointError: missing or damaged files, another format version, or shapes that do not fit.
    """
    folder = Path(folder)
    info = _read_config(folder)
    about = _described(info, shown(folder.name))
    return Checkpoint(weights=_read_weights(folder, about, info.get(FILE_HASH_KEY)), **vars(about))


@dataclass
class Described:
    """What ``config.json`` tells of a checkpoint; the fields are those of :class:`Checkpoint`."""

    architecture: SketchRNNConfig
    categories: list[str]
    scale_factor: float
    n_max: int
    name: str
    training: dict[str, Any]
    metrics: dict[str, Any]
    epsilon: float
    needs_z: bool


def describe(folder: str | Path) -> Described:
    """Read and check ``config.json`` alone.

    Raises:
        CheckpointError: as :func:`load`.
    """
    folder = Path(folder)
    return _described(_read_config(folder), shown(folder.name))


def shown(text: object) -> str:
    """What comes from outside, as it may stand in a sentence: short, on one line, printable."""
    return "".join(c if c.isprintable() else "?" for c in str(text)[:MAX_NAME])


def _described(info: dict[str, Any], name: str) -> Described:
    version = info.get("format_version")
    if type(version) is not int or version != FORMAT_VERSION:
        raise CheckpointError(
            f"Checkpoint {name} has format version {shown(repr(version))}; this program reads {FORMAT_VERSION}."
        )
    architecture = _architecture(info, name)
    categories, scale_factor, n_max = info.get("categories"), info.get("scale_factor"), info.get("n_max")
    if (
        not isinstance(categories, list)
        or not all(isinstance(item, str) for item in categories)
        or len(set(categories)) != len(categories)
        or (architecture.n_categories and len(categories) != architecture.n_categories)
    ):
        raise CheckpointError(f"Checkpoint {name} does not name the {architecture.n_categories} categories it needs.")
    # They are shown to people and sent as UTF-8, which knows no halves of a character (\ud800 is valid in JSON).
    if not all(item.isprintable() and 0 < len(item) <= MAX_NAME for item in categories):
        raise CheckpointError(f"Checkpoint {name} has a category whose name is empty, too long or not printable.")
    # Compared, not converted: JSON's whole numbers may be too large for a float.
    if not isinstance(scale_factor, int | float) or not 0 < scale_factor < MAX_SCALE_FACTOR:
        raise CheckpointError(f"Checkpoint {name} has no positive scale factor.")
    if type(n_max) is not int or not 1 <= n_max <= 100_000:
        raise CheckpointError(f"Checkpoint {name} has no sensible N_max.")
    epsilon, needs_z = info.get("epsilon", EPSILON), info.get("needs_z", False)
    if type(epsilon) not in (int, float) or not 0 <= epsilon <= FRAME_SIZE:
        raise CheckpointError(f"Checkpoint {name} has no sensible epsilon.")
    if type(needs_z) is not bool or (needs_z and not architecture.has_encoder):
        raise CheckpointError(f"Checkpoint {name} must say by true or false whether it needs z, and have one if so.")
    return Described(
        architecture,
        categories,
        float(scale_factor),
        n_max,
        name=name,
        training=_dictionary(info.get("training")),
        metrics=_dictionary(info.get("metrics")),
        epsilon=float(epsilon),
        needs_z=needs_z,
    )


def lacks(source: Checkpoint | Described) -> dict[str, str]:
    """{what a network cannot do: why}, of "vary", "blend" and "guess"."""
    found = {}
    if not source.architecture.has_encoder:
        found = dict.fromkeys(("vary", "blend"), "This network has no encoder, so it has no z of a drawing.")
    if source.architecture.n_categories < 2:
        found["guess"] = "This network knows one kind of drawing only."
    return found


def _dictionary(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _read_config(folder: Path) -> dict[str, Any]:
    name, file = shown(folder.name), folder / CONFIG_FILE
    if not folder.is_dir():
        raise CheckpointError(f"There is no checkpoint folder {shown(folder)}.")
    if not file.is_file():
        raise CheckpointError(f"Checkpoint {name} has no {CONFIG_FILE}.")
    if file.stat().st_size > MAX_CONFIG_BYTES:
        raise CheckpointError(f"Checkpoint {name} has a {CONFIG_FILE} that is too large to be one.")
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise CheckpointError(f"Checkpoint {name} has a {CONFIG_FILE} that is not valid JSON.") from None
    if not isinstance(info, dict):
        raise CheckpointError(f"Checkpoint {name} has a {CONFIG_FILE} that is not a JSON object.")
    return info


def _architecture(info: Mapping[str, Any], name: str) -> SketchRNNConfig:
    given = info.get("architecture")
    expected = SketchRNNConfig().as_dict()
    if not isinstance(given, dict) or set(given) != set(expected):
        raise CheckpointError(f"Checkpoint {name} does not describe an architecture this program knows.")
    for key, value in given.items():
        if type(value) is not type(expected[key]) and not (key == "min_sigma" and type(value) is int):
            raise CheckpointError(f"Checkpoint {name} has a wrong value for {key} in its architecture.")
        if key in MAX_SIZES and value > MAX_SIZES[key]:
            raise CheckpointError(f"Checkpoint {name} has an absurd value for {key} in its architecture.")
    try:
        return SketchRNNConfig(**given)
    except ValueError as error:
        raise CheckpointError(f"Checkpoint {name} has a wrong architecture: {error}") from None


def _read_weights(folder: Path, about: Described, known_hash: Any) -> dict[str, NDArray[np.float32]]:
    """Names, kinds and shapes are compared first, from the file's header: only what fits is read."""
    name, file = about.name, folder / WEIGHTS_FILE
    if not file.is_file():
        raise CheckpointError(f"Checkpoint {name} has no {WEIGHTS_FILE}.")
    if file.stat().st_size > MAX_WEIGHTS_BYTES:
        raise CheckpointError(f"Checkpoint {name} has weights that are too large.")
    with torch.device("meta"):  # shapes only: no memory is taken before they are known to fit
        network = SketchRNN(about.architecture)
        expected = {key: tuple(value.shape) for key, value in network.named_parameters()}
    try:
        with file.open("rb") as content:
            if int.from_bytes(content.read(8), "little") > MAX_HEADER_BYTES:
                raise CheckpointError(f"The weights of checkpoint {name} are truncated or damaged.")
        with safe_open(file, framework="pt") as opened:  # NumPy lacks bfloat16
            _check_header(opened, expected, name)
            if known_hash is not None and file_hash(file) not in _listed(known_hash):
                raise CheckpointError(f"The weights of checkpoint {name} are not those that were saved.")
            tensors = {key: opened.get_tensor(key) for key in expected}
            known_digest = (opened.metadata() or {}).get(DIGEST_KEY)
    except CheckpointError:
        raise
    except (SafetensorError, ValueError, KeyError, TypeError, OSError, RuntimeError):
        raise CheckpointError(f"The weights of checkpoint {name} are truncated or damaged.") from None
    stored = {key: tensor.view(torch.uint8).numpy() for key, tensor in tensors.items()}
    if known_digest is not None and known_digest != _digest(stored):
        raise CheckpointError(f"The weights of checkpoint {name} are not those that were saved.")
    weights = {key: np.ascontiguousarray(tensor.float().numpy()) for key, tensor in tensors.items()}
    if not all(np.isfinite(array).all() for array in weights.values()):
        raise CheckpointError(f"The weights of checkpoint {name} hold values that are not finite numbers.")
    return weights


def _check_header(opened: Any, expected: Mapping[str, tuple[int, ...]], name: str) -> None:
    keys = set(opened.keys())
    if keys != set(expected):
        odd = min(keys ^ set(expected))
        raise CheckpointError(f"The weights of checkpoint {name} do not fit its architecture ({shown(odd)}).")
    for key, shape in expected.items():
        part = opened.get_slice(key)
        if tuple(part.get_shape()) != shape:
            raise CheckpointError(
                f"The weights of checkpoint {name} do not fit its architecture: "
                f"{key} has shape {shown(tuple(part.get_shape()))} and should have {shape}."
            )
        if part.get_dtype() not in KINDS:
            raise CheckpointError(
                f"The weights of checkpoint {name} are numbers of kind {part.get_dtype()}; "
                f"this program reads {', '.join(KINDS)}."
            )


def _listed(known: Any) -> list[Any]:
    return known if isinstance(known, list) else [known]


# ---------------------------------------------------------------------------------------------------
# Where checkpoints live


def folders() -> list[Path]:
    """Places that are searched for checkpoints by name: $DUET_CHECKPOINTS, ./checkpoints, and the package's own.

    Those that are shipped lie beside the package in the repository, and in it where it has been installed.
    """
    package = Path(__file__).resolve().parent
    installed = package / "checkpoints"
    places = [Path("checkpoints"), installed if installed.is_dir() else package.parent / "checkpoints"]
    if os.environ.get("DUET_CHECKPOINTS"):
        places.insert(0, Path(os.environ["DUET_CHECKPOINTS"]))
    return list(dict.fromkeys(place.resolve() for place in places if place.is_dir()))


def available() -> dict[str, Path]:
    """{name: folder} of every checkpoint found in :func:`folders`.

    Links that lead out of there are not followed, since what is found is shown to strangers, and neither are names
    that cannot be shown.
    """
    found: dict[str, Path] = {}
    for place in folders():
        for config in sorted(place.glob(f"*/{CONFIG_FILE}")):
            folder = config.parent
            if folder.name.isprintable() and len(folder.name) <= MAX_NAME and is_inside(config, place):
                found.setdefault(folder.name, folder)
    return found


def is_inside(file: Path, folder: Path) -> bool:
    """Whether a file, once its links are followed, lies in a folder."""
    try:
        return file.resolve(strict=True).is_relative_to(folder.resolve(strict=True))
    except (OSError, ValueError, RuntimeError):  # gone, a NUL in its name, links that lead in a circle
        return False


def resolve(name_or_path: str | Path | None = None) -> Path:
    """A checkpoint's folder from its name, its path, or nothing (the default).

    Raises:
        CheckpointError: there is no such checkpoint; the message lists those there are.
    """
    known = available()
    if name_or_path is None:
        if DEFAULT_NAME in known:
            return known[DEFAULT_NAME]
        if known:
            return next(iter(known.values()))
        raise CheckpointError("There is no checkpoint; train one with `python -m sketch_core train`.")
    if str(name_or_path) in known:
        return known[str(name_or_path)]
    path = Path(name_or_path)
    with contextlib.suppress(OSError):  # a name too long to be a file's
        if path.is_dir():
            return path
    listed = ", ".join(known) or "none"
    shown = re.sub(r"[^\w ./:\\-]", "?", str(name_or_path))[:100]
    raise CheckpointError(f"There is no checkpoint {shown!r}; available: {listed}.")
