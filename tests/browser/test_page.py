"""The page in Debian's Chromium: what is on the canvas, not only what is in the document."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.conftest import needs

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HEAD = [[120, 250], [150, 350], [256, 400], [360, 350], [390, 250], [330, 160], [180, 160], [121, 249]]
EAR = [[130, 240], [120, 110], [200, 160]]
PIXELS = """(colour) => {
  const canvas = document.querySelector(".duet-pad"), context = canvas.getContext("2d");
  const probe = document.createElement("canvas").getContext("2d");
  probe.fillStyle = getComputedStyle(canvas).getPropertyValue(colour); probe.fillRect(0, 0, 1, 1);
  const [r, g, b] = probe.getImageData(0, 0, 1, 1).data;
  const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
  let n = 0;
  for (let i = 0; i < data.length; i += 4)
    if (data[i + 3] > 100 && Math.abs(data[i] - r) + Math.abs(data[i + 1] - g) + Math.abs(data[i + 2] - b) < 40) n++;
  return n;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator:
    path = shutil.which("chromium") or shutil.which("google-chrome") or ""
    needs(bool(path), "The browser tests need Chromium.")
    sync_api = pytest.importorskip("playwright.sync_api", reason="The browser tests need playwright from pip.")
    with sync_api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, server, request) -> Iterator:
    settings = getattr(request, "param", {"viewport": {"width": 1280, "height": 800}, "locale": "en-US"})
    context = browser.new_context(**settings)
    page = context.new_page()
    errors: list[str] = []
    hosts: set[str] = set()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda made: hosts.add(made.url.split("/")[2]) if made.url.startswith("http") else None)
    open_page(page, server)
    yield page
    context.close()
    assert not errors
    assert hosts == {server.split("/")[2]}, "the page asked another host"


def open_page(page, server):
    page.goto(server)
    page.wait_for_function("window.doodleDuet && window.doodleDuet.connected()", timeout=30_000)
    box = None
    for _ in range(50):  # Gradio's layout moves for half a second
        new = page.locator(".duet-pad").bounding_box()
        if new == box and box:
            return
        box = new
        page.wait_for_timeout(150)


def draw(page, points):
    box = page.locator(".duet-pad").bounding_box()
    k = box["width"] / 512
    to = [(box["x"] + x * k, box["y"] + y * k) for x, y in points]
    page.mouse.move(*to[0])
    page.mouse.down()
    for place in to[1:]:
        page.mouse.move(*place, steps=4)
    page.mouse.up()


def endings(page):
    page.wait_for_function("window.doodleDuet.endings() !== null", timeout=20_000)
    return page.evaluate("window.doodleDuet.endings()")


def drawing(page):
    return page.evaluate("window.doodleDuet.drawing()")


def hands(page):
    return [stroke["by"] for stroke in drawing(page)]


def choose_temperature(page, value):
    page.locator("#temperature input[type=number]").fill(str(value))
    page.locator("#temperature input[type=number]").press("Enter")
    page.wait_for_function(f"window.doodleDuet.settings().temperature === {value}")


def test_from_first_stroke_to_variations(page):
    assert page.evaluate(PIXELS, "--duet-ink") == 0
    draw(page, HEAD)
    ink = page.evaluate(PIXELS, "--duet-ink")
    assert ink > 1000
    first = endings(page)
    assert len(first) == 9
    draw(page, EAR)  # it thinks again
    second = endings(page)
    assert second != first and hands(page) == ["hand", "hand"]
    page.wait_for_timeout(1500)
    assert page.evaluate(PIXELS, "--duet-net") > 5, "the ending shows on the pad in its own colour"

    # Another temperature: the same seed, other endings, and back again the very same.
    choose_temperature(page, 0.9)
    assert endings(page) != second
    choose_temperature(page, 0.4)
    assert endings(page) == second
    seed = page.evaluate("window.doodleDuet.settings().seed")
    page.locator("#another").click()
    page.wait_for_function(f"window.doodleDuet.settings().seed !== {seed}")
    third = endings(page)
    assert third != second

    # Take one that is not empty: its strokes join the drawing, as one step.
    k = next(i for i, strokes in enumerate(third) if strokes)
    page.locator(".duet-card").nth(k).click()
    assert hands(page) == ["hand", "hand"] + ["net"] * len(third[k])
    assert [stroke["points"] for stroke in drawing(page)[2:]] == third[k]
    page.wait_for_timeout(100)
    assert page.evaluate(PIXELS, "--duet-net") > 5
    page.keyboard.press("Control+z")
    assert hands(page) == ["hand", "hand"]
    page.keyboard.press("Control+Shift+z")
    assert len(hands(page)) == 2 + len(third[k])
    page.locator("[data-do=undo]").click()
    endings(page)

    page.get_by_label("Vary it").check()
    page.wait_for_function("window.doodleDuet.settings().mode === 'vary'")
    variations = endings(page)
    assert variations != third
    page.locator(".duet-card").nth(1).click()
    assert [stroke["points"] for stroke in drawing(page)] == variations[1]
    assert set(hands(page)) == {"net"}

    # Clear, and clearing can be undone.
    page.locator("[data-do=clear]").click()
    assert drawing(page) == []
    page.wait_for_timeout(100)
    assert page.evaluate(PIXELS, "--duet-ink") == 0 and page.evaluate(PIXELS, "--duet-net") == 0
    page.locator("[data-do=undo]").click()
    assert [stroke["points"] for stroke in drawing(page)] == variations[1]


def test_a_category_can_be_searched_for(page):
    draw(page, HEAD)
    before = endings(page)
    box = page.locator("#category input")
    box.click()
    box.fill("")
    box.press_sequentially("ree")  # the list is searched at each key
    page.wait_for_function("document.querySelectorAll('[role=option]').length === 1")
    page.get_by_role("option", name="tree").click()
    page.wait_for_function("window.doodleDuet.settings().category === 'tree'")
    assert endings(page) != before


def test_a_reload_keeps_the_drawing(page, server):
    draw(page, HEAD)
    draw(page, EAR)
    kept, shown = drawing(page), endings(page)
    open_page(page, server)
    assert drawing(page) == kept
    assert endings(page) == shown


def test_a_lost_connection_keeps_the_drawing_and_comes_back(page):
    draw(page, HEAD)
    shown = endings(page)
    page.evaluate("window.doodleDuet._drop()")
    draw(page, EAR)
    page.wait_for_function("window.doodleDuet.connected()", timeout=15_000)
    assert endings(page) != shown and hands(page) == ["hand", "hand"]


def test_an_endless_stroke_and_a_dot(page):
    page.evaluate(
        """() => {
          const pad = document.querySelector(".duet-pad"), box = pad.getBoundingClientRect();
          const send = (type, x, y) => pad.dispatchEvent(new PointerEvent(type, {
            pointerId: 7, pointerType: "pen", clientX: box.left + x, clientY: box.top + y, bubbles: true }));
          send("pointerdown", 5, 5);
          for (let i = 0; i < 100000; i++) send("pointermove", (i * 7) % box.width, (i * 3) % box.height);
          send("pointerup", 5, 5);
        }"""
    )
    assert len(endings(page)) == 9
    page.locator("[data-do=clear]").click()
    draw(page, [[250, 250]])
    assert len(endings(page)) == 9 and len(drawing(page)) == 1


def test_the_buttons_can_be_read_in_the_dark(page, server):
    open_page(page, server + "/?__theme=dark")
    back = page.evaluate("getComputedStyle(document.querySelector('#another')).backgroundColor")
    assert back == "rgb(194, 65, 12)"  # white on it is 5.2 to 1


def test_an_error_is_said_and_the_drawing_stays(page):
    draw(page, HEAD)
    endings(page)
    page.evaluate("window.doodleDuet.set({category: 'unicorn'})")
    page.wait_for_function("document.querySelector('.duet-status').textContent.includes('unicorn')")
    assert len(drawing(page)) == 1


PHONE = {
    "viewport": {"width": 390, "height": 844},
    "locale": "zh-CN",
    "has_touch": True,
    "is_mobile": True,
    "device_scale_factor": 2,
    "color_scheme": "dark",
}


@pytest.mark.parametrize("page", [PHONE], indirect=True)
def test_touch_on_a_phone_in_chinese_and_dark(page):
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert "撤销" in page.locator("[data-do=undo]").inner_text()
    box = page.locator(".duet-pad").bounding_box()
    assert box["width"] > 320
    session = page.context.new_cdp_session(page)
    x, y = box["x"] + 60, box["y"] + 60

    def touch(kind, *places):
        points = [{"x": a, "y": b, "id": i} for i, (a, b) in enumerate(places)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", (x, y))
    for i in range(1, 15):
        touch("touchMove", (x + i, y + 14 * i))  # straight down: it draws and does not scroll
    touch("touchEnd")
    assert page.evaluate("window.scrollY") == 0
    strokes = drawing(page)
    assert len(strokes) == 1 and len(strokes[0]["points"]) > 5
    assert len(endings(page)) == 9
    page.wait_for_timeout(300)
    assert page.evaluate(PIXELS, "--duet-ink") > 100
    page.locator("[data-do=undo]").tap()
    assert drawing(page) == []
    page.locator("#category input").tap()
    page.locator("#category input").fill("树")
    page.get_by_role("option", name="树 tree").tap()
    page.wait_for_function("window.doodleDuet.settings().category === 'tree'")


@pytest.mark.parametrize("page", [PHONE | {"locale": "zh"}, PHONE | {"locale": "zh-TW"}], indirect=True)
def test_the_page_speaks_one_language(page):
    chinese = page.evaluate("navigator.language") == "zh-TW"
    undo, seed, anything = ("撤销", "种子", "任意") if chinese else ("Undo", "Seed", "anything")
    tagline = "你起笔" if chinese else "You start a drawing"
    page.wait_for_function(f"document.querySelector('.duet-title').innerText.includes('{tagline}')", timeout=5_000)
    assert undo in page.locator("[data-do=undo]").inner_text()
    page.wait_for_function(f"document.querySelector('#seed').innerText.includes('{seed}')", timeout=5_000)
    page.wait_for_function(f"document.querySelector('#category input').value === '{anything}'", timeout=5_000)


def test_an_error_without_an_id_ends_the_waiting(page, server):
    answer = '{"id": null, "type": "error", "code": "too_large", "message": "no"}'
    page.route_web_socket("**/live", lambda socket: socket.on_message(lambda message: socket.send(answer)))
    open_page(page, server)
    draw(page, HEAD)
    page.wait_for_function("document.querySelector('.duet-status').textContent.includes('too large')")
    assert len(drawing(page)) == 1


def test_each_picture_beside_the_pad_shows_drawing_and_ending(page):
    draw(page, HEAD)
    shown = endings(page)
    page.wait_for_timeout(300)
    for k, strokes in enumerate(shown):
        at = f".duet-card:nth-of-type({k + 1}) canvas"
        assert page.evaluate(PIXELS.replace(".duet-pad", at), "--duet-ink") > 50
        if strokes:
            assert page.evaluate(PIXELS.replace(".duet-pad", at), "--duet-net") > 3
