"""Windows of a real Chromium on a running stack, logged in with a key."""

import contextlib
import re

import pytest
from playwright.sync_api import expect

from cli.stack.broker import broker_url
from core.keys import KeyStore
from core.redis_connection import connect
from tests import chromium


@pytest.fixture(scope="module")
def token(stack) -> str:
    """From now on everything needs a key."""
    with connect(broker_url(stack.data_dir / "broker")) as redis:
        _, token = KeyStore(redis).create(scopes=["admin"], label="tests")
    stack.http.headers["Authorization"] = f"Bearer {token}"
    return token


@pytest.fixture(scope="module")
def browser():
    with chromium.chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def session(stack, token, browser):
    """Logged in, with the keyboard alone; what is kept of it opens other windows."""
    context = browser.new_context(base_url=stack.url)
    page = context.new_page()
    page.goto("/models")
    expect(page).to_have_url(re.compile("/login$"))
    page.keyboard.type("trce_this_is_none")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert").last).to_contain_text("not valid here")
    page.keyboard.type(token)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Playground")).to_be_visible()
    state = context.storage_state()
    assert token not in str(state)
    yield state
    context.close()


@pytest.fixture
def window(stack, browser, session):
    """Open a window; it must say nothing on its console, of its policy or of errors."""
    said: list[str] = []
    with contextlib.ExitStack() as opened:

        def open_window(path: str, **options):
            context = browser.new_context(base_url=stack.url, storage_state=session, **options)
            opened.callback(context.close)
            page = context.new_page()
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.on("dialog", lambda dialog: dialog.dismiss())
            page.goto(path)
            return page

        yield open_window
    assert said == []
