"""`make bench-page` ends as a check does: 0, or 1 with the addresses that are too slow."""

import pytest

from benchmarks import page


def measured(**medians):
    """Forty requests to each address, and what nothing costs."""
    return lambda folder: {"/healthz": [1.0] * 40, **{k: [ms] * 40 for k, ms in medians.items()}}


@pytest.fixture(autouse=True)
def out(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "OUT", tmp_path / "page.json")


def test_addresses_over_the_limit_are_named_and_it_exits_with_1(monkeypatch):
    monkeypatch.setattr(page, "measure", measured(slow=50.1, quick=50.0))
    with pytest.raises(SystemExit, match=r"over 50 ms of server time: slow$"):
        page.main()
    assert page.OUT.exists()


def test_it_ends_well_when_all_are_within(monkeypatch):
    monkeypatch.setattr(page, "measure", measured(quick=50.0))
    page.main()
