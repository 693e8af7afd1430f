"""Downloading the official Quick, Draw! files of a category, for those who have a network.

Files land in a cache folder ($DUET_CACHE, $XDG_CACHE_HOME/doodle-duet or ~/.cache/doodle-duet). A download that
breaks off goes on where it stopped; the SHA-256 of a finished file is kept beside it and checked on every use.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from importlib import resources
from pathlib import Path

from tqdm import tqdm

BASE_URL = "https://storage.googleapis.com/quickdraw_dataset/"
FORMS = {
    "npz": ("sketchrnn/{}.npz", "{}.npz"),
    "full": ("sketchrnn/{}.full.npz", "{}.full.npz"),
    "ndjson": ("full/simplified/{}.ndjson", "{}.ndjson"),
}
TIMEOUT = 30.0
CHUNK = 1 << 16
PARTIAL, UNSATISFIABLE = 206, 416


class DownloadError(ValueError):
    """A download that failed; one sentence that says what to do."""


def official_categories() -> list[str]:
    """The 345 categories of Quick, Draw!."""
    return resources.files("sketch_core").joinpath("categories.txt").read_text(encoding="utf-8").splitlines()


def cache_folder() -> Path:
    """Where downloads are kept."""
    if os.environ.get("DUET_CACHE"):
        return Path(os.environ["DUET_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "doodle-duet"


def fetch(category: str, *, form: str = "npz", folder: str | Path | None = None, base_url: str = BASE_URL) -> Path:
    """A category's official file, downloaded unless it is there already and whole.

    A file without a record of its SHA-256 was put there by hand and is taken as it is.

    Args:
        form: "npz" (70,000 drawings), "full" (all of them) or "ndjson" (simplified).
        folder: where to put it; :func:`cache_folder` by default.

    Raises:
        DownloadError: no such category or form, no network, or the server refuses.
    """
    if category not in official_categories():
        raise DownloadError(f"Quick, Draw! has no category {category[:60]!r}.")
    if form not in FORMS:
        raise DownloadError(f"There is no form {form!r}; choose one of {', '.join(FORMS)}.")
    remote, local = (pattern.format(category) for pattern in FORMS[form])
    target = Path(folder or cache_folder()) / local
    record = target.with_name(target.name + ".json")
    if target.is_file() and (not record.exists() or _recorded(record) == _sha256(target)):
        return target
    part = target.with_name(target.name + ".part")
    url = base_url + urllib.parse.quote(remote)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            etag = _download(url, part, category)
        except urllib.error.HTTPError as error:
            if error.code != UNSATISFIABLE:
                raise
            # A run that was killed at the very end left a whole part, beyond which there is nothing to ask for.
            part.unlink(missing_ok=True)
            etag = _download(url, part, category)
        os.replace(part, target)
        text = json.dumps({"url": url, "etag": etag, "sha256": _sha256(target)}) + "\n"
        record.write_text(text, encoding="utf-8")
        part.with_name(part.name + ".etag").unlink(missing_ok=True)
    except urllib.error.HTTPError as error:
        raise DownloadError(f"The server refused {url} (status {error.code}).") from None
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(
            f"Could not download {url} ({error}); without a network, copy the file to {target} yourself."
        ) from None
    return target


def _download(url: str, part: Path, label: str) -> str:
    """Fill ``part``, going on from what it holds if the file on the server is still the same; returns its ETag."""
    tag_file = part.with_name(part.name + ".etag")
    have = part.stat().st_size if part.is_file() and tag_file.is_file() else 0
    headers = {"Range": f"bytes={have}-", "If-Range": tag_file.read_text(encoding="utf-8")} if have else {}
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        goes_on = response.status == PARTIAL
        etag = str(response.headers.get("ETag", ""))
        if etag:
            tag_file.write_text(etag, encoding="utf-8")
        start = have if goes_on else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        bar = tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=label)
        with bar, part.open("ab" if goes_on else "wb") as stream:
            while chunk := response.read(CHUNK):
                stream.write(chunk)
                bar.update(len(chunk))
        if total is not None and part.stat().st_size != total:
            raise OSError(f"the connection broke off after {part.stat().st_size:,} of {total:,} bytes; try again")
    return etag


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _recorded(record: Path) -> str:
    try:
        return str(json.loads(record.read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
