"""What gets on is no worker that hangs."""

from worker.getting_on import GettingOn


def test_it_gets_on_while_a_count_changes_and_for_as_long_after_that_as_may_be():
    now = [0.0]
    work = GettingOn(10, now=lambda: now[0])
    assert work.at(0, 5)
    now[0] = 9
    assert work.at(0, 6)
    now[0] = 18
    assert work.at(0, 6)
    now[0] = 20
    assert not work.at(0, 6)
    assert work.at(1, 6)
