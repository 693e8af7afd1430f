"""The page: layout and wiring, in the order in which it looks.

What the buttons do is in :mod:`app.studio`; how drawing feels is in ``canvas/canvas.js``. The controls tell
the pad of a change through ``window.doodleDuet.set``; drawings come over the WebSocket of :mod:`app.live`.
"""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from app import text
from app.canvas import SCRIPTS, STYLE, Gallery, Panels, StrokePad, Title
from app.endpoints import endpoints
from app.studio import MAX_DRAWINGS, TEMPERATURES, Studio

THEME = gr.themes.Base(
    primary_hue="orange",
    neutral_hue="stone",
    font=["system-ui", "-apple-system", "Segoe UI", "Noto Sans", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
).set(
    body_text_color_subdued="#5f5a52",
    body_text_color_subdued_dark="#b5b0a6",
    button_primary_background_fill="#c2410c",
    button_primary_background_fill_dark="#c2410c",
)

MODES = ("finish", "vary", "compare", "blend", "dream", "inside")

# Words and pad go into the head, so that both are there before Gradio puts the components in place.
_WORDS = json.dumps(text.WORDS, ensure_ascii=False).replace("<", "\\u003c")
_NAMES = json.dumps(text.CATEGORIES_IN_CHINESE, ensure_ascii=False).replace("<", "\\u003c")
# A language chosen on the page counts as the browser's own, for Gradio's controls too, which look at nothing else.
# Below a proxy's prefix the page's address must end in a slash, or what it asks for would be looked for beside it.
FIRST = """
if (!location.pathname.endsWith("/")) {
  history.replaceState(null, "", `${location.pathname}/${location.search}${location.hash}`);
}
try {
  const chosen = localStorage.getItem("doodle-duet-language");
  if (chosen) {
    Object.defineProperty(navigator, "language", { get: () => chosen });
    Object.defineProperty(navigator, "languages", { get: () => [chosen] });
  }
} catch { /* no storage: the browser's language */ }
"""


def head(studio: Studio) -> str:
    """What stands in the page's head: words, networks, style and scripts."""
    models = json.dumps(studio.models()).replace("<", "\\u003c")
    setup = f"""
    window.doodleDuetWords = {_WORDS};
    window.doodleDuetNames = {_NAMES};
    window.doodleDuetModels = {models};
    window.doodleDuetChinese = {list(text.CHINESE_LOCALES)};
    """
    scripts = "".join(f"<script>{script}</script>" for script in (setup, *SCRIPTS))
    return f"<style>{STYLE}</style>{scripts}"


def build(studio: Studio) -> tuple[gr.Blocks, gr.I18n]:
    """The page, and the words that its launch needs."""
    chinese = dict.fromkeys(text.CHINESE_LOCALES, text.WORDS[text.CHINESE])
    i18n = gr.I18n(**(text.WORDS | chinese))

    with gr.Blocks(title="Doodle Duet", analytics_enabled=False) as page:
        Title()
        mode = gr.Radio(
            [(i18n(name), name) for name in MODES],
            value=MODES[0],
            label=i18n("mode"),
            show_label=False,
            container=False,
            elem_id="mode",
        )
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=320, elem_classes="duet-left"):
                StrokePad()
            with gr.Column(scale=2, min_width=320, elem_classes="duet-right"):
                with gr.Row(elem_classes="duet-controls"):
                    category = gr.Dropdown(
                        text.category_choices(studio.categories, text.ENGLISH),
                        value=text.ANYTHING,
                        label=i18n("category"),
                        filterable=True,
                        elem_id="category",
                        min_width=140,
                    )
                    temperature = gr.Slider(
                        *TEMPERATURES,
                        value=0.4,
                        step=0.05,
                        label=i18n("temperature"),
                        buttons=[],
                        elem_id="temperature",
                        min_width=140,
                    )
                    n = gr.Slider(
                        1,
                        MAX_DRAWINGS,
                        9,
                        step=1,
                        label=i18n("how_many"),
                        buttons=[],
                        elem_id="how-many",
                        min_width=140,
                    )
                    spread = gr.Slider(
                        0, 2, 0.5, step=0.1, label=i18n("how_far"), buttons=[], elem_id="how-far", min_width=140
                    )
                    seed = gr.Number(0, label=i18n("seed"), precision=0, minimum=0, elem_id="seed", min_width=90)
                    model = gr.Dropdown(
                        [item["name"] for item in studio.models()],
                        value=studio.sketcher.name,
                        label=i18n("model"),
                        elem_id="model",
                        min_width=220,
                    )
                    another = gr.Button(i18n("another"), variant="primary", elem_id="another", min_width=90)
                Gallery()
                Panels()
        apply = gr.Button(elem_id="apply", elem_classes="duet-unseen")

        tell = (
            "(mode, category, temperature, seed, n, spread, model) => { "
            "window.doodleDuet.set({mode, temperature, n, spread, model, "
            f"category: category === '{text.ANYTHING}' ? null : category, seed: Math.max(0, seed | 0)}}); }}"
        )
        controls = [mode, category, temperature, seed, n, spread, model]
        gr.on([control.change for control in controls] + [page.load], None, controls, None, js=tell)
        # The pad's wishes (a guess that was clicked, a picture of a comparison) go through the controls as well.
        wanted = (
            "() => { const w = window.doodleDuet.wanted(); "
            f"return [w.mode, w.category ?? '{text.ANYTHING}', w.temperature, w.seed, w.n, w.spread, w.model]; }}"
        )
        apply.click(None, None, controls, js=wanted)
        another.click(None, None, seed, js="() => Math.floor(Math.random() * 1e6)")

        def choices(name: str, request: gr.Request) -> Any:
            """Categories that a network knows, in the visitor's language, and the networks there are now."""
            chosen = request.cookies.get("duet_language", "")
            language = text.preferred_language(chosen or request.headers.get("accept-language", ""))
            models = {item["name"]: item for item in studio.models()}
            known = models.get(name, models[studio.sketcher.name])
            named = text.category_choices(known["categories"], language, guesses="guess" not in known["lacks"])
            return gr.Dropdown(choices=named), gr.Dropdown(choices=list(models))

        quiet: dict[str, Any] = {"api_name": False, "queue": False, "show_progress": "hidden"}
        gr.on([page.load, model.change], choices, model, [category, model], **quiet)

        endpoints(studio)
    return page, i18n
