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
    page.wait_for_function(f"window.doodleDuet.settingsNow().temperature === {value}")


def choose(page, **values):
    """Through the page's own controls, as a person would, but for the mode: that one is clicked."""
    mode = values.pop("mode", None)
    if mode:
        page.locator(f"#mode input[value={mode}]").check()
        page.wait_for_function(f"window.doodleDuet.settingsNow().mode === '{mode}'")
    if values:
        page.evaluate("(values) => window.doodleDuet.choose(values)", values)
        for name, value in values.items():
            page.wait_for_function(
                "([name, value]) => window.doodleDuet.settingsNow()[name] === value", arg=[name, value]
            )


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
    seed = page.evaluate("window.doodleDuet.settingsNow().seed")
    page.locator("#another").click()
    page.wait_for_function(f"window.doodleDuet.settingsNow().seed !== {seed}")
    third = endings(page)
    assert third != second

    # Take one that is not empty: its strokes join the drawing, as one step.
    k = next(i for i, strokes in enumerate(third) if strokes)
    page.locator(".duet-card").nth(k).click()
    assert hands(page) == ["hand", "hand"] + ["net"] * len(third[k])
    if all(0 <= value <= 512 for stroke in third[k] for point in stroke for value in point):
        assert [stroke["points"] for stroke in drawing(page)[2:]] == third[k]  # others are fitted to the pad
    page.wait_for_timeout(100)
    assert page.evaluate(PIXELS, "--duet-net") > 5
    page.keyboard.press("Control+z")
    assert hands(page) == ["hand", "hand"]
    page.keyboard.press("Control+Shift+z")
    assert len(hands(page)) == 2 + len(third[k])
    page.locator("[data-do=undo]").click()
    endings(page)

    choose(page, mode="vary")
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
    page.wait_for_function("window.doodleDuet.settingsNow().category === 'tree'")
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
    page.evaluate("window.doodleDuet.set({temperature: 99})")
    page.wait_for_function("document.querySelector('.duet-status').textContent.includes('temperature')")
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
    page.wait_for_function("window.doodleDuet.settingsNow().category === 'tree'")


@pytest.mark.parametrize("page", [PHONE | {"locale": "zh"}, PHONE | {"locale": "zh-TW"}], indirect=True)
def test_the_page_speaks_one_language(page):
    chinese = page.evaluate("navigator.language") == "zh-TW"
    undo, seed, anything = ("撤销", "种子", "任意") if chinese else ("Undo", "Seed", "anything")
    tagline = "你起笔" if chinese else "You start a drawing"
    page.wait_for_function(f"document.querySelector('.duet-title').textContent.includes('{tagline}')", timeout=5_000)
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


def test_an_ending_that_leaves_the_pad_is_seen_and_taken_whole(page):
    page.evaluate("""() => { // what the network might answer beside a drawing at the rim
      const real = WebSocket.prototype.send;
      WebSocket.prototype.send = function (text) {
        const asked = JSON.parse(text);
        if (asked.do !== "complete") { real.call(this, text); return; }
        const drawings = Array.from({ length: asked.n }, () => [[[480, 480], [700, 650]]]);
        this.onmessage({ data: JSON.stringify({ id: asked.id, type: "done", drawings }) });
      };
    }""")
    draw(page, HEAD)
    endings(page)
    page.wait_for_timeout(1500)
    orange = """() => {
      const canvas = document.querySelector(".duet-pad");
      const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      let n = 0;
      for (let i = 0; i < data.length; i += 4) if (data[i + 3] > 100 && data[i] > data[i + 2] + 80) n++;
      return n;
    }"""
    net = page.evaluate(orange)
    page.locator("[data-do=take]").click()
    page.wait_for_function("window.doodleDuet.drawing().length === 2")
    points = [point for stroke in drawing(page) for point in stroke["points"]]
    assert max(max(point) for point in points) <= 512 and min(min(point) for point in points) >= 0
    page.wait_for_timeout(200)
    assert net > 0.6 * page.evaluate(orange) > 200, "it was seen whole before, in lines as much finer as it was smaller"
    page.locator("[data-do=undo]").click()
    page.wait_for_function("window.doodleDuet.drawing().length === 1")
    assert drawing(page)[0]["points"][0] == pytest.approx(HEAD[0], abs=2)


def test_each_picture_beside_the_pad_shows_drawing_and_ending(page):
    draw(page, HEAD)
    shown = endings(page)
    page.wait_for_timeout(300)
    for k, strokes in enumerate(shown):
        at = f".duet-card:nth-of-type({k + 1}) canvas"
        assert page.evaluate(PIXELS.replace(".duet-pad", at), "--duet-ink") > 50
        if strokes:
            assert page.evaluate(PIXELS.replace(".duet-pad", at), "--duet-net") > 3


def marks(page, selector):
    """How many pixels of each picture are not empty."""
    return page.evaluate(
        """(selector) => [...document.querySelectorAll(selector)].map((canvas) => {
          if (!canvas.width) return 0;
          const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
          let n = 0;
          for (let i = 3; i < data.length; i += 4) if (data[i] > 60) n++;
          return n;
        })""",
        selector,
    )


def test_temperatures_side_by_side(page):
    draw(page, HEAD)
    endings(page)
    choose(page, mode="compare")
    page.wait_for_function("window.doodleDuet.compared() !== null", timeout=20_000)
    pictures = page.evaluate("window.doodleDuet.compared()")
    assert len(pictures) == 10
    page.wait_for_timeout(200)
    assert min(marks(page, ".duet-column canvas")) > 50, "the start itself is in each picture"
    assert page.locator(".duet-column.duet-here").get_attribute("data-heat") == "0.4"
    # τ marks its column without asking again, by slider and by key.
    choose_temperature(page, 0.9)
    assert page.locator(".duet-column.duet-here").get_attribute("data-heat") == "0.9"
    page.locator(".duet-pad").focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("window.doodleDuet.settingsNow().temperature === 0.8")
    assert page.evaluate("window.doodleDuet.compared()") == pictures
    # A picture that is clicked sets τ and seed, and is then the first ending.
    page.get_by_role("button", name="Grid with four seeds").click()
    page.wait_for_function("(window.doodleDuet.compared() || []).length === 40", timeout=20_000)
    grid = page.evaluate("window.doodleDuet.compared()")
    page.locator(".duet-column").nth(6).locator(".duet-card").nth(2).click()
    page.wait_for_function("window.doodleDuet.settingsNow().seed === 2")
    assert page.evaluate("window.doodleDuet.settingsNow().temperature") == 0.7
    choose(page, mode="finish")
    assert endings(page)[0] == grid[6 * 4 + 2]


def test_blending(page):
    draw(page, HEAD)
    endings(page)
    choose(page, mode="blend")
    page.wait_for_function("window.doodleDuet.blended().length === 9", timeout=30_000)
    page.wait_for_timeout(200)
    shown = marks(page, ".duet-strip canvas")
    assert len(shown) == 9 and min(shown) > 5
    page.get_by_role("button", name="Play", exact=True).click()
    seen = set()
    for _ in range(6):
        page.wait_for_timeout(300)
        seen.add(page.evaluate(PIXELS, "--duet-net"))
    assert len(seen) > 2, "the morph moves on the pad"
    page.get_by_role("button", name="Pause", exact=True).click()
    page.get_by_role("button", name="Four corners").click()
    page.wait_for_function("window.doodleDuet.blended().length === 25", timeout=30_000)
    page.get_by_role("button", name="A − B + C").click()
    page.wait_for_function("window.doodleDuet.blended().length === 1", timeout=30_000)
    picture = page.evaluate("window.doodleDuet.blended()")[0]
    page.locator(".duet-strip .duet-card").click()
    assert [stroke["points"] for stroke in drawing(page)] == picture


def test_another_network_is_chosen(page):
    assert page.evaluate("document.body.dataset.duetModels") == "many"
    page.evaluate("window.doodleDuet.choose({mode: 'vary'})")
    page.locator("#model input").click()
    page.get_by_role("option", name="magenta-tiny-gen").click()
    page.wait_for_function("window.doodleDuet.settingsNow().model === 'magenta-tiny-gen'")
    # What it cannot do is greyed out, with the reason; the mode that it lacks is left.
    page.wait_for_function("window.doodleDuet.settingsNow().mode === 'finish'")
    assert page.locator("#mode input[value=vary]").is_disabled()
    assert "no encoder" in page.locator("#mode label:has(input[value=vary])").get_attribute("title")
    assert page.locator("#mode input[value=compare]").is_enabled()
    draw(page, HEAD)
    page.wait_for_function("window.doodleDuet.endings()")
    theirs = page.evaluate("window.doodleDuet.endings()")
    card = page.locator(".duet-drawn-by a")
    assert card.get_attribute("href") == "models/magenta-tiny-gen"
    page.locator("#model input").click()
    page.get_by_role("option", name="tiny", exact=True).click()
    page.wait_for_function(
        "before => JSON.stringify(window.doodleDuet.endings() || before) !== JSON.stringify(before)", arg=theirs
    )
    assert page.locator("#mode input[value=vary]").is_enabled()


def test_dreaming(page):
    choose(page, mode="dream")
    page.wait_for_function("window.doodleDuet.dreams().length >= 18", timeout=30_000)  # it fills the window by itself
    first = page.evaluate("window.doodleDuet.dreams()")
    choose(page, category="cat")
    page.wait_for_function("window.doodleDuet.dreams().length >= 9", timeout=30_000)
    cats = page.evaluate("window.doodleDuet.dreams()")
    assert cats[0] != first[0]
    page.wait_for_timeout(300)
    page.locator(".duet-dreams .duet-card").nth(3).click()
    assert [stroke["points"] for stroke in drawing(page)] == [stroke["points"] for stroke in cats[3]]


def test_looking_inside(page):
    draw(page, HEAD)
    draw(page, EAR)
    endings(page)
    choose(page, mode="inside")
    page.wait_for_function("window.doodleDuet.inside() !== null", timeout=20_000)
    look = page.evaluate("window.doodleDuet.inside()")
    n = look["steps"]
    assert page.locator(".duet-rows tbody tr").count() == n and look["found"]["pen"][0] == drawing(page)[0]["points"][0]
    page.locator(".duet-pad").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("window.doodleDuet.inside().at") == look["at"] + 1
    here = page.locator(".duet-rows tr.duet-here td").first.text_content()
    assert here == str(look["at"] + 1), "the table follows"
    expected = page.locator(".duet-rows tr.duet-next td").first.text_content()
    assert expected == str(look["at"] + 2), "and what came is the row after it"
    # The map: sharper at low τ than at high, on the pad itself.
    choose_temperature(page, 0.1)
    page.wait_for_timeout(200)
    sharp = marks(page, ".duet-pad")[0]
    choose_temperature(page, 1)
    page.wait_for_timeout(200)
    assert marks(page, ".duet-pad")[0] > 1.2 * sharp
    bars = page.evaluate("[...document.querySelectorAll('.duet-bar b')].map((each) => parseFloat(each.textContent))")
    assert abs(sum(bars) - 100) < 2
    page.get_by_role("button", name="Last step: what comes next").click()
    assert page.evaluate("window.doodleDuet.inside().at") == n - 1


def test_it_guesses_what_is_drawn(page):
    choose(page, category="auto")
    draw(page, HEAD)
    page.wait_for_function("!document.querySelector('.duet-guesses').hidden", timeout=20_000)
    shown = page.locator(".duet-guesses button:visible").all_text_contents()
    assert shown and all(text.endswith("%") for text in shown)
    endings(page)
    page.locator(".duet-guesses button").first.click()  # overruled, or confirmed: a category of its own
    page.wait_for_function("window.doodleDuet.settingsNow().category !== 'auto'")
    assert page.evaluate("window.doodleDuet.settingsNow().category") == shown[0].rsplit(" ", 1)[0]


def test_turns_tools_and_keys(page):
    draw(page, HEAD)
    endings(page)
    choose(page, n=3)
    assert len(endings(page)) == 3 and page.locator(".duet-card:visible").count() == 3
    choose(page, n=9)
    results = endings(page)
    k = next(i for i, strokes in enumerate(results) if strokes)
    page.locator(".duet-gallery .duet-card").nth(k).hover()
    page.keyboard.press("n")  # its next stroke alone
    assert [stroke["points"] for stroke in drawing(page)[1:]] == results[k][:1]
    endings(page)
    page.keyboard.press("Delete")
    assert hands(page) == ["hand"]
    draw(page, EAR)
    page.locator("[data-do=erase]").click()
    box = page.locator(".duet-pad").bounding_box()
    page.mouse.click(box["x"] + EAR[1][0] * box["width"] / 512, box["y"] + EAR[1][1] * box["width"] / 512)
    assert len(drawing(page)) == 1 and drawing(page)[0]["points"][0] == pytest.approx(HEAD[0], abs=2)
    page.mouse.click(box["x"] + HEAD[1][0] * box["width"] / 512, box["y"] + HEAD[1][1] * box["width"] / 512)
    assert drawing(page) == []
    assert page.locator("[data-do=erase]").get_attribute("aria-pressed") == "false", "the pen draws again"
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    assert len(drawing(page)) == 2
    page.keyboard.press("p")
    page.wait_for_timeout(150)
    part = page.evaluate(PIXELS, "--duet-ink")
    page.wait_for_timeout(3500)
    assert page.evaluate(PIXELS, "--duet-ink") > part, "replayed from its first point"
    page.keyboard.press("?")
    assert page.locator("dialog.duet-help").is_visible()
    page.keyboard.press("Escape")
    page.locator("[data-do=clear]").click()
    page.locator("[data-do=example]").click()
    page.wait_for_function("window.doodleDuet.drawing().length > 0", timeout=20_000)
    assert set(hands(page)) == {"hand"}


def test_language_and_settings_survive_a_reload(page, server):
    page.get_by_role("button", name="中文").click()
    page.wait_for_function(
        "window.doodleDuet && window.doodleDuet.connected() && document.documentElement.lang === 'zh-CN'"
    )
    open_page(page, server)
    assert page.locator("#mode").get_by_text("续画").is_visible(), "Gradio's own controls follow"
    choose(page, temperature=0.7, category="cat")
    choose(page, mode="dream")
    open_page(page, server)
    page.wait_for_function("window.doodleDuet.settingsNow().mode === 'dream'")
    kept = page.evaluate("window.doodleDuet.settingsNow()")
    assert kept["temperature"] == 0.7 and kept["category"] == "cat"
    assert page.locator("#mode input[value=dream]").is_checked()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(page, server, theme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    open_page(page, f"{server}/?__theme={theme}")
    draw(page, HEAD)
    endings(page)
    for mode in ("finish", "vary", "compare", "blend", "dream", "inside"):
        choose(page, mode=mode)
        page.wait_for_timeout(1500)
        found = axe.run(page).response["violations"]
        serious = [(mode, each["id"]) for each in found if each["impact"] in ("serious", "critical")]
        assert not serious
