"""What the documentation says of the code is still there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
PAGES = [page for page in sorted(ROOT.glob("docs/**/*.md")) if NAMED.search(page.read_text())]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_that_a_page_names_exists(page):
    gone = [
        f"{file}::{name}"
        for file, name in NAMED.findall(page.read_text())
        if not re.search(rf"\b(?:def|class) {name}\b", (ROOT / file).read_text())
    ]
    assert gone == []


def test_the_page_about_trce_names_a_test_for_every_mistake_of_the_reference():
    assert len(NAMED.findall((ROOT / "docs/trce.md").read_text())) >= 14
