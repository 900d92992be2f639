"""Takes the pictures in docs/pictures anew, of a stack of its own; `make screenshots` runs it."""

import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from chromium import chromium
from live_stack import Stack
from PIL import Image
from playwright.sync_api import Browser, Page, expect

OUT = Path(__file__).resolve().parent.parent / "docs" / "pictures"
DESK = {"width": 1120, "height": 860}
PHONE = {"width": 390, "height": 780}
PATIENCE_MS = 600_000
POINTS = 12
COLOURS = 256
"""Enough for flat colours and small pictures, and a third of the bytes."""
CIGARETTE = {"name": "cigarette", "synonyms": ["cigar"], "replacement": "pencil"}


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="trce-") as folder, chromium() as browser:
        stack = Stack(Path(folder) / "data")
        stack.start()
        try:
            take_all(stack, browser)
        finally:
            stack.interrupt()


def take_all(stack: Stack, browser: Browser) -> None:
    compose = shoot(browser, stack, "erasures", "/erasures")
    compose.get_by_role("checkbox", name=re.compile("Weapons")).check()
    keep(compose, "erasures")
    compose.get_by_role("button", name="Erase").click()
    expect(compose.get_by_role("link", name="Look at")).to_be_visible(timeout=PATIENCE_MS)
    compose.get_by_role("link", name="Look at").click()
    weapons = compose.get_by_role("heading", level=1).inner_text()
    stack.post(f"/v1/models/{weapons}/promotion", reason="for the pictures")
    trained = stack.post(
        "/v1/erasures", base_model="emoji", concepts=[CIGARETTE], steering={"steps": 200}
    )
    running = compose.context.new_page()
    running.goto(f"/erasures/{trained['id']}")
    # Four pictures of the base and four of today, once stage 2 is on its way.
    expect(running.locator(".samples img").nth(7)).to_be_visible(timeout=PATIENCE_MS)
    expect(running.get_by_text("steering").first).to_be_visible(timeout=PATIENCE_MS)
    # A loss that is a line, and not yet at its end.
    expect(running.locator(".curves polyline").first).to_have_attribute(
        "points", re.compile(rf"(\S+ ){{{POINTS}}}"), timeout=PATIENCE_MS
    )
    keep(running, "erasure-running")
    measured = stack.post("/v1/evaluations", model=weapons, at_most=8)

    playground = shoot(browser, stack, "playground-empty", "/")
    draw(playground, "a sharp dagger", lambda: keep(playground, "playground-drawing", full=True))
    keep(playground, "playground", full=True)
    drawn = playground.url.removeprefix(stack.url)
    shoot(browser, stack, "playground-dark", drawn, full=True, color_scheme="dark")
    shoot(browser, stack, "playground-phone", drawn, viewport=PHONE)
    queued = [stack.generate(f"a clock on a {what}", n=8) for what in ("wall", "tower", "desk")]
    shoot(browser, stack, "queue", "/queue")
    for path in queued:
        stack.ended(path)

    stack.ended(f"/v1/erasures/{trained['id']}", within_s=600)
    shoot(browser, stack, "erasure", f"/erasures/{trained['id']}", full=True)
    report = stack.ended(f"/v1/evaluations/{measured['id']}", within_s=600)
    assert report["state"] == "succeeded", report["reason"]
    shoot(browser, stack, "models", "/models")
    shoot(browser, stack, "model", f"/models/{weapons}", full=True)
    shoot(browser, stack, "login", "/login")


def draw(page: Page, prompt: str, meanwhile: Callable[[], object]) -> None:
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_label("Seed").fill("24")
    page.get_by_label("Steps").fill("40")
    page.get_by_role("button", name="Draw").click()
    expect(page.locator("img.preview").first).to_be_visible(timeout=PATIENCE_MS)
    meanwhile()
    finished = page.get_by_role("img", name=re.compile("drawn by"))
    expect(finished).to_have_count(2, timeout=PATIENCE_MS)


def shoot(
    browser: Browser, stack: Stack, name: str, path: str, *, full: bool = False, **options
) -> Page:
    context = browser.new_context(**({"base_url": stack.url, "viewport": DESK} | options))
    page = context.new_page()
    page.goto(path)
    if full:
        # Chromium loads and paints what is in view only, and of a frame that is its own process
        # nothing more when the picture is taken. So all of the page comes into view.
        height = page.evaluate("document.documentElement.scrollHeight")
        page.set_viewport_size({"width": DESK["width"], "height": height})
        page.wait_for_load_state("networkidle")
    page.wait_for_timeout(500)
    keep(page, name, full=full)
    return page


def keep(page: Page, name: str, *, full: bool = False) -> None:
    path = OUT / f"{name}.png"
    page.screenshot(path=path, full_page=full)
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(COLOURS).save(path, optimize=True)


if __name__ == "__main__":
    main()
