"""The README's pictures of the page, and pictures of all it shows, to look at after a change.

    python -m benchmarks.pictures                 # docs/page.png, docs/compare.png, docs/inside.png
    python -m benchmarks.pictures --all DIR       # each mode at 1280 and 390 pixels, light and dark

A real server with the shipped network, and Chromium; needs playwright (see requirements-dev.txt).
"""

from __future__ import annotations

import argparse
import math
import shutil
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.fuzz import Served, served

DOCS = Path(__file__).resolve().parents[1] / "docs"
TURN = [2.0 * math.pi * k / 32 - 0.5 * math.pi for k in range(33)]
CAT = [
    [(286.0 + 140.0 * math.cos(angle), 329.0 + 120.0 * math.sin(angle)) for angle in TURN],
    [(185.0, 243.0), (170.0, 214.0), (162.0, 181.0), (162.0, 160.0), (191.0, 179.0), (225.0, 215.0)],
    [(334.0, 215.0), (370.0, 180.0), (398.0, 160.0), (385.0, 243.0)],
]
"""Head and ears on a pad of 512."""
SEED = 16
"""One of the prettier first endings among two dozen."""
ANSWERED = {
    "finish": "window.doodleDuet.endings() !== null",
    "vary": "window.doodleDuet.endings() !== null",
    "compare": "window.doodleDuet.compared() !== null",
    "blend": "window.doodleDuet.blended().length === 9",
    "dream": "window.doodleDuet.dreams().length >= 9",
    "inside": "window.doodleDuet.inside() !== null",
}
"""What tells that a mode has answered."""
SETTLED_MS = 2500
"""Milliseconds until strokes that draw themselves have come to their ends."""


def open_page(browser: Browser, server: Served, width: int, height: int, **context: Any) -> Page:
    """The page with the cat drawn on it."""
    page = browser.new_context(viewport={"width": width, "height": height}, locale="en-US", **context).new_page()
    page.goto(f"http://{server.host}")
    page.wait_for_function("window.doodleDuet && window.doodleDuet.connected()")
    page.wait_for_timeout(1000)  # Gradio's layout moves for half a second
    page.evaluate(f"window.doodleDuet.choose({{category: 'cat', seed: {SEED}}})")
    box = page.locator(".duet-pad").bounding_box()
    if box is None:
        raise RuntimeError("The page shows no pad.")
    k = box["width"] / 512.0
    for stroke in CAT:
        (x, y), *others = ((box["x"] + x * k, box["y"] + y * k) for x, y in stroke)
        page.mouse.move(x, y)
        page.mouse.down()
        for x, y in others:
            page.mouse.move(x, y, steps=2)
        page.mouse.up()
    page.wait_for_function(ANSWERED["finish"])
    return page


def choose(page: Page, mode: str) -> None:
    page.locator(f"#mode input[value={mode}]").check()
    page.wait_for_function(f"window.doodleDuet.settingsNow().mode === '{mode}'")
    page.wait_for_function(ANSWERED[mode])
    page.wait_for_timeout(SETTLED_MS)
    page.evaluate("window.scrollTo(0, 0)")


def for_readme(browser: Browser, server: Served) -> None:
    page = open_page(browser, server, 1280, 860)
    for mode, name in (("finish", "page"), ("compare", "compare"), ("inside", "inside")):
        choose(page, mode)
        if mode == "inside":
            page.locator(".duet-pad").focus()
            for _ in range(page.evaluate("window.doodleDuet.inside().at") - 12):
                page.keyboard.press("ArrowLeft")
            page.wait_for_timeout(300)
        page.mouse.move(2, 2)
        page.screenshot(path=DOCS / f"{name}.png")


def everything(browser: Browser, server: Served, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for width, height in ((1280, 860), (390, 844)):
        for colours in ("light", "dark"):
            page = open_page(browser, server, width, height, color_scheme=colours, has_touch=width < 500)
            for mode in ANSWERED:
                choose(page, mode)
                page.screenshot(path=folder / f"{mode}-{width}-{colours}.png", full_page=width < 500)
            page.context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--all", type=Path, metavar="DIR", help="every mode, sizes and colours, into this folder")
    options = parser.parse_args()
    with served() as server, sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        if options.all:
            everything(browser, server, options.all)
        else:
            for_readme(browser, server)


if __name__ == "__main__":
    main()
