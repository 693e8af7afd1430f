"""Sharing in the browser: links between profiles and servers, files out and in, hostile ones, a set of one's own."""

# ruff: noqa: F811 (fixtures are arguments)

from __future__ import annotations

import base64
import io
import json
import random
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sketch_core import checkpoint, quickdraw, strokes, svg
from tests.browser.test_page import (  # noqa: F401 (fixtures)
    EAR,
    HEAD,
    browser,
    choose,
    draw,
    drawing,
    endings,
    open_page,
    page,
)

ROOT = Path(__file__).resolve().parents[2]
DESKTOP = {"viewport": {"width": 1280, "height": 800}, "locale": "en-US"}
KITTEN = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" fill="none" stroke="black">
<g transform="translate(0 1)"><circle cx="12" cy="10" r="7"/><path d="M6 5L4 1 9 3M18 5l2-4-5 2"/></g></svg>"""


def share(page):
    page.get_by_role("button", name="Share", exact=True).click()
    return page.locator("dialog.duet-share")


def link_of(page):
    share(page)
    link = page.get_by_label("Link to this drawing").input_value()
    page.keyboard.press("Escape")
    return link


def told(page):
    return page.locator(".duet-status").text_content()


def visible_endings(page):
    """The endings that have something in them, as the numbers of their cards."""
    return [k for k, ending in enumerate(endings(page)) if ending]


def look(page):
    """Pixels of the pad, and of every thumbnail, once nothing moves."""
    shown = None
    for _ in range(60):
        now = page.evaluate(
            "[document.querySelector('.duet-pad'), ...document.querySelectorAll('.duet-gallery canvas')]"
            ".map((canvas) => canvas.toDataURL())"
        )
        if now == shown:
            return now
        shown = now
        page.wait_for_timeout(700)
    raise AssertionError("The page does not come to rest.")


def put(page, drawn):
    page.evaluate("(strokes) => window.doodleDuet.put(strokes)", drawn)


def closely(a, b, atol=0.06):
    """Two drawings with the same points."""
    assert [len(stroke) for stroke in a] == [len(stroke) for stroke in b]
    for one, two in zip(a, b, strict=True):
        np.testing.assert_allclose(one, two, atol=atol)


def points_of(drawn):
    return [np.array(stroke["points"], dtype=float) for stroke in drawn]


# --- links ---------------------------------------------------------------------------------------------


def test_sixty_points_make_a_short_link(page):
    turn = np.linspace(0, 5 * np.pi, 60)
    spiral = np.column_stack([256 + 13 * turn * np.cos(turn), 256 + 13 * turn * np.sin(turn)]).round(1).tolist()
    put(page, [{"by": "hand", "points": spiral[:30]}, {"by": "net", "points": spiral[30:]}])
    choose(page, temperature=0.35, seed=987654, category="cat")
    endings(page)
    link = link_of(page)
    assert len(link) < 600
    read = page.evaluate("(link) => window.doodleDuet.readLink(link.slice(link.indexOf('#')))", link)
    assert read["strokes"] == drawing(page), "no point has moved"
    assert read["settings"] == page.evaluate("window.doodleDuet.settingsNow()")


class Process:
    """``python app.py`` on a port that stays the same when it is started again."""

    def __init__(self, folder: Path, log: Path) -> None:
        self.folder, self.log = folder, log
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "app.py", "--port", str(self.port), "--checkpoint", str(self.folder)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*command, "--device", "cpu"], cwd=ROOT, stdout=log, stderr=log)
        for _ in range(600):
            try:
                if urllib.request.urlopen(f"{self.url}/health", timeout=5).status == 200:
                    return
            except OSError:
                assert self.process.poll() is None, self.log.read_text()
                time.sleep(0.2)
        raise AssertionError(self.log.read_text())

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        finally:
            self.process.kill()


def test_a_link_opens_in_another_profile_on_a_restarted_server_pixel_for_pixel(browser, tiny_sketcher, tmp_path):
    checkpoint.save(tiny_sketcher.source, tmp_path / "tiny")
    process = Process(tmp_path / "tiny", tmp_path / "log")
    process.start()
    seen = {}
    try:
        for what in ("an ending on the pad", "another one looked at", "one taken", "one drawn over", "a variation"):
            context = browser.new_context(**DESKTOP)
            page = context.new_page()
            open_page(page, process.url)
            choose(page, temperature=0.75, seed=5, category="cat")
            draw(page, HEAD)
            draw(page, EAR)
            some = visible_endings(page)
            cards = page.locator(".duet-card:visible")
            if what == "another one looked at":
                cards.nth(some[-1]).hover()
                page.mouse.move(5, 5)
            elif what in ("one taken", "one drawn over"):
                cards.nth(some[1]).click()
                if what == "one drawn over":
                    draw(page, [[20, 480], [60, 500], [120, 470]])
            elif what == "a variation":
                choose(page, mode="vary")
                cards.nth(visible_endings(page)[2]).click()
            page.mouse.move(5, 5)
            page.evaluate("document.activeElement.blur()")
            seen[what] = (link_of(page), drawing(page), endings(page), look(page))
            context.close()
        process.stop()
        process.start()
        for what, (link, drawn, shown, pixels) in seen.items():
            context = browser.new_context(**DESKTOP)
            page = context.new_page()
            open_page(page, link)
            page.wait_for_function("window.doodleDuet.settingsNow().temperature === 0.75")
            page.mouse.move(5, 5)
            assert drawing(page) == drawn, what
            page.wait_for_function(
                "(shown) => JSON.stringify(window.doodleDuet.endings()) === JSON.stringify(shown)", arg=shown
            )
            assert look(page) == pixels, f"{what}: pixel for pixel"
            assert "came with the link" in told(page)
            settings = page.evaluate("window.doodleDuet.settingsNow()")
            assert (settings["seed"], settings["category"]) == (5, "cat")
            assert page.locator(".duet-card.duet-taken").count() == (what in ("one taken", "a variation"))
            assert link_of(page) == link, f"{what}: handed on as it came"
            context.close()
        hands = [stroke["by"] for stroke in seen["one taken"][1]]
        assert hands[:2] == ["hand", "hand"] and set(hands[2:]) == {"net"}, "whose strokes they are"
    finally:
        process.stop()


def test_the_address_lets_go_of_the_link_once_something_is_drawn(page, server):
    draw(page, HEAD)
    endings(page)
    link = link_of(page)
    draw(page, EAR)
    mine = drawing(page)
    page.evaluate("(link) => { location.href = link; }", link)
    page.wait_for_function("window.doodleDuet.drawing().length === 1")
    assert "#v=2" in page.url
    page.keyboard.press("Control+z")
    assert drawing(page) == mine, "undo brings one's own back"
    assert "#" not in page.url
    draw(page, [[20, 20], [90, 30]])
    open_page(page, page.url)
    assert len(drawing(page)) == 3, "a reload keeps what was drawn since"


def test_a_large_drawing_fits_into_a_link_and_a_huge_one_says_so(page, browser, server):
    line = [[round(256 + 200 * np.cos(k / 9), 1), round(256 + 0.04 * k, 1)] for k in range(5000)]
    put(page, [{"by": "hand", "points": line}])
    context = browser.new_context(**DESKTOP)
    other = context.new_page()
    open_page(other, link_of(page))
    assert drawing(other) == drawing(page)
    context.close()
    put(page, [{"by": "hand", "points": line * 5}])
    dialog = share(page)
    assert page.get_by_label("Link to this drawing").input_value() == ""
    assert page.get_by_role("button", name="Copy link").is_disabled()
    assert "too large for a link" in dialog.inner_text()


DAMAGED = [
    "v=1&d=!!",
    "v=1&d=gICAgICA",
    "v=1&d=BQIC&t=99",
    "v=1&d=BQIC&t=NaN",
    "v=1&d=BQIC&t=1e-1",
    "v=1&d=BQIC&c=unicorn",
    "v=1&d=BQIC&m=constructor",
    "v=1&m=__proto__&c=__proto__&d=BQIC",
    "v=1&d=BQIC&d=BQIC",
    "v=1&d=" + "A" * 400_000,
    "v=2&m=finish&t=0.4&s=0&n=9&f=0.5&d=BAIC&x=0",
    "v=2&m=fin",
    "v=0&d=BQIC",
    "v=&d=BQIC",
    "d=BQIC",
    "v=1&d=%00%ff%fe&__proto__[polluted]=1",
    "<img src=x onerror=window.hacked=1>",
    "javascript:window.hacked=1",
    "v=1&k=<script>window.hacked=1</script>&c=<b>&d=BQIC",
    "%F0%28%8C%BC=%FF&\u0000",
]


@pytest.mark.parametrize("fragment", DAMAGED)
def test_a_damaged_link_opens_an_empty_pad_and_says_so(page, server, fragment):
    draw(page, HEAD)
    endings(page)
    mine = drawing(page)
    page.on("dialog", lambda box: pytest.fail(f"a dialog: {box.message}"))
    page.goto("about:blank")
    open_page(page, f"{server}/#{fragment}")
    assert drawing(page) == []
    assert "damaged" in told(page)
    assert page.evaluate("window.hacked === undefined && ({}).polluted === undefined")
    page.keyboard.press("Control+z")
    assert drawing(page) == mine, "nothing of one's own is lost"
    assert len(endings(page)) == 9


def test_a_link_of_a_newer_version_says_so_and_other_places_on_the_page_are_no_links(page, server):
    page.goto("about:blank")
    open_page(page, f"{server}/#v=3&d=BQIC&x=abc")
    assert drawing(page) == [] and "newer version" in told(page)
    draw(page, HEAD)
    mine = drawing(page)
    page.evaluate("location.hash = 'some-heading'")
    page.wait_for_timeout(200)
    assert drawing(page) == mine


def test_a_link_of_the_first_version_still_opens(page, server):
    page.goto("about:blank")
    open_page(page, f"{server}/#v=1&m=vary&c=cat&t=0.5&s=3&n=4&f=1&d=BNgEyAFkZA")
    assert drawing(page) == [{"by": "hand", "points": [[30, 10], [35, 15]]}]
    page.wait_for_function("window.doodleDuet.settingsNow().seed === 3")
    assert page.evaluate("window.doodleDuet.settingsNow().mode") == "vary"


def test_a_network_that_is_not_here_is_said(page, server):
    draw(page, HEAD)
    endings(page)
    fragment = page.evaluate(
        "() => { const link = window.doodleDuet; const all = window.doodleDuetModels; "
        "all[0].name = 'elsewhere'; link.settings.model = 'elsewhere'; const made = link.link(); "
        "all[0].name = 'tiny'; link.settings.model = 'tiny'; return made.split('#')[1]; }"
    )
    assert "k=elsewhere" in fragment
    mine = drawing(page)
    page.goto("about:blank")
    open_page(page, f"{server}/#{fragment}")
    assert drawing(page) == mine
    assert len(endings(page)) == 9
    page.wait_for_function("document.querySelector('.duet-status').textContent.includes('elsewhere, is not here')")


def generated(seed: int, sound: list[str], n: int) -> list[str]:
    """Links that somebody or something has damaged, and links made to do harm."""
    dice = random.Random(seed)
    keys = [
        "v",
        "m",
        "k",
        "c",
        "g",
        "t",
        "s",
        "n",
        "f",
        "e",
        "o",
        "b",
        "d",
        "x",
        "__proto__",
        "constructor",
        "toString",
    ]
    values = [
        *("1", "2", "3", "-1", "0", "9", "NaN", "Infinity", "-Infinity", "1e308", "1e-9", "0x10", "true", "null", ""),
        *(
            "undefined",
            "[object Object]",
            "__proto__",
            "constructor",
            "finish",
            "vary",
            "auto",
            "cat",
            "tiny",
            "猫",
            "💥",
        ),
        *(
            "<svg onload=window.hacked=1>",
            "</script><script>window.hacked=1</script>",
            "javascript:hacked()",
            "../../x",
        ),
        *(
            "{{constructor.constructor('window.hacked=1')()}}",
            "${window.hacked=1}",
            "'\"`",
            "%",
            "%00",
            "%u0000",
            "a" * 5000,
        ),
        *("BQIC", "BNgEyAFkZA", "AAAA", "_" * 40, "-" * 41, "/////w", "gICAgAE", "_____38", "gICAgICAgICAgIAB"),
    ]
    made = []
    for _ in range(n):
        kind, link = dice.randrange(6), dice.choice(sound)
        if kind == 0:  # one letter changed, lost or doubled
            at = dice.randrange(len(link))
            link = link[:at] + dice.choice(["", link[at] * 2, chr(dice.randrange(32, 0x2FF))]) + link[at + 1 :]
        elif kind == 1:  # cut off
            link = link[: dice.randrange(3, len(link))]
        elif kind == 2:  # bytes
            link = base64.urlsafe_b64encode(dice.randbytes(dice.randrange(1, 300))).decode() + "="
        elif kind == 3:  # a drawing of random bytes, in a form that has no check
            link = "v=1&d=" + base64.urlsafe_b64encode(dice.randbytes(dice.randrange(1, 200))).decode().rstrip("=")
        elif kind == 4:  # keys and values of every sort
            link = "&".join(f"{dice.choice(keys)}={dice.choice(values)}" for _ in range(dice.randrange(1, 9)))
        else:  # one field of a sound link said otherwise, where no check tells
            fields = dict(part.split("=", 1) for part in sound[-1].split("&")) | {
                dice.choice(keys): dice.choice(values)
            }
            link = "&".join(f"{key}={value}" for key, value in fields.items())
        made.append(link)
    return made


def test_whatever_a_link_says_it_is_sound_or_damaged(page, server):
    draw(page, HEAD)
    draw(page, EAR)
    page.locator(".duet-card:visible").nth(visible_endings(page)[0]).click()
    own = link_of(page).split("#")[1]
    sound = [own, "v=1&m=vary&c=cat&t=0.5&s=3&n=4&f=1&d=BNgEyAFkZA"]
    links = generated(7, sound, 6000)
    found = page.evaluate(
        """(links) => links.map((link) => {
          const read = window.doodleDuet.readLink("#" + link);
          if (read === null) return "none of ours";
          if (read.damaged) return Object.keys(read).sort().join() === "damaged,version" ? "damaged" : "odd";
          const { strokes, settings, taken, shown, base } = read;
          const point = (p) => p.length === 2 && p.every((v) => Number.isFinite(v) && Math.abs(v) <= 4096);
          const whole = (s) => ["hand", "net"].includes(s.by) && s.points.length && s.points.every(point);
          const sound = (all) => all.every(whole);
          const known = [null, "auto", "cat", "dog", "tree"];
          return sound(strokes) && sound(base || []) && known.includes(settings.category)
            && ["finish", "vary", "compare", "blend", "dream", "inside"].includes(settings.mode)
            && settings.temperature >= 0.1 && settings.temperature <= 1 && Number.isInteger(settings.seed)
            && settings.n >= 1 && settings.n <= 9 && settings.spread >= 0 && settings.spread <= 2
            && shown >= 0 && shown < settings.n && (taken === null || taken === shown)
            && Object.getPrototypeOf(settings) === Object.prototype ? "sound" : "odd";
        })""",
        links,
    )
    assert found.count("odd") == 0, [link for link, what in zip(links, found, strict=True) if what == "odd"][:5]
    assert found.count("damaged") > 3000 and found.count("sound") > 50
    # The check tells of any letter that was changed, unless it is spelled otherwise and says the same.
    changed = [own[:at] + ("A" if own[at] != "A" else "B") + own[at + 1 :] for at in range(2, len(own))]
    read = page.evaluate("(links) => links.map((link) => (window.doodleDuet.readLink(link) || {}).damaged)", changed)
    assert all(read)
    shorter = [own[:at] for at in range(3, len(own))]
    read = page.evaluate("(links) => links.map((link) => (window.doodleDuet.readLink(link) || {}).damaged)", shorter)
    assert all(read)
    assert page.evaluate("window.hacked === undefined && ({}).polluted === undefined")


def test_generated_links_in_the_address(page, server):
    page.on("dialog", lambda box: pytest.fail(f"a dialog: {box.message}"))
    links = generated(11, ["v=1&m=vary&c=cat&t=0.5&s=3&n=4&f=1&d=BNgEyAFkZA"], 120)
    for number, link in enumerate(links):
        if number % 20 == 0:  # opened anew; the others by changing the address of the open page
            page.goto("about:blank")
            open_page(page, f"{server}/#{link}")
        else:
            page.evaluate("(link) => { location.hash = link; }", link)
            page.wait_for_timeout(20)
        read = page.evaluate("window.doodleDuet.readLink(location.hash)")
        if read and read.get("damaged"):
            assert drawing(page) == [], link
            assert "so the pad is empty" in told(page), link
    assert page.evaluate("window.hacked === undefined && ({}).polluted === undefined")
    open_page(page, server)
    draw(page, HEAD)
    assert len(endings(page)) == page.evaluate("window.doodleDuet.settingsNow().n")


# --- in a frame ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["clipboard-write 'none'; clipboard-read 'none'", ""])
def test_the_link_can_be_had_in_a_frame_that_is_denied_the_clipboard(browser, server, policy):
    context = browser.new_context(**DESKTOP)
    outer = context.new_page()
    html = f'<iframe src="/" allow="{policy}" style="width: 1200px; height: 760px; border: 0"></iframe>'
    outer.route(f"{server}/frame", lambda route: route.fulfill(body=html, content_type="text/html"))
    outer.goto(f"{server}/frame")
    inner = outer.frame_locator("iframe")
    frame = outer.frames[1]
    frame.wait_for_function("window.doodleDuet && window.doodleDuet.connected()", timeout=30_000)
    frame.evaluate("(strokes) => window.doodleDuet.put(strokes)", [{"by": "hand", "points": HEAD}])
    inner.get_by_role("button", name="Share", exact=True).click()
    field = inner.get_by_label("Link to this drawing")
    link = field.input_value()
    assert link.startswith(f"{server}/#v=2")
    inner.get_by_role("button", name="Copy link").click()
    says = inner.locator(".duet-share-says")
    says.get_by_text("Copied.").wait_for()  # the old way works where the new one is denied
    field.press("Control+c")
    # Where the old way is refused too, the link is marked, and one key away.
    frame.evaluate(
        "() => { document.execCommand = () => false; "
        "navigator.clipboard.writeText = () => Promise.reject(new Error()); }"
    )
    inner.get_by_role("button", name="Copy link").click()
    says.get_by_text("press Ctrl+C").wait_for()
    chosen = frame.evaluate(
        "() => { const f = document.activeElement; return f.value.slice(f.selectionStart, f.selectionEnd); }"
    )
    assert chosen == link
    context.close()


# --- out -----------------------------------------------------------------------------------------------


def saved(page, form):
    page.get_by_label("Format").select_option(form)
    with page.expect_download(timeout=20_000) as download:
        page.locator("dialog.duet-share").get_by_role("button", name="Save", exact=True).click()
    content = Path(download.value.path()).read_bytes()
    return download.value.suggested_filename, content


@pytest.fixture
def duet(page):
    """A page with two strokes of one's own and one of the network's between them."""
    put(
        page,
        [
            {"by": "hand", "points": HEAD},
            {"by": "net", "points": [[130.5, 240], [120, 110.3], [200, 160]]},
            {"by": "hand", "points": [[210, 240]]},
        ],
    )
    choose(page, category="cat")
    endings(page)
    return page


def test_every_form_is_saved_and_says_the_same_drawing(duet, tmp_path):
    share(duet)
    drawn = points_of(drawing(duet))
    name, picture = saved(duet, "png")
    found = Image.open(io.BytesIO(picture))
    assert name == "cat.png" and found.size == (1024, 1024)
    assert found.convert("RGBA").getpixel((5, 5)) == (255, 255, 255, 255)
    colours = {colour for _, colour in found.convert("RGB").getcolors(100_000)}
    assert {(0x1F, 0x24, 0x30), (0xC2, 0x41, 0x0C)} <= colours
    duet.get_by_label("Without paper").check()
    assert Image.open(io.BytesIO(saved(duet, "png")[1])).convert("RGBA").getpixel((5, 5))[3] == 0

    name, picture = saved(duet, "svg")
    assert name == "cat.svg" and picture.startswith(b"<svg") and picture.count(b"<path") == 3
    assert b"#1f2430" in picture and b"#c2410c" in picture
    again = svg.drawing_from_svg(picture)
    assert [len(stroke) == 1 for stroke in again] == [False, False, True]
    for before, after in zip(drawn, again, strict=True):
        np.testing.assert_allclose([after[0], after[-1]], [before[0], before[-1]], atol=0.02)

    name, film = saved(duet, "gif")
    found = Image.open(io.BytesIO(film))
    assert name == "cat.gif" and found.size == (512, 512) and found.info["loop"] == 0
    assert found.n_frames > 25 and len(film) < 200_000
    found.seek(found.n_frames - 1)
    assert found.info["duration"] >= 2000, "the end is held"
    last = found.convert("RGB")
    near = {tuple(round(c / 16) for c in colour) for _, colour in last.getcolors(100_000)}
    assert {(2, 2, 3), (12, 4, 1), (16, 16, 16)} <= near, "both inks and paper"
    assert last.getpixel((120, 111))[0] > 150 > last.getpixel((120, 111))[2], "the network's stroke is orange"
    found.seek(3)
    assert min(found.convert("L").crop((90, 80, 230, 160)).tobytes()) > 200, "strokes come in their order"

    name, text = saved(duet, "json")
    assert name == "cat.json"
    closely(strokes.drawing_from_json(json.loads(text)), drawn)
    assert json.loads(text)["by"] == ["hand", "net", "hand"]
    name, text = saved(duet, "stroke3")
    assert name == "cat.stroke3.json" and strokes.is_stroke3(json.loads(text))
    rows = np.array(json.loads(text))
    closely([stroke + drawn[0][0] for stroke in strokes.from_stroke3(rows)], drawn, atol=0.6)
    np.testing.assert_allclose(rows, strokes.to_stroke3(drawn), atol=0.051)
    name, text = saved(duet, "ndjson")
    (tmp_path / name).write_bytes(text)
    ((word, _, quick),) = quickdraw.read_ndjson(tmp_path / "cat.ndjson")
    assert word == "cat" and abs(strokes.longest_side(quick) - 255) <= 1
    frame = strokes.fit_frame(drawn)
    ours = strokes.simplify(frame.from_canvas(drawn))
    closely(quick, ours, atol=0.51)


def test_every_form_is_copied_or_the_browser_says_no(duet, browser):
    duet.context.grant_permissions(["clipboard-read", "clipboard-write"])
    dialog = share(duet)
    says = duet.locator(".duet-share-says")
    for form in ("svg", "json", "stroke3", "ndjson"):
        duet.get_by_label("Format").select_option(form)
        dialog.get_by_role("button", name="Copy", exact=True).click()
        says.get_by_text("Copied.").wait_for()
        text = duet.evaluate("navigator.clipboard.readText()")
        expected = duet.evaluate(f"window.doodleDuet.files.{form}()")
        if form == "ndjson":  # its key is another each time
            text, expected = ({**json.loads(each), "key_id": ""} for each in (text, expected))
        assert text == expected, form
    duet.get_by_label("Format").select_option("png")
    dialog.get_by_role("button", name="Copy", exact=True).click()
    says.get_by_text("Copied.").wait_for()
    copied = duet.evaluate(
        """async () => {
          const [item] = await navigator.clipboard.read(), blob = await item.getType("image/png");
          const bitmap = await createImageBitmap(blob);
          return [item.types.join(), bitmap.width, bitmap.height];
        }"""
    )
    assert copied == ["image/png", 1024, 1024]
    duet.get_by_label("Format").select_option("gif")
    dialog.get_by_role("button", name="Copy", exact=True).click()
    says.get_by_text("no page copy an animation").wait_for()
    duet.evaluate("() => { navigator.clipboard.write = () => Promise.reject(new Error()); }")
    duet.get_by_label("Format").select_option("png")
    dialog.get_by_role("button", name="Copy", exact=True).click()
    says.get_by_text("save it as a file instead").wait_for()


def test_a_picture_of_a_drawing_that_leaves_the_pad_shows_all_of_it(page):
    put(page, [{"by": "hand", "points": [[-200, 100], [700, 400]]}])
    share(page)
    picture = Image.open(io.BytesIO(saved(page, "png")[1])).convert("L")
    dark = np.argwhere(np.asarray(picture) < 128)
    assert dark.min() > 2 and dark.max() < 1021, "nothing is cut"
    found = svg.drawing_from_svg(saved(page, "svg")[1])
    np.testing.assert_allclose(found[0][[0, -1]], [[-200, 100], [700, 400]], atol=0.02)
    film = Image.open(io.BytesIO(saved(page, "gif")[1]))
    film.seek(film.n_frames - 1)
    dark = np.argwhere(np.asarray(film.convert("L")) < 128)
    assert dark.min() > 1 and dark.max() < 510


def test_a_large_drawing_becomes_an_animation(page):
    dice = np.random.default_rng(0)
    big = [
        {
            "by": "net" if k % 2 else "hand",
            "points": (dice.uniform(60, 450, 2) + dice.normal(0, 9, (40, 2)).cumsum(0)).round(1).tolist(),
        }
        for k in range(150)
    ]
    put(page, big)
    share(page)
    _, film = saved(page, "gif")
    assert Image.open(io.BytesIO(film)).n_frames <= 210 and len(film) < 1_500_000


def test_an_empty_pad_has_nothing_to_save(page):
    dialog = share(page)
    assert dialog.get_by_role("button", name="Save", exact=True).is_disabled()
    assert dialog.get_by_role("button", name="Copy", exact=True).is_disabled()
    assert "pad is empty" in dialog.inner_text()


# --- in ------------------------------------------------------------------------------------------------


def pick(page, name, content):
    share(page)
    page.locator("dialog.duet-share input[type=file]").set_input_files(
        {
            "name": name,
            "mimeType": "application/octet-stream",
            "buffer": content if isinstance(content, bytes) else content.encode(),
        }
    )


DROP = """([name, text]) => {
  const carried = new DataTransfer();
  carried.items.add(new File([text], name));
  const pad = document.querySelector(".duet-pad");
  for (const type of ["dragover", "drop"])
    pad.dispatchEvent(new DragEvent(type, { dataTransfer: carried, bubbles: true, cancelable: true }));
}"""
PASTE = """(text) => {
  const carried = new DataTransfer();
  carried.setData("text/plain", text);
  document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData: carried, bubbles: true, cancelable: true }));
}"""


def test_what_was_saved_can_be_opened_again_by_button_drop_and_paste(duet):
    files = {form: duet.evaluate(f"window.doodleDuet.files.{form}()") for form in ("json", "stroke3", "ndjson", "svg")}
    before = drawing(duet)
    for way in ("button", "drop", "paste"):
        for form, text in files.items():
            put(duet, [{"by": "hand", "points": [[1, 1], [9, 9]]}])
            if way == "button":
                pick(duet, f"a.{form}", text)
            elif way == "drop":
                duet.evaluate(DROP, [f"a.{form}", text])
            else:
                duet.evaluate(PASTE, text)
            duet.wait_for_function("window.doodleDuet.drawing().length === 3", timeout=20_000)
            assert not duet.locator("dialog.duet-share").is_visible()
            after = drawing(duet)
            if form == "json":
                assert after == before
            elif form == "svg":
                assert [len(stroke["points"]) == 1 for stroke in after] == [False, False, True]
            else:  # without a place of its own: fitted to the pad
                assert [len(a["points"]) for a in after][1:] == [3, 1]
                low, high = np.concatenate(points_of(after)).min(0), np.concatenate(points_of(after)).max(0)
                np.testing.assert_allclose(low + high, [512, 512], atol=0.2)
                assert (high - low).max() == pytest.approx(0.8 * 512, abs=0.2) or form == "stroke3"
            duet.keyboard.press("Control+z")
            assert drawing(duet) == [{"by": "hand", "points": [[1, 1], [9, 9]]}], "one step brings the old one back"
    assert len(endings(duet)) == 9


def test_a_picture_from_elsewhere_is_fitted_to_the_pad(page):
    pick(page, "kitten.svg", KITTEN)
    page.wait_for_function("window.doodleDuet.drawing().length === 3", timeout=20_000)
    assert "Undo brings yours back" in told(page) or endings(page)
    found = points_of(drawing(page))
    low, high = np.concatenate(found).min(0), np.concatenate(found).max(0)
    assert (high - low).max() == pytest.approx(0.8 * 512, abs=0.2)
    np.testing.assert_allclose(low + high, [512, 512], atol=0.2)
    assert {stroke["by"] for stroke in drawing(page)} == {"hand"}
    assert len(endings(page)) == 9


def test_an_official_file_is_opened_by_its_first_line(page):
    line = (
        json.dumps({"word": "cat", "recognized": True, "drawing": [[[0, 100, 255], [0, 30, 0]], [[5, 9], [7, 8]]]})
        + "\n"
    )
    pick(page, "cat.ndjson", line * 20_000)
    page.wait_for_function("window.doodleDuet.drawing().length === 2")


BAD_FILES = {
    "words": ("hello", "no drawing that can be read"),
    "empty": ("", "no drawing that can be read"),
    "object": ("{}", "no drawing that can be read"),
    "nothing drawn": ("[]", "no drawing that can be read"),
    "half a point": ("[[[1]]]", "no drawing that can be read"),
    "infinity": ("[[[1e999, 0]]]", "no drawing that can be read"),
    "no points": ('{"strokes": [{"points": []}]}', "no drawing that can be read"),
    "columns of words": ('{"drawing": [[["a"], ["b"]]]}', "no drawing that can be read"),
    "prototype": ('{"__proto__": {"polluted": 1}, "strokes": {"__proto__": []}}', "no drawing that can be read"),
    "null": ("null", "no drawing that can be read"),
    "entities": (
        '<!DOCTYPE svg [<!ENTITY a SYSTEM "file:///etc/passwd">]><svg><text>&a;</text></svg>',
        "declares entities",
    ),
    "script alone": ('<svg xmlns="http://www.w3.org/2000/svg"><script>window.hacked=1</script></svg>', "no lines"),
    "use loop": (
        '<svg xmlns="http://www.w3.org/2000/svg"><g id="a"><use href="#a"/></g></svg>',
        "uses a part of itself",
    ),
    "NaN": ('<svg><g transform="scale(1e200) scale(1e200)"><path d="M0 0L9 9"/></g></svg>', "not finite"),
    "HTML": ("<html><img src=x onerror=window.hacked=1></html>", "no SVG picture"),
    "10 MB": ('<svg><path d="M0 0' + "L1 1" * 2_500_000 + '"/></svg>', "too large"),
    "300 kB": ('<svg><path d="M0 0' + "L1 1" * 75_000 + '"/></svg>', "too large"),
    "noise": (
        '<svg><path d="M'
        + "L".join(f"{x} {y}" for x, y in np.random.default_rng(1).integers(0, 999, (6000, 2)))
        + '"/></svg>',
        "too detailed",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_cannot_be_opened_gets_one_sentence_and_changes_nothing(page, name):
    page.on("dialog", lambda box: pytest.fail(f"a dialog: {box.message}"))
    draw(page, EAR)
    mine = drawing(page)
    content, sentence = BAD_FILES[name]
    pick(page, "file.svg", content)
    page.locator(".duet-share-says").get_by_text(sentence).wait_for(timeout=20_000)
    assert drawing(page) == mine
    if len(content) < 100_000 and content:
        page.keyboard.press("Escape")
        page.evaluate(DROP, ["file", content])
        page.wait_for_function(
            "(text) => document.querySelector('.duet-status').textContent.includes(text)", arg=sentence
        )
    assert drawing(page) == mine
    assert page.evaluate("window.hacked === undefined && ({}).polluted === undefined")


def test_scripts_in_a_picture_never_run_and_nothing_is_fetched(page, server):
    """The ``page`` fixture fails if any other host is asked."""
    hostile = """<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"
    onload="window.hacked=1"><script>window.hacked=1</script><script href="http://evil.invalid/x.js"/>
    <image href="http://evil.invalid/x.png"/><style>@import url(http://evil.invalid/x.css);</style>
    <foreignObject><img xmlns="http://www.w3.org/1999/xhtml" src="x" onerror="window.hacked=1"/></foreignObject>
    <a href="javascript:window.hacked=1"><path onclick="window.hacked=1" d="M10 10L90 90">
    <animate attributeName="d" onbegin="window.hacked=1"/></path></a>
    <use xlink:href="http://evil.invalid/x.svg#a"/></svg>"""
    for way in (lambda: page.evaluate(DROP, ["a.svg", hostile]), lambda: page.evaluate(PASTE, hostile)):
        put(page, [])
        way()
        page.wait_for_function("window.doodleDuet.drawing().length === 1", timeout=20_000)
        page.wait_for_timeout(500)
        assert page.evaluate("window.hacked === undefined")
        assert page.evaluate("document.querySelectorAll('image, foreignObject, animate').length") == 0


def test_pasting_into_a_field_is_left_alone_and_a_pasted_link_opens(page):
    draw(page, HEAD)
    endings(page)
    link, mine = link_of(page), drawing(page)
    put(page, [])
    page.evaluate(
        """() => {
          const carried = new DataTransfer();
          carried.setData("text/plain", "[[[1, 1], [300, 300]]]");
          const field = document.querySelector("#seed input");
          field.dispatchEvent(new ClipboardEvent("paste", { clipboardData: carried, bubbles: true, cancelable: true }));
        }"""
    )
    page.wait_for_timeout(300)
    assert drawing(page) == []
    page.evaluate(PASTE, link)
    page.wait_for_function("window.doodleDuet.drawing().length === 1")
    assert drawing(page) == mine


def test_without_a_server_opening_a_picture_says_so(page):
    page.route("**/share/*", lambda route: route.abort())
    pick(page, "kitten.svg", KITTEN)
    page.locator(".duet-share-says").get_by_text("Connection lost").wait_for()
    page.unroute("**/share/*")
    page.route("**/share/*", lambda route: route.fulfill(status=503, body="<html>a proxy</html>"))
    page.keyboard.press("Escape")
    pick(page, "kitten.svg", KITTEN)
    page.locator(".duet-share-says").get_by_text("Many people").wait_for()


# --- a set of one's own --------------------------------------------------------------------------------


def keep(page, word=None):
    if word is not None:
        page.get_by_label("What is it?").last.fill(word)
    page.get_by_role("button", name="Keep this drawing").click()


def test_a_set_of_doodles_is_kept_downloaded_and_trained_on(page, server, tmp_path):
    for k in range(12):
        angle = np.linspace(0, 2 * np.pi, 400)
        ring = np.column_stack([256 + (100 + 5 * k) * np.cos(angle), 256 + 90 * np.sin(angle)]).round(1).tolist()
        put(page, [{"by": "hand", "points": ring}, {"by": "net", "points": [[200, 200], [220, 240 + k]]}])
        share(page)
        if not page.locator(".duet-set").evaluate("(set) => set.open"):
            page.locator(".duet-set summary").click()
        keep(page, "dragonfly" if k % 3 else "my  robot\u0007\n")
        assert page.locator(".duet-set summary b").text_content() == str(k + 1)
        page.keyboard.press("Escape")
    open_page(page, server)  # it outlives a reload
    share(page)
    page.locator(".duet-set summary").click()
    assert "12 kept: my robot 4, dragonfly 8." in page.locator(".duet-set").inner_text()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the set").click()
    assert download.value.suggested_filename == "my-doodles.ndjson"
    file = tmp_path / "my-doodles.ndjson"
    download.value.save_as(file)
    page.get_by_role("button", name="Empty it").click()
    assert "Nothing is kept yet." in page.locator(".duet-set").inner_text()
    page.locator(".duet-set").get_by_role("button", name="Undo").click()
    assert "12 kept" in page.locator(".duet-set").inner_text()

    found = quickdraw.load_sets(file)
    assert found["train"].categories == ["dragonfly", "my robot"]
    assert sum(len(each) for each in found.values()) == 12, "none is too long to be learned from"
    rows = [row for each in found.values() for row in each.stroke3]
    assert all(4 < len(row) < 60 and row[:, 2].sum() == 2 for row in rows)
    sides = [strokes.longest_side(strokes.from_stroke3(row)) for row in rows]
    assert min(sides) > 245 and max(sides) <= 256


def test_a_full_browser_says_so(page):
    draw(page, HEAD)
    share(page)
    page.locator(".duet-set summary").click()
    page.evaluate(
        "() => { Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); }; }"
    )
    keep(page, "cat")
    page.locator(".duet-share-says").get_by_text("no room for more").wait_for()
    assert "Nothing is kept yet." in page.locator(".duet-set").inner_text()


def test_a_damaged_set_in_the_browser_is_left_out(page, server):
    page.evaluate(
        "localStorage.setItem('doodle-duet-set', JSON.stringify([1, null, {word: 1}, "
        "{word: 'a', drawing: [[[1], ['x']]]}, "
        "{word: '<img src=x onerror=window.hacked=1>', drawing: [[[1, 2], [3, 4]]]}]))"
    )
    draw(page, HEAD)
    share(page)
    page.locator(".duet-set summary").click()
    assert "1 kept: <img src=x" in page.locator(".duet-set").inner_text()
    assert page.evaluate("window.hacked === undefined")


# --- everybody -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_the_panel(page, server, theme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    open_page(page, f"{server}/?__theme={theme}")
    draw(page, HEAD)
    endings(page)
    share(page)
    page.locator(".duet-set summary").click()
    keep(page, "cat")
    found = axe.run(page).response["violations"]
    assert not [each["id"] for each in found if each["impact"] in ("serious", "critical")]


def test_the_panel_works_by_keyboard_and_gives_the_focus_back(page):
    draw(page, HEAD)
    endings(page)
    page.get_by_role("button", name="Share", exact=True).focus()
    page.keyboard.press("Enter")
    reached = []
    for _ in range(12):
        reached.append(
            page.evaluate("document.activeElement.textContent.trim().slice(0, 12) || document.activeElement.tagName")
        )
        page.keyboard.press("Tab")
    text = " ".join(reached)
    for name in ("INPUT", "Copy link", "PNG picture", "Save", "Copy", "Open a file", "My set", "Close"):
        assert name[:12] in text, (name, reached)
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.textContent") == "Share"
    assert len(drawing(page)) == 1, "keys in the panel draw nothing"


@pytest.mark.parametrize("page", [{"viewport": {"width": 390, "height": 844}, "locale": "zh-CN"}], indirect=True)
def test_the_panel_fits_a_phone_in_chinese(page):
    draw(page, HEAD)
    endings(page)
    page.get_by_role("button", name="分享", exact=True).click()
    dialog = page.locator("dialog.duet-share")
    page.locator(".duet-set summary").click()
    box = dialog.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["height"] <= 844
    assert dialog.evaluate("(d) => d.scrollWidth <= d.clientWidth")
    words = dialog.inner_text()
    assert "复制链接" in words and "我的集子" in words and "share_" not in words and "set_" not in words
