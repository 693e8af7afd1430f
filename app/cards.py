"""Model cards as pages of their own: what each network was trained on, how it was measured, what it is bad at."""

from __future__ import annotations

import functools
import html
import re
import urllib.parse
from pathlib import Path

from markdown_it import MarkdownIt
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from app.studio import Studio
from sketch_core.checkpoint import CARD_FILE, is_inside

PICTURE = re.compile(r"[A-Za-z0-9][\w.-]*\.png")
MAX_CARD = 100_000
"""Characters of a card that are shown: ours has 3,400, and hostile Markdown takes long to read."""
POLICY = "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Of cards, beside the page's: they need no scripts."""
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
  :root {{ color-scheme: light dark; }}
  body {{ font: 16px/1.55 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
  table {{ border-collapse: collapse; display: block; overflow-x: auto; }}
  th, td {{ border: 1px solid #8886; padding: .25rem .6rem; text-align: left; }}
  img {{ max-width: 100%; background: #fff; border-radius: 8px; }}
  pre {{ overflow-x: auto; }}
</style></head><body>{body}</body></html>
"""


# What a checkpoint's author wrote is text: raw HTML in it is shown, not obeyed, and links lead to pages only.
MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")


def card_routes(studio: Studio) -> list[Route]:
    """``/models`` (JSON), ``/models/NAME`` (its card) and ``/models/NAME/PICTURE.png``; nothing else is readable.

    Functions that are not ``async`` run in threads: a card that takes long to read holds nobody up.
    """

    def file_of(name: str, picked: str) -> Path | None:
        folder = studio.folders().get(name)
        file = folder / picked if folder else None
        return file if file and file.is_file() and is_inside(file, file.parent) else None

    def listed(request: Request) -> JSONResponse:
        return JSONResponse(studio.models())

    def card(request: Request) -> Response:
        name = request.path_params["name"]
        file = file_of(name, CARD_FILE)
        if file is None:
            return PlainTextResponse("There is no such model card.", status_code=404)
        return HTMLResponse(_page(name, file, file.stat().st_mtime_ns), headers={"content-security-policy": POLICY})

    def picture(request: Request) -> Response:
        picked = request.path_params["picture"]
        file = file_of(request.path_params["name"], picked) if PICTURE.fullmatch(picked) else None
        if file is None:
            return PlainTextResponse("There is no such picture.", status_code=404)
        return FileResponse(file, media_type="image/png")

    return [
        Route("/models", listed),
        Route("/models/{name}", card),
        Route("/models/{name}/{picture}", picture),
    ]


@functools.lru_cache(maxsize=16)
def _page(name: str, file: Path, changed: int) -> str:
    """A card as a page, made anew when its file has changed."""
    with file.open(encoding="utf-8", errors="replace") as content:
        text = content.read(MAX_CARD)
    tokens = MARKDOWN.parse(text)
    for token in tokens:
        for part in token.children or []:
            if part.type == "image":  # the card's own pictures lie beside it; so does this address, once it ends in /
                part.attrs["src"] = f"./{urllib.parse.quote(name, safe='')}/{part.attrs['src']}"
    body = MARKDOWN.renderer.render(tokens, MARKDOWN.options, {})
    return PAGE.format(title=html.escape(name), body=body)
