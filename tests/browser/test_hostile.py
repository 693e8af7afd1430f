"""The page when its server is killed, and when names come from strangers."""

from __future__ import annotations

import os
import signal

from benchmarks import fuzz
from tests.browser.test_page import EAR, HEAD, browser, choose, draw, drawing, endings, open_page  # noqa: F401


def hands(page):
    return [stroke["by"] for stroke in drawing(page)]


def test_a_killed_server_costs_neither_drawing_nor_page(browser, tmp_path):  # noqa: F811
    """kill -9, a stroke while nobody answers, a new server on the same port: the same page goes on by itself."""
    server = fuzz.Served("tiny", fuzz.secret_folder(tmp_path)).wait()
    context = browser.new_context(viewport={"width": 1280, "height": 800}, locale="en-US")
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    try:
        open_page(page, f"http://{server.host}")
        page.evaluate("window.stillTheSamePage = true")
        draw(page, HEAD)
        before = endings(page)
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        status = page.locator(".duet-status")
        page.wait_for_function("document.querySelector('.duet-status').dataset.tone === 'warn'", timeout=15_000)
        assert "Connection lost" in status.inner_text()
        assert page.evaluate("getComputedStyle(document.querySelector('.duet-status')).color") != page.evaluate(
            "getComputedStyle(document.querySelector('.duet-heading')).color"
        ), "it is told apart from what is usually said there"
        draw(page, EAR)
        assert hands(page) == ["hand", "hand"] and not page.evaluate("window.doodleDuet.connected()")
        page.wait_for_timeout(3_000)
        assert hands(page) == ["hand", "hand"]
        server.start()
        server.wait()
        page.wait_for_function("window.doodleDuet.connected()", timeout=30_000)
        after = endings(page)
        assert len(after) == 9 and after != before
        page.wait_for_function("document.querySelector('.duet-status').dataset.tone !== 'warn'", timeout=10_000)
        draw(page, [[200, 300], [256, 330], [310, 300]])
        page.wait_for_function("window.doodleDuet.endings() !== null", timeout=20_000)
        assert hands(page) == ["hand"] * 3 and endings(page) != after
        choose(page, mode="dream")  # over the page's other connection
        page.wait_for_function("document.querySelectorAll('.duet-dreams canvas, .duet-panel canvas').length > 0")
        assert page.evaluate("window.stillTheSamePage === true"), "the page was loaded anew"
        assert not errors
    finally:
        context.close()
        server.stop()


def test_names_of_strangers_are_text(browser, tmp_path):  # noqa: F811
    """Categories and networks named in markup and templates: shown as they are, in every place that shows them."""
    with fuzz.served("tiny", fuzz.secret_folder(tmp_path)) as server:
        context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-US")
        page = context.new_page()
        said: list[str] = []
        page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        open_page(page, f"http://{server.host}")
        evil, braces = "<img src=x onerror=alert(1)>", "${7*7} {{7*7}} \"'`"
        assert page.evaluate("window.doodleDuetModels[0].categories") == ["cat", evil, braces]
        page.locator("#category input").click()
        options = page.locator("ul[role=listbox] li, [role=option]")
        options.first.wait_for()
        shown = " ".join(options.all_inner_texts())
        assert evil in shown and braces in shown and "49" not in shown
        page.keyboard.press("Escape")
        for name in (evil, braces):
            choose(page, category=name)
            draw(page, HEAD)
            assert len(endings(page)) == 9
        choose(page, category="auto")
        draw(page, EAR)
        page.wait_for_function("!document.querySelector('.duet-guesses').hidden", timeout=20_000)
        guessed = page.locator(".duet-guesses").inner_text()
        assert "<img src=x" in guessed or "${7*7}" in guessed
        choose(page, model="<b>quoted' \"name", category=None)
        page.locator(".duet-drawn-by a").wait_for()
        assert "<b>quoted' \"name" in page.locator(".duet-drawn-by").inner_text()
        draw(page, EAR)
        assert len(endings(page)) == 9
        for mode in ("inside", "compare"):
            choose(page, mode=mode)
            page.wait_for_timeout(500)
        assert page.locator("img[src=x], .duet-guesses b, .duet-drawn-by b").count() == 0
        href = page.locator(".duet-drawn-by a").get_attribute("href")
        page.goto(f"http://{server.host}/{href}")
        assert page.title() == "<b>quoted' \"name"
        assert page.locator("h1").inner_text() == "<script>alert(1)</script>"
        assert page.locator("script, a[href^=javascript]").count() == 0
        assert not said and not errors
        context.close()
