"""The page's server: Gradio's, with the live route on it."""

from __future__ import annotations

import sys

import gradio as gr
from starlette.middleware import Middleware

from app.first import FirstScript
from app.live import live_route
from app.page import FIRST, THEME, build, head
from app.studio import Studio

MAX_BODY = 262_144
SWITCH_SECONDS = 0.0005
"""How long one thread may hold up another (Python's 5 ms otherwise): a sampling step lets go of the lock often."""


def launch(
    studio: Studio, *, host: str = "127.0.0.1", port: int | None = None, share: bool = False, block: bool = True
) -> gr.Blocks:
    """Start the page's server, with the live route on it."""
    sys.setswitchinterval(SWITCH_SECONDS)
    studio.warm()
    page, i18n = build(studio)
    page.queue(max_size=64)
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
        app_kwargs={"max_body_size": MAX_BODY, "middleware": [Middleware(FirstScript, script=FIRST)]},
    )
    # Points are few bytes, and deflating them costs as much as a tenth of the drawing.
    page.server.config.ws_per_message_deflate = False
    app.router.routes.insert(0, live_route(studio))
    if block:
        page.block_thread()
    return page
