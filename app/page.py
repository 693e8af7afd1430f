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
from app.studio import MAX_DRAWINGS, TEMPERATURES, Studio, StudioError

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
FIRST = """
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

        _endpoints(studio)
    return page, i18n


def _endpoints(studio: Studio) -> None:
    """The same jobs under "Use via API": JSON strokes in, JSON strokes out."""

    def answer(**fields: Any) -> Any:
        try:
            return studio.answer(**fields)
        except StudioError as error:
            raise gr.Error(str(error), print_exception=False) from None

    def complete(  # noqa: PLR0917 (Gradio hands inputs on by position)
        strokes: Any, category: str | None, temperature: float, n: float, seed: float, pen_down: bool
    ) -> Any:
        """n endings of an unfinished drawing: the new strokes only, in the drawing's own coordinates."""
        return answer(
            do="complete",
            strokes=strokes,
            category=category or None,
            temperature=temperature,
            n=n,
            seed=seed,
            pen_down=pen_down,
        )

    def vary(strokes: Any, category: str | None, temperature: float, n: float, seed: float) -> Any:
        """n whole drawings decoded from z of this one."""
        return answer(do="vary", strokes=strokes, category=category or None, temperature=temperature, n=n, seed=seed)

    def draw(category: str | None, temperature: float, n: float, seed: float) -> Any:
        """n free drawings of a category, or of anything."""
        return answer(do="draw", category=category or None, temperature=temperature, n=n, seed=seed)

    def compare(  # noqa: PLR0917
        strokes: Any, category: str | None, of: str, temperatures: Any, seeds: float, seed: float
    ) -> Any:
        """The same start and noise at several temperatures: all seeds of the first temperature, then of the next."""
        return answer(
            do="compare",
            strokes=strokes,
            category=category or None,
            of=of,
            temperatures=temperatures,
            seeds=seeds,
            seed=seed,
        )

    def blend(  # noqa: PLR0917 (as above)
        drawings: Any, categories: Any, how: str, steps: float, temperature: float, seed: float
    ) -> Any:
        """Drawings between drawings: "strip" of two, "grid" of four, or "sum" (A - B + C) of three."""
        return answer(
            do="blend",
            drawings=drawings,
            categories=categories or None,
            how=how,
            steps=steps,
            temperature=temperature,
            seed=seed,
        )

    def inspect(strokes: Any, category: str | None) -> Any:
        """What the network expected at each point: the mixture, pen probabilities, L_s, L_p, and z."""
        return answer(do="inspect", strokes=strokes, category=category or None)

    def guess(strokes: Any) -> Any:
        """What the network takes a drawing for: five [category, share]."""
        return answer(do="guess", strokes=strokes)

    def categories() -> Any:
        """The categories that the network knows."""
        return studio.categories

    with gr.Group(visible=False):
        example = [[[60, 200], [120, 90], [200, 60], [300, 90], [360, 200]]]
        strokes = gr.JSON(example, label="strokes: [[[x, y], ...], ...]")
        category = gr.Textbox("cat", label="category, or nothing for any")
        temperature = gr.Number(0.4, label="temperature")
        n = gr.Number(9, precision=0, label="n")
        seed = gr.Number(0, precision=0, label="seed")
        pen_down = gr.Checkbox(False, label="pen_down")
        of = gr.Textbox("complete", label="of: complete, vary or draw")
        temperatures = gr.JSON([0.2, 0.4, 0.8], label="temperatures")
        seeds = gr.Number(1, precision=0, label="seeds")
        pair = gr.JSON([example, example], label="drawings: [strokes, ...]")
        names = gr.JSON(None, label="categories, one for each drawing, or nothing")
        how = gr.Textbox("strip", label="how: strip, grid or sum")
        steps = gr.Number(5, precision=0, label="steps")
        drawings = gr.JSON(label="drawings")
        button = gr.Button()
    quiet: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": 4}
    button.click(complete, [strokes, category, temperature, n, seed, pen_down], drawings, api_name="complete", **quiet)
    button.click(vary, [strokes, category, temperature, n, seed], drawings, api_name="vary", **quiet)
    button.click(draw, [category, temperature, n, seed], drawings, api_name="draw", **quiet)
    compared = [strokes, category, of, temperatures, seeds, seed]
    button.click(compare, compared, drawings, api_name="compare", **quiet)
    button.click(blend, [pair, names, how, steps, temperature, seed], drawings, api_name="blend", **quiet)
    button.click(inspect, [strokes, category], drawings, api_name="inspect", **quiet)
    button.click(guess, [strokes], drawings, api_name="guess", **quiet)
    button.click(categories, None, drawings, api_name="categories", **quiet)
