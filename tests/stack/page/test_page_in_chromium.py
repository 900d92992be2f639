"""The page as people use it: real Chromium, real processes, from the login to the rollback."""

import contextlib
import re

import pytest
from playwright.sync_api import expect

from tests import chromium

pytestmark = [
    pytest.mark.stack,
    pytest.mark.skipif(chromium.installed() is None, reason="no Chromium is installed"),
]

PATIENCE_MS = 240_000
WIDTH_ONCE_DECODED = "image => image.decode().then(() => image.naturalWidth)"
SECTIONS = ("/", "/erasures", "/models", "/queue")


@pytest.fixture(scope="module")
def candidate(stack, browser, session) -> str:
    """A model without axes, composed and watched on the page."""
    with contextlib.closing(browser.new_context(base_url=stack.url, storage_state=session)) as it:
        page = it.new_page()
        page.goto("/erasures")
        page.get_by_label("Concept", exact=True).fill("axe")
        page.get_by_label("Draw instead").fill("axe")
        page.get_by_role("button", name="Erase").click()
        expect(page.locator("#alert")).to_contain_text("choose something that is to stay")
        page.get_by_label("Draw instead").fill("flower")
        page.get_by_label("Other names").fill("hatchet, tomahawk")
        page.get_by_role("button", name="Add a concept").click()
        expect(page.get_by_label("Concept", exact=True)).to_have_count(2)
        page.get_by_role("button", name="Erase").click()
        expect(page.get_by_role("heading", name="Erase axe")).to_be_visible()
        expect(page.locator(".stages li").first).to_be_visible(timeout=PATIENCE_MS)
        link = page.get_by_role("link", name="Look at")
        expect(link).to_be_visible(timeout=PATIENCE_MS)
        expect(page.locator(".stages")).to_contain_text("Writing")
        for drawn in ("by the base", "after stage 1"):
            sample = page.get_by_role("img", name=f"an axe, drawn {drawn}", exact=True)
            assert sample.evaluate(WIDTH_ONCE_DECODED) == 64
        link.click()
        expect(page.get_by_text("checked just now")).to_be_visible()
        return page.get_by_role("heading", level=1).inner_text()


@pytest.fixture
def serving(stack, candidate) -> str:
    stack.http.post(f"/v1/models/{candidate}/promotion").raise_for_status()
    return candidate


def status_of(stack, model_id) -> str:
    return stack.http.get(f"/v1/models/{model_id}").json()["status"]


def test_base_and_erased_are_drawn_side_by_side_before_ones_eyes(window, serving):
    page = window("/")
    for name in ("emoji", serving):
        expect(page.get_by_role("checkbox", name=re.compile(f"^{name} "))).to_be_checked()
    page.get_by_label("Prompt", exact=True).fill("a sharp axe")
    page.get_by_label("Seed").fill("7")
    page.get_by_label("Steps").fill("60")
    page.get_by_role("button", name="Draw").click()

    expect(page.locator("figure")).to_have_count(2)
    expect(page.locator("figure progress").first).to_be_visible(timeout=PATIENCE_MS)
    expect(page.locator("img.preview").first).to_be_visible(timeout=PATIENCE_MS)
    drawn = page.get_by_role("img", name=re.compile("a sharp axe, drawn by"))
    expect(drawn).to_have_count(2, timeout=PATIENCE_MS)
    for picture in drawn.all():
        assert picture.evaluate(WIDTH_ONCE_DECODED) == 64
    before, after = (page.request.get(one.get_attribute("src")).body() for one in drawn.all())
    assert before != after
    address = page.url
    page.reload()
    assert page.url == address
    expect(page.locator("figure .frame img")).to_have_count(2)


def test_the_keyboard_is_enough_to_draw_and_to_cancel(window):
    page = window("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    prompt = page.get_by_label("Prompt", exact=True)
    expect(prompt).to_be_focused()
    assert prompt.evaluate("field => getComputedStyle(field).outlineStyle") == "solid"
    page.keyboard.press("Control+A")
    page.keyboard.type("a teapot")
    page.get_by_label("Steps").fill("100")
    prompt.focus()
    page.keyboard.press("Enter")
    cancel = page.get_by_role("button", name=re.compile("^Cancel")).first
    cancel.focus()
    page.keyboard.press("Enter")

    expect(page.locator("figure").first).to_contain_text("Cancelled")


def test_orders_are_given_with_their_reasons(window, stack, candidate):
    page = window(f"/models/{candidate}")
    if page.get_by_role("button", name="Retire").is_visible():  # after the other tests
        page.get_by_role("button", name="Retire").click()
        expect(page.get_by_role("button", name="Roll back to it")).to_be_visible()
    for reason, button, offered, status in [
        ("passed", re.compile("Promote|Roll back"), "Retire", "serving"),
        ("draws badly", "Retire", "Roll back to it", "retired"),
        ("better than its successor", "Roll back to it", "Retire", "serving"),
    ]:
        page.get_by_label("Reason").fill(reason)
        page.get_by_role("button", name=button).click()
        expect(page.get_by_role("button", name=offered)).to_be_visible()
        assert status_of(stack, candidate) == status

    audit = stack.http.get("/v1/audit").json()["data"]
    reasons = [entry["reason"] for entry in audit if entry["outcome"] == "ordered"]
    assert reasons[:3] == ["better than its successor", "draws badly", "passed"]


def test_what_waits_is_cancelled_in_the_queue(window, stack):
    paths = [
        stack.generate(f"a clock number {number}", n=8, num_inference_steps=100)
        for number in range(5)
    ]
    page = window("/queue")
    last = page.get_by_role("listitem").filter(has_text="a clock number 4")
    expect(last).to_contain_text("queued")
    last.get_by_role("button", name="Cancel").click()
    expect(last).to_have_count(0)

    assert stack.http.get(paths[4]).json()["state"] == "cancelled"
    first = page.get_by_role("listitem").filter(has_text="a clock number 0")
    expect(first.get_by_role("progressbar")).to_be_visible(timeout=PATIENCE_MS)
    for path in paths[:4]:
        stack.http.delete(path)


@pytest.mark.parametrize("path", SECTIONS)
def test_a_phone_shows_every_section_whole(window, candidate, path):
    page = window(path, viewport={"width": 360, "height": 740}, has_touch=True)

    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    # In one go: the queue is drawn anew every second.
    assert min(page.evaluate(HEIGHTS_PX), default=32) >= 32


HEIGHTS_PX = """() => [...document.querySelectorAll("main button, main input, main select")]
  .filter(control => control.checkVisibility() && control.type !== "checkbox")
  .map(control => control.getBoundingClientRect().height)"""

CONTRASTS = """() => {
  const channels = text => text.match(/[0-9.]+/g).map(Number);
  const luminance = rgb => rgb.slice(0, 3).map(value => value / 255)
    .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, place) => sum + value * [0.2126, 0.7152, 0.0722][place], 0);
  const backdrop = element => {
    for (let at = element; at; at = at.parentElement) {
      const color = channels(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const blended = (color, alpha, under) =>
    color.slice(0, 3).map((value, place) => value * alpha + under[place] * (1 - alpha));
  const contrast = (one, other) => {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const all = [...document.querySelectorAll('body *')];
  const texts = all.filter(element => element.checkVisibility()
    && [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim()));
  const fields = all.filter(element => element.checkVisibility()
    && element.matches('input:not([type=checkbox]), select'));
  return {
    texts: texts.map(element =>
      contrast(channels(getComputedStyle(element).color), backdrop(element))),
    hints: fields.filter(field => field.placeholder).map(field => {
      const style = getComputedStyle(field, '::placeholder');
      const under = backdrop(field);
      return contrast(blended(channels(style.color), Number(style.opacity), under), under);
    }),
    edges: fields.map(field =>
      contrast(channels(getComputedStyle(field).borderTopColor), backdrop(field.parentElement))),
  };
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_by_day_and_by_night(window, candidate, scheme):
    """4.5 to 1 is what WCAG 2.2 asks for (AA); 3 to 1 of what shows where a field is."""
    for path in (*SECTIONS, f"/models/{candidate}"):
        page = window(path, color_scheme=scheme)
        found = page.evaluate(CONTRASTS)
        assert min(found["texts"]) >= 4.5, path
        assert min(found["hints"], default=21) >= 4.5, path
        assert min(found["edges"], default=21) >= 3, path
        ink = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (ink == "rgb(20, 24, 22)") is (scheme == "dark")


def test_every_field_has_a_name_and_every_page_one_heading(window, candidate):
    for path in (*SECTIONS, f"/models/{candidate}"):
        page = window(path)
        assert page.locator("h1").count() == 1
        nameless = page.locator("input:visible, select:visible").evaluate_all(
            "fields => fields.filter(field => !field.labels.length).length"
        )
        assert nameless == 0, path


def test_a_session_ends_where_it_is_ended(window, stack, browser, token):
    context = browser.new_context(base_url=stack.url)
    page = context.new_page()
    page.goto("/login")
    page.get_by_label("API key").fill(token)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("button", name="Log out").click()
    expect(page).to_have_url(re.compile("/login$"))
    page.goto("/queue")
    expect(page).to_have_url(re.compile("/login$"))
    context.close()
