"""What `default` means: what the settings say, until it is pointed, and back again."""

import pytest

from core.default_model import KEPT, LOOK_EVERY_S, DefaultModel
from core.errors import DefaultMoved, NeverPointed, StoreUnavailable
from core.redis_connection import connect


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def process(redis_url, clock):
    """What a process of the installation knows of it."""
    clients = []

    def process() -> DefaultModel:
        clients.append(connect(redis_url, retry_s=0))
        return DefaultModel(clients[-1], setting="emoji", now=clock)

    yield process
    for client in clients:
        client.close()


def test_until_it_is_pointed_it_means_what_the_settings_say(process):
    one = process()

    assert one.current() == "emoji"
    with pytest.raises(NeverPointed, match="emoji"):
        one.former()


def test_it_is_pointed_and_rolled_back_step_by_step(process):
    one = process()
    one.point("first")
    one.point("second")
    one.point("second")
    assert one.history() == ["second", "first", "emoji"]

    for before in ("first", "emoji"):
        assert one.former() == before
        one.roll_back(before)
        assert one.current() == before
    with pytest.raises(NeverPointed):
        one.roll_back("emoji")


def test_other_processes_go_by_it_soon(process, clock):
    one, other = process(), process()
    assert other.current() == "emoji"
    one.point("first")

    assert one.current() == "first"
    clock.now += LOOK_EVERY_S
    assert other.current() == "first"


def test_of_two_rollbacks_at_once_one_is_told_to_look_again(process):
    one, other = process(), process()
    for name in ("first", "second", "third"):
        one.point(name)
    seen = one.former(), other.former()
    one.roll_back(seen[0])

    with pytest.raises(DefaultMoved):
        other.roll_back(seen[1])
    assert one.history()[0] == "second"


def test_it_remembers_only_so_many(process):
    one = process()
    for number in range(KEPT + 5):
        one.point(f"model-{number}")

    assert len(one.history()) == KEPT + 1
    assert one.history()[0] == f"model-{KEPT + 4}"


def test_while_redis_is_away_it_means_what_was_seen_last(process, broker, clock):
    one = process()
    one.point("first")
    broker.kill()
    try:
        clock.now += LOOK_EVERY_S
        assert one.current() == "first"
        with pytest.raises(StoreUnavailable):
            one.point("second")
    finally:
        broker.start()
    assert one.current() == "first"


def test_a_process_that_started_while_redis_was_away_goes_by_it_as_soon_as_it_is_there(
    process, broker, clock
):
    """Not some seconds later: jobs are accepted at once, and would mean another model."""
    process().point("first")
    broker.kill()
    try:
        late = process()
        assert late.current() == "emoji"
    finally:
        broker.start()
    assert late.current() == "first"
