"""Title, drawing pad and the pictures beside it, as Gradio components.

All are ``gr.HTML`` with a static template: what moves on them is drawn by ``canvas.js``, which knows nothing
of Gradio. Nothing that a person drew or wrote ever goes through a template.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

HERE = Path(__file__).parent
SCRIPTS = [(HERE / name).read_text(encoding="utf-8") for name in ("canvas.js", "modes.js", "inside.js", "share.js")]
STYLE = (HERE / "canvas.css").read_text(encoding="utf-8")

CARDS = 9


def _icon(path: str) -> str:
    return (
        '<svg viewBox="0 0 24 24" width="20" height="20" fill="none" stroke="currentColor" stroke-width="2"'
        f' stroke-linecap="round" stroke-linejoin="round" aria-hidden="true"><path d="{path}"/></svg>'
    )


UNDO = _icon("M9 14 4 9l5-5M4 9h10a6 6 0 0 1 0 12h-3")
REDO = _icon("m15 14 5-5-5-5M20 9H10a6 6 0 0 0 0 12h3")
CLEAR = _icon("M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13M10 11v5M14 11v5")
TAKE = _icon("m5 12 5 5L20 7")
NEXT = _icon("M4 18c4-10 8 4 12-6M16 6l4 4-4 4")
ERASE = _icon("m7 21-4-4 10-10 6 6-8 8H7ZM11 9l6 6M21 21H11")
REPLAY = _icon("M7 5v14l11-7z")


def _tool(do: str, icon: str, kind: str = "") -> str:
    return (
        f'<button type="button" class="duet-tool {kind}" data-do="{do}" data-tip="{do}_tip" disabled>'
        f'{icon}<span data-word="{do}"></span></button>'
    )


def _static(template: str, attach: str) -> dict[str, Any]:
    """Settings of a component that never renders again and is handed to ``canvas.js`` once it is on the page."""
    return {
        "html_template": template,
        "js_on_load": f"window.doodleDuet.{attach}(element);",
        "apply_default_css": False,
        "padding": False,
        "container": False,
    }


TITLE = """
<div class="duet-title">
  <div><h1 data-word="title"></h1><p data-word="tagline"></p></div>
  <div class="duet-corner">
    <div role="group" data-label="language">
      <button type="button" data-language="en" lang="en">English</button>
      <button type="button" data-language="zh-CN" lang="zh-CN">中文</button>
    </div>
    <button type="button" data-do="share" data-word="share"></button>
    <button type="button" data-do="help" data-tip="shortcuts">?</button>
  </div>
</div>
"""

PAD = f"""
<div class="duet-pad-frame">
  <canvas class="duet-pad" role="img" tabindex="0"></canvas>
  <div class="duet-invitation">
    <strong data-word="invite"></strong><span data-word="invite_more"></span>
    <button type="button" class="duet-tool" data-do="example" data-tip="example_tip">
      <span data-word="example"></span></button>
  </div>
</div>
<div class="duet-status" data-tone=""></div>
<div class="duet-guesses" hidden>
  <span data-word="looks_like"></span>{'<button type="button" hidden></button>' * 5}
</div>
<div class="duet-tools" role="toolbar" data-label="toolbar">
  {_tool("undo", UNDO, "duet-icon")}{_tool("redo", REDO, "duet-icon")}{_tool("erase", ERASE, "duet-icon")}
  {_tool("clear", CLEAR, "duet-icon")}{_tool("replay", REPLAY, "duet-icon")}
  {_tool("next", NEXT, "duet-finish")}{_tool("take", TAKE, "duet-primary duet-finish")}
</div>
<div class="duet-legend"><i class="duet-by-hand"></i><span data-word="you"></span>
  <i class="duet-by-net"></i><span data-word="network"></span></div>
<div class="duet-live" aria-live="polite"></div>
"""

GALLERY = f"""
<div class="duet-gallery-head"><h2 class="duet-heading"></h2><span class="duet-hint"></span></div>
<div class="duet-empty"><strong class="duet-empty-title"></strong><span class="duet-empty-more"></span></div>
<div class="duet-cards" hidden>
  {'<button type="button" class="duet-card" disabled><canvas></canvas><b class="duet-badge"></b></button>' * CARDS}
</div>
"""


PANELS = """
<div class="duet-panels"></div>
<p class="duet-drawn-by" hidden><span></span> · <a target="_blank" rel="noopener" data-word="card"></a></p>
"""


class Title(gr.HTML):
    """Name and tagline."""

    def __init__(self) -> None:
        super().__init__(**_static(TITLE, "attachTitle"))


class StrokePad(gr.HTML):
    """The pad with its tools."""

    def __init__(self) -> None:
        super().__init__(**_static(PAD, "attachPad"))


class Gallery(gr.HTML):
    """The network's other drawings, one of which may be taken."""

    def __init__(self) -> None:
        super().__init__(elem_classes="duet-gallery", **_static(GALLERY, "attachGallery"))


class Panels(gr.HTML):
    """What the modes beside finishing and varying show, and which network it is that draws."""

    def __init__(self) -> None:
        super().__init__(**_static(PANELS, "attachPanels"))
