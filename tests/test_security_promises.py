"""Each promise of docs/security.md names a test, and that test is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENT = (ROOT / "docs" / "security.md").read_text()
ROWS = [
    line
    for line in DOCUMENT.partition("## What is promised")[2]
    .partition("## What is not")[0]
    .splitlines()
    if line.startswith("| ") and not line.startswith("| promise")
]


def test_there_are_promises():
    assert len(ROWS) >= 20


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:60])
def test_a_promise_names_tests_that_are_there(row):
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", row.split("|")[2])
    assert named, "no test is named"
    for path, what in named:
        text = (ROOT / path).read_text()
        assert not what or re.search(rf"^\s*(?:class|def) {what}\b", text, re.MULTILINE), what


@pytest.mark.parametrize("source", ["README.md", "SECURITY.md", "docs/operations.md"])
def test_whoever_looks_for_it_finds_it(source):
    assert "security.md" in (ROOT / source).read_text()
