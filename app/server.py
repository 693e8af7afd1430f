"""The page's server: Gradio's, with the live route on it."""

from __future__ import annotations

import sys

import gradio as gr
from starlette.middleware import Middleware
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse
from starlette.routing import Route

import sketch_core
from app.cards import card_routes
from app.live import live_route
from app.middleware import FirstScript, SafetyHeaders
from app.page import FIRST, THEME, build, head
from app.studio import Studio

MAX_BODY = 262_144
SWITCH_SECONDS = 0.0005
"""How long one thread may hold up another (Python's 5 ms otherwise): a sampling step lets go of the lock often."""


def health_route(studio: Studio) -> Route:
    """``/health``: whether it is alive and ready, for whoever looks after the server."""

    async def health(request: HttpRequest) -> JSONResponse:
        return JSONResponse(
            {"alive": True, "ready": studio.ready, "model": studio.sketcher.name, "version": sketch_core.__version__},
            status_code=200 if studio.ready else 503,
        )

    return Route("/health", health)


def launch(
    studio: Studio, *, host: str = "127.0.0.1", port: int | None = None, share: bool = False, block: bool = True
) -> gr.Blocks:
    """Start the page's server, with the live route on it."""
    sys.setswitchinterval(SWITCH_SECONDS)
    studio.warm()
    page, i18n = build(studio)
    page.queue(max_size=64)
    middleware = [Middleware(SafetyHeaders), Middleware(FirstScript, script=FIRST)]
    app, _, _ = page.launch(
        server_name=host,
        server_port=port,
        share=share,
        prevent_thread_lock=True,
        i18n=i18n,
        theme=THEME,
        head=head(studio),
        footer_links=["api"],
        run_history=False,
        app_kwargs={"max_body_size": MAX_BODY, "middleware": middleware},
    )
    # Points are few bytes, and deflating them costs as much as a tenth of the drawing.
    page.server.config.ws_per_message_deflate = False
    app.router.routes[:0] = [live_route(studio), health_route(studio), *card_routes(studio)]
    if block:
        page.block_thread()
    return page
