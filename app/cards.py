"""Model cards as pages of their own: what each network was trained on, how it was measured, what it is bad at."""

from __future__ import annotations

import html
import re

from markdown_it import MarkdownIt
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from app.studio import Studio
from sketch_core.checkpoint import CARD_FILE

PICTURE = re.compile(r"[A-Za-z0-9][\w.-]*\.png")
MAX_CARD = 1_000_000
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


def card_routes(studio: Studio) -> list[Route]:
    """``/models`` (JSON), ``/models/NAME`` (its card) and ``/models/NAME/PICTURE.png``; nothing else is readable."""
    # What a checkpoint's author wrote is text: raw HTML in it is shown, not obeyed.
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")

    async def listed(request: Request) -> JSONResponse:
        return JSONResponse(studio.models())

    async def card(request: Request) -> Response:
        name = request.path_params["name"]
        folder = studio.folders().get(name)
        file = folder / CARD_FILE if folder else None
        if file is None or not file.is_file():
            return PlainTextResponse("There is no such model card.", status_code=404)
        text = file.read_text(encoding="utf-8", errors="replace")[:MAX_CARD]
        # The card's own pictures lie beside it; so does this address, once it ends in a slash.
        body = markdown.render(text).replace('src="', f'src="{html.escape(name)}/')
        return HTMLResponse(PAGE.format(title=html.escape(name), body=body))

    async def picture(request: Request) -> Response:
        folder, name = studio.folders().get(request.path_params["name"]), request.path_params["picture"]
        if folder is None or not PICTURE.fullmatch(name) or not (folder / name).is_file():
            return PlainTextResponse("There is no such picture.", status_code=404)
        return FileResponse(folder / name, media_type="image/png")

    return [
        Route("/models", listed),
        Route("/models/{name}", card),
        Route("/models/{name}/{picture}", picture),
    ]
