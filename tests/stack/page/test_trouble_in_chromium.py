"""What an open page says while the service is away, and that it stops saying so."""

import contextlib
import re

import pytest
from playwright.sync_api import expect

from cli.stack.broker import broker_url
from core.redis_connection import connect
from tests import chromium

pytestmark = [
    pytest.mark.stack,
    pytest.mark.skipif(chromium.installed() is None, reason="no Chromium is installed"),
]

PATIENCE_MS = 60_000
LONG = {"n": 8, "num_inference_steps": 100}


@pytest.fixture
def page(stack, browser, session):
    """Without the watch over its console: a browser writes there that nobody answers."""
    with contextlib.closing(browser.new_context(base_url=stack.url, storage_state=session)) as it:
        yield it.new_page()


@pytest.fixture
def paused(stack):
    """Stop the process that answers, and let it go on."""
    (service,) = stack.members("-m service")
    return lambda: stopped(service)


@pytest.fixture
def killed(stack):
    """Kill it; `trce up`, which starts it again, is stopped for as long.

    A fast machine starts it between two polls of the page: then nobody has anything to tell.
    """

    @contextlib.contextmanager
    def killed():
        (service,) = stack.members("-m service")
        with stopped(stack.process):
            service.kill()
            yield

    return killed


@contextlib.contextmanager
def stopped(process):
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def test_a_service_that_is_away_is_told_until_it_is_back(page, stack, killed):
    page.goto("/queue")
    trouble = page.locator("#trouble")
    expect(trouble).to_be_empty()
    with killed():
        expect(trouble).to_contain_text("does not answer", timeout=PATIENCE_MS)

    expect(trouble).to_be_empty(timeout=PATIENCE_MS)
    asked = stack.generate("a clock", **LONG)
    expect(page.get_by_text("a clock")).to_be_visible(timeout=PATIENCE_MS)
    stack.http.delete(asked)


def test_one_that_hangs_is_told_too(page, paused):
    page.goto("/queue")
    with paused():
        expect(page.locator("#trouble")).to_contain_text("does not answer", timeout=PATIENCE_MS)
    expect(page.locator("#trouble")).to_be_empty(timeout=PATIENCE_MS)


def test_an_order_that_nobody_hears_is_told_and_forgotten_with_the_next_one(page, stack):
    page.goto("/")
    draw = page.get_by_role("button", name="Draw")
    page.get_by_label("Steps").fill("20")
    page.route("**/comparisons", lambda route: route.abort())
    draw.click()
    expect(page.locator("#alert")).to_contain_text("No answer came")
    page.unroute("**/comparisons")
    draw.click()

    expect(page.locator("figure").first).to_be_visible()
    expect(page.locator("#alert")).to_be_empty()


def test_an_error_of_a_poll_goes_with_its_next_answer(page):
    page.goto("/queue")
    broken = '<div class="refusal"><p>the job store does not answer</p></div>'
    page.route("**/queue", lambda route: route.fulfill(status=503, body=broken))
    expect(page.locator("#trouble")).to_have_text("the job store does not answer")
    expect(page.locator("#alert")).to_be_empty()
    page.unroute("**/queue")

    expect(page.locator("#trouble")).to_be_empty()


def test_what_is_gone_is_asked_for_no_longer(page, stack):
    path = stack.generate("a clock", **LONG)
    job = path.rpartition("/")[2]
    page.goto(f"/?jobs={job}")
    expect(page.locator("figure")).to_have_count(1)
    stack.http.delete(path)
    with connect(broker_url(stack.data_dir / "broker")) as redis:
        redis.delete(f"job:{job}")
    expect(page.locator("#comparison .refusal")).to_be_visible()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(1500)

    assert asked == []


def test_a_screen_reader_is_told_of_states_and_not_of_every_step(page, stack):
    path = stack.generate("a clock", **LONG)
    page.goto("/")
    page.evaluate("""() => {
      window.told = [];
      const line = document.getElementById('told');
      new MutationObserver(() => window.told.push(line.textContent))
        .observe(line, {childList: true, characterData: true, subtree: true});
    }""")
    page.get_by_label("Steps").fill("60")
    page.get_by_role("checkbox").first.check()
    page.get_by_role("button", name="Draw").click()
    stack.http.delete(path)
    expect(page.locator("#told")).to_have_text(re.compile("succeeded"), timeout=PATIENCE_MS)
    told = page.evaluate("window.told")

    assert len(told) == len(set(told)) <= 4, told
    assert page.locator("[aria-live]").count() == 0
    assert page.locator("#told").bounding_box()["width"] <= 1
