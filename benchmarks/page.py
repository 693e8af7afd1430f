"""How soon the page is ready to be drawn on: a real server, and Chromium with an empty cache each time.

    python -m benchmarks.page [--times 7]

From asking for the address to a pad of its final size that takes strokes. Needs Chromium and playwright (see
requirements-dev.txt).
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time

from playwright.sync_api import sync_playwright

from benchmarks.fuzz import Served

READY = """() => {
    const pad = document.querySelector(".duet-pad");
    const invitation = document.querySelector(".duet-invitation");
    return window.doodleDuet && pad && pad.width > 300 && invitation && !invitation.hidden;
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--times", type=int, default=7)
    options = parser.parse_args()
    server = Served().wait()
    try:
        with sync_playwright() as playwright:
            flags = ["--no-sandbox", "--disable-gpu"]
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
            seconds = []
            for _ in range(options.times):
                context = browser.new_context(viewport={"width": 1280, "height": 860})
                page = context.new_page()
                began = time.perf_counter()
                page.goto(f"http://{server.host}", wait_until="commit")
                page.wait_for_function(READY)
                seconds.append(time.perf_counter() - began)
                context.close()
    finally:
        server.stop()
    print(f"ready after {statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})")


if __name__ == "__main__":
    main()
