"""`make bench-page` ends as a check does: 0, or 1 with the addresses that are too slow."""

import pytest

from benchmarks import page


def measured(**medians):
    """Forty requests to each address, and what nothing costs."""
    return lambda folder: {page.HEALTH: [1.0] * 40, **{k: [ms] * 40 for k, ms in medians.items()}}


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
    assert "quick" in page.OUT.read_text()


def test_one_slow_request_in_ten_is_too_many_whatever_the_median(monkeypatch):
    monkeypatch.setattr(
        page, "measure", lambda _: {page.HEALTH: [1.0] * 40, "x": [5.0] * 36 + [90] * 4}
    )
    with pytest.raises(SystemExit, match=r"x$"):
        page.main()


def test_a_promotion_alone_lasts_as_long_as_its_model_is_large(monkeypatch):
    monkeypatch.setattr(page, "measure", measured(**{page.PROMOTION: 900.0}))
    page.main()
    assert page.PROMOTION in page.routes()


def test_the_routes_are_those_of_the_page(client):
    routes = page.routes()

    assert len(routes) == len(set(routes)) >= 27
    assert {"GET /", "POST /models/{model_id}/promotion", "POST /login"} <= set(routes)
    said = [
        f'{{"event": "request", "method": "POST", "path": "{path}", "ms": 1.0}}'
        for path in ("/models/default/rollback", "/models/x/promotion", "/elsewhere")
    ]
    times = page.spent("\n".join(said), routes)
    assert {name for name, some in times.items() if some} == {
        "POST /models/default/rollback",
        "POST /models/{model_id}/promotion",
    }
