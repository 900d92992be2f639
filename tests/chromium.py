"""The system's Chromium, driven by Playwright, which downloads no browser here."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
# As root there is no sandbox; and nothing is to be asked of the world outside.
OPTIONS = ("--no-sandbox", "--disable-quic", "--disable-background-networking", "--disable-sync")


def installed() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    path = installed()
    assert path is not None, f"none of {', '.join(NAMES)} is installed"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*OPTIONS])
        yield browser
        browser.close()
