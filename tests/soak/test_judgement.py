"""A soak fails when memory grows, and only then."""

import pytest

from tests.soak.judgement import JUDGED_FROM_MINUTES, MOST_MIB_PER_HOUR, SECONDS, complaints
from tests.soak.memory import Growth, growth


def process(slope: float, *, name: str = "service (1)", seconds: float = SECONDS) -> Growth:
    return Growth(name, 100, 100.0, 110.0, seconds, slope)


def test_what_grows_no_more_than_it_may_is_no_complaint():
    grown = [process(MOST_MIB_PER_HOUR), process(-500.0, name="broker (2)")]

    assert complaints(grown, minutes=60) == []


def test_each_process_that_grows_is_named_with_its_slope():
    grown = [process(0.0), process(40.0, name="inference-0 child (7)")]

    (found,) = complaints(grown, minutes=60)
    assert found == "inference-0 child (7) grew by 40.0 MiB an hour, more than 16"


def test_the_limit_may_be_another():
    assert complaints([process(5.0)], minutes=60, most_mib_per_hour=4.0)


def test_a_process_that_lived_shortly_is_not_judged_where_another_of_its_kind_was():
    short = process(900.0, seconds=SECONDS / 2)

    assert complaints([short, process(0.0, name="service (2)")], minutes=60) == []


def test_a_kind_of_process_of_which_none_lived_long_enough_is_a_complaint():
    short = [process(0.0, name=f"service ({n})", seconds=SECONDS / 2) for n in range(3)]

    (found,) = complaints(short, minutes=60)
    assert found.startswith("no service lived")


def test_a_run_too_short_for_a_line_is_not_judged():
    assert complaints([process(900.0)], minutes=JUDGED_FROM_MINUTES - 1) == []


@pytest.mark.parametrize(("leak", "found"), [(0.0, 0), (30.0, 1)])
def test_a_leak_shows_in_samples_that_were_taken(leak, found):
    """An hour of samples, of which the first quarter warms up."""
    samples = [(60.0 * n, 300 + min(n, 15) * 20 + leak * n / 60) for n in range(61)]

    assert len(complaints([growth("service (1)", samples)], minutes=60)) == found
