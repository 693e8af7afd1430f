"""The page's jobs for programs: what stands under "Use via API" and, with ``--mcp``, what a language model may call.

JSON strokes in; JSON strokes, or pictures as SVG, out. Names, defaults and descriptions are those that the API page,
``gradio_client``, ``/gradio_api/openapi.json`` and MCP show, so they are written for people who know nothing of
this program; docs/scripting.md has an example for each of them.
"""

from __future__ import annotations

import inspect as reflection
from collections.abc import Callable
from typing import Any

import gradio as gr
from gradio.components.api_component import Api
from gradio.utils import get_function_description

from app.studio import BLENDS, MAX_DRAWINGS, Studio, StudioError
from sketch_core import render
from sketch_core.generate import GUIDANCE, SPREAD

AT_ONCE = 4
"""Calls of each endpoint that run side by side; drawings in the making share steps all the same."""
FORMS = ("json", "svg")
SVG_SIDE = 256
"""Pixels of a picture."""

Json = dict[str, Any]


def _or_null(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def _list(schema: Json) -> Json:
    return {"type": "array", "items": schema}


TEXT: Json = {"type": "string"}
NUMBER: Json = {"type": "number"}
WHOLE: Json = {"type": "integer"}
STROKES = _list(_list(_list(NUMBER)))
ARGUMENTS: dict[str, Json] = {
    "strokes": STROKES,
    "category": _or_null(TEXT),
    "temperature": NUMBER,
    "n": WHOLE,
    "seed": WHOLE,
    "pen_down": {"type": "boolean"},
    "guidance": NUMBER,
    "spread": NUMBER,
    "of": {"enum": ["complete", "vary", "draw"]},
    "temperatures": _list(NUMBER),
    "seeds": WHOLE,
    "drawings": _list(STROKES),
    "categories": _or_null(_list(_or_null(TEXT))),
    "how": {"enum": list(BLENDS)},
    "steps": WHOLE,
    "form": {"enum": list(FORMS)},
    "model": _or_null(TEXT),
}
"""What each argument may be, whichever endpoint has it; the studio checks it."""
HALF_CAT = [[[60, 200], [120, 90], [200, 60], [300, 90], [360, 200]]]
EXAMPLES = {"strokes": HALF_CAT, "category": "cat", "drawings": [HALF_CAT, HALF_CAT], "categories": ["cat", "cat"]}
"""Shown where an argument has no default."""
TEMPERATURES_SHOWN = [0.2, 0.4, 0.8]


class Field(Api):
    """An argument or a result of an endpoint: any JSON, described by a schema and a sentence."""

    def __init__(self, value: Any = None, *, label: str, schema: Json, words: str, example: Any = None) -> None:
        self._example = value if example is None else example
        # gradio_client and the API page look for the sentence in one place for arguments, in another for results.
        super().__init__(value, schema | {"additional_description": words, "description": words}, label)

    def get_block_name(self) -> str:
        return "api"

    def example_payload(self) -> Any:
        return self._example

    def example_value(self) -> Any:
        return self._example


def endpoints(studio: Studio) -> None:
    """Put them on the page that is being built."""

    def answer(form: str | None = None, start: Any = None, **fields: Any) -> Any:
        """Ask the studio; errors reach every client as the one sentence they are.

        Args:
            form: "json" or "svg", for what draws.
            start: strokes to show with each drawing, in SVG.
        """
        if form is not None and form not in FORMS:
            raise gr.Error(f"form must be one of {', '.join(FORMS)}.", print_exception=False)
        for name in ("n", "seed", "seeds", "steps"):  # JSON from elsewhere writes whole numbers as 9.0
            if type(fields.get(name)) is float and fields[name].is_integer():
                fields[name] = int(fields[name])
        for name in ("category", "categories", "model"):  # a text field that is left empty
            if fields.get(name) in ("", []):
                fields[name] = None
        try:
            found = studio.answer(**{name: value for name, value in fields.items() if value is not None})
        except StudioError as error:
            raise gr.Error(str(error), print_exception=False) from None
        if form != "svg":
            return found
        given = strokes_of(start)
        return [
            render.svg(given, accent=drawing, size=SVG_SIDE) if given else render.svg(drawing, size=SVG_SIDE)
            for drawing in found
        ]

    def strokes_of(value: Any) -> list[Any]:
        """The strokes of a drawing that has been checked, without times and pressures."""
        if isinstance(value, dict):
            value = value.get("strokes")
        return [[point[:2] for point in stroke] for stroke in value or [] if stroke]

    def complete(  # noqa: PLR0917 (Gradio hands arguments on by position)
        strokes: Any,
        category: Any = None,
        temperature: Any = 0.4,
        n: Any = MAX_DRAWINGS,
        seed: Any = 0,
        pen_down: Any = False,
        guidance: Any = GUIDANCE,
        form: Any = "json",
        model: Any = None,
    ) -> Any:
        """Finish an unfinished drawing: n different endings, each as new strokes only, in the drawing's coordinates.

        Add an ending to the strokes that were given to have the whole drawing; form "svg" shows both, the ending in
        another colour. The same arguments always give the same endings.

        Args:
            strokes: What is drawn so far, a list of strokes, each a list of [x, y] in pixels, y down; of any size.
            category: What it is to become, one of the names that `categories` tells; null for whatever fits.
            temperature: How daring: 0.1 is careful and tidy, 1.0 wild.
            n: How many endings, 1 to 9.
            seed: Another whole number gives other endings.
            pen_down: Whether the last stroke is unfinished too, so that each ending starts by going on with it.
            guidance: How much it insists on the category, 0 to 20.
            form: "json" for strokes, "svg" for pictures.
            model: Which network, one of those that `models` tells; null for the usual one.

        Returns:
            A list of n drawings, each a list of strokes of [x, y], or n SVG pictures
        """
        return answer(
            form,
            strokes,
            do="complete",
            strokes=strokes,
            category=category,
            temperature=temperature,
            n=n,
            seed=seed,
            pen_down=pen_down,
            guidance=guidance,
            model=model,
        )

    def vary(  # noqa: PLR0917 (as above)
        strokes: Any,
        category: Any = None,
        temperature: Any = 0.4,
        n: Any = MAX_DRAWINGS,
        seed: Any = 0,
        spread: Any = SPREAD,
        guidance: Any = GUIDANCE,
        form: Any = "json",
        model: Any = None,
    ) -> Any:
        """Draw a whole drawing anew, n times: like it, and each a little different, in the same place and size.

        Args:
            strokes: The drawing, a list of strokes, each a list of [x, y] in pixels, y down.
            category: What it shows, one of the names that `categories` tells; null for anything.
            temperature: How daring the lines are: 0.1 is careful, 1.0 wild.
            n: How many, 1 to 9.
            seed: Another whole number gives other drawings.
            spread: How far they stray from the drawing, 0 to 3.
            guidance: How much it insists on this drawing rather than on drawings at large, 0 to 20.
            form: "json" for strokes, "svg" for pictures.
            model: Which network, one of those that `models` tells; null for the usual one.

        Returns:
            A list of n drawings, each a list of strokes of [x, y], or n SVG pictures
        """
        return answer(
            form,
            do="vary",
            strokes=strokes,
            category=category,
            temperature=temperature,
            n=n,
            seed=seed,
            spread=spread,
            guidance=guidance,
            model=model,
        )

    def draw(  # noqa: PLR0917 (as above)
        category: Any = None,
        temperature: Any = 0.4,
        n: Any = MAX_DRAWINGS,
        seed: Any = 0,
        guidance: Any = GUIDANCE,
        form: Any = "json",
        model: Any = None,
    ) -> Any:
        """Draw something from nothing, as people doodle it: n drawings of a category, each filling a 512 x 512 square.

        Args:
            category: What to draw, one of the names that `categories` tells, such as cat; null for anything.
            temperature: How daring: 0.1 is careful and tidy, 1.0 wild.
            n: How many, 1 to 9.
            seed: Another whole number gives other drawings.
            guidance: How much it insists on the category, 0 to 20.
            form: "json" for strokes, "svg" for pictures.
            model: Which network, one of those that `models` tells; null for the usual one.

        Returns:
            A list of n drawings, each a list of strokes of [x, y] with y down, or n SVG pictures
        """
        return answer(
            form,
            do="draw",
            category=category,
            temperature=temperature,
            n=n,
            seed=seed,
            guidance=guidance,
            model=model,
        )

    def compare(  # noqa: PLR0917 (as above)
        strokes: Any = None,
        category: Any = None,
        of: Any = "complete",
        temperatures: Any = TEMPERATURES_SHOWN,
        seeds: Any = 1,
        seed: Any = 0,
        guidance: Any = GUIDANCE,
        form: Any = "json",
        model: Any = None,
    ) -> Any:
        """Show what the temperature does: the same start and the same noise at several temperatures.

        Args:
            strokes: The drawing to finish or to vary, a list of strokes of [x, y]; null where `of` is "draw".
            category: What it is, one of the names that `categories` tells; null for anything.
            of: What is compared: "complete", "vary" or "draw".
            temperatures: 1 to 10 temperatures from 0.1 to 1.
            seeds: How many seeds, from `seed` on; at most 60 drawings in all.
            seed: The first seed.
            guidance: How much it insists on the category, 0 to 20.
            form: "json" for strokes, "svg" for pictures.
            model: Which network, one of those that `models` tells; null for the usual one.

        Returns:
            A list of drawings (or SVG pictures): all seeds of the first temperature, then of the next
        """
        return answer(
            form,
            strokes if of == "complete" else None,
            do="compare",
            strokes=strokes,
            category=category,
            of=of,
            temperatures=temperatures,
            seeds=seeds,
            seed=seed,
            guidance=guidance,
            model=model,
        )

    def blend(  # noqa: PLR0917 (as above)
        drawings: Any,
        categories: Any = None,
        how: Any = "strip",
        steps: Any = 5,
        temperature: Any = 0.15,
        seed: Any = 0,
        guidance: Any = GUIDANCE,
        form: Any = "json",
        model: Any = None,
    ) -> Any:
        """Draw what lies between drawings, each filling a 512 x 512 square.

        Args:
            drawings: Two drawings for a strip, four for a grid, three for a sum; each a list of strokes of [x, y].
            categories: What each shows, in the same order; null for anything.
            how: "strip" from the first to the second, "grid" of steps x steps between four, "sum" for A - B + C.
            steps: How many, 2 to 9 in a strip, 2 to 5 each way in a grid.
            temperature: How daring: 0.1 is careful, 1.0 wild.
            seed: Another whole number gives other drawings.
            guidance: How much it insists on these drawings rather than on drawings at large, 0 to 20.
            form: "json" for strokes, "svg" for pictures.
            model: Which network, one of those that `models` tells; null for the usual one.

        Returns:
            A list of drawings, each a list of strokes of [x, y], or SVG pictures; a grid's row by row
        """
        return answer(
            form,
            do="blend",
            drawings=drawings,
            categories=categories,
            how=how,
            steps=steps,
            temperature=temperature,
            seed=seed,
            guidance=guidance,
            model=model,
        )

    def inspect(strokes: Any, category: Any = None, model: Any = None) -> Any:
        """Look inside: what the network expected at each point of a drawing, before it saw the point.

        pi, mu (pixels), sigma and rho are the mixture's, pen_probabilities those of pen down, pen lift and end; l_s
        and l_p are the losses of what came; z_mu and z_sigma are the whole drawing's.

        Args:
            strokes: The drawing, a list of strokes, each a list of [x, y] in pixels, y down.
            category: What it is told that the drawing shows; null for anything.
            model: Which network, one of those that `models` tells; null for the usual one.

        Returns:
            Lists with an entry for each step (pi, mu, sigma, rho, pen_probabilities, l_s, l_p in nats), and z
        """
        return answer(do="inspect", strokes=strokes, category=category, model=model)

    def guess(strokes: Any, model: Any = None) -> Any:
        """Say what a drawing shows, finished or not, with the likelihoods of the network that draws.

        Args:
            strokes: The drawing, a list of strokes, each a list of [x, y] in pixels, y down.
            model: Which network, one of those that `models` tells; null for the usual one.

        Returns:
            The five likeliest categories, each as [name, share], likeliest first
        """
        return answer(do="guess", strokes=strokes, model=model)

    def categories(model: Any = None) -> Any:
        """Tell the names of all that a network can draw.

        Args:
            model: Which network, one of those that `models` tells; null for the usual one.

        Returns:
            A list of names
        """
        known = {item["name"]: item["categories"] for item in studio.models()}
        name = model or studio.sketcher.name
        if not isinstance(name, str) or name not in known:
            raise gr.Error(f"There is no network {str(name)[:60]!r}; choose one of the list.", print_exception=False)
        return known[name]

    def models() -> Any:
        """Tell which networks there are; the first one answers where no other is named.

        Returns:
            A list of objects: name, how many categories it knows, and for what it cannot do the reason
        """
        return [
            {"name": item["name"], "categories": len(item["categories"]), "lacks": item["lacks"]}
            for item in studio.models()
        ]

    fields: dict[str, Field] = {}  # by what they say: many endpoints have the same
    never = gr.Button(visible=False)  # without anything to start them Gradio would run them when the page opens

    def offer(function: Callable[..., Any], result: str, returns: Json) -> None:
        """One endpoint: all that is said of it comes from the function's own signature and docstring."""
        _, words, returned = get_function_description(function)
        arguments = []
        for name, parameter in reflection.signature(function).parameters.items():
            default = None if parameter.default is parameter.empty else parameter.default
            key = f"{name} {default} {words[name]}"
            if key not in fields:
                schema, example = ARGUMENTS[name], EXAMPLES.get(name)
                fields[key] = Field(default, label=name, schema=schema, words=words[name], example=example)
            arguments.append(fields[key])
        never.click(
            function,
            arguments,
            Field(label=result, schema=returns, words=" ".join(returned)),
            api_name=function.__name__,
            show_progress="hidden",
            concurrency_limit=AT_ONCE,
        )

    for drawing in (complete, vary, draw, compare, blend):
        offer(drawing, "drawings", {"anyOf": [_list(STROKES), _list(TEXT)]})
    offer(inspect, "found", {"type": "object"})
    offer(guess, "guesses", _list(_list({})))
    offer(categories, "names", _list(TEXT))
    offer(models, "networks", _list({"type": "object"}))
