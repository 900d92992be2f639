"""Passes are timed once, and no larger than it pays."""

import pytest
import torch

from diffusion import profiling
from diffusion.profiling import knee, timed_further


class Device:
    """A clock, and passes that take as long as `seconds` says."""

    def __init__(self, seconds, room=10**6, no_room=torch.OutOfMemoryError):
        self.now = 0.0
        self.seconds = seconds
        self.room = room
        self.no_room = no_room
        self.tried = []

    def rehearse(self, rows):
        def run():
            if rows > self.room:
                raise self.no_room()
            self.tried.append(rows)
            self.now += self.seconds(rows)
            return torch.zeros(1)

        return run


@pytest.fixture
def make_device(monkeypatch):
    def make(seconds, **options) -> Device:
        device = Device(seconds, **options)
        monkeypatch.setattr(profiling.time, "thread_time", lambda: device.now)
        return device

    return make


def test_a_busy_device_gains_nothing_by_more_rows(make_device):
    device = make_device(lambda rows: 0.01 * rows)
    found = timed_further({}, 32, device.rehearse, "cuda")

    assert knee(found, "cuda") == 2
    assert sorted(set(device.tried)) == [2, 4]


@pytest.mark.parametrize(("wanted", "timed"), [(2, set()), (3, set()), (4, {2, 4})])
def test_where_there_are_no_two_passes_to_compare_none_is_timed(make_device, wanted, timed):
    device = make_device(lambda rows: 0.1)
    found = timed_further({}, wanted, device.rehearse, "cuda")

    assert set(device.tried) == set(found) == timed


def test_passes_are_made_and_run_as_rows_are_drawn():
    """A compiled UNet has graphs for inference mode alone: others would be timed without them."""
    inferring = []

    def rehearse(_):
        made = torch.is_inference_mode_enabled()
        return lambda: inferring.extend([made, torch.is_inference_mode_enabled()]) or torch.ones(1)

    timed_further({}, 4, rehearse, "cpu")

    assert inferring
    assert all(inferring)


def test_where_a_pass_has_its_price_more_rows_share_it_up_to_a_knee(make_device):
    """Up to 8 rows cost the same; more are computed one after the other."""
    device = make_device(lambda rows: 0.01 * max(rows, 8))
    found = timed_further({}, 64, device.rehearse, "cuda")

    assert knee(found, "cuda") == 8
    assert max(device.tried) == 16


@pytest.mark.parametrize(("device_type", "rows"), [("cpu", None), ("cuda", 4)])
def test_a_cpu_is_asked_for_less_gain(make_device, device_type, rows):
    """Twice as many rows give 1.1 times the rows a second, then 1.03 times."""
    device = make_device({2: 0.0220, 4: 0.04, 8: 0.0777}.get)
    assert knee(timed_further({}, 8, device.rehearse, device_type), device_type) == rows


def test_while_more_are_better_there_is_no_bound(make_device):
    device = make_device(lambda rows: 0.1 + 0.001 * rows)
    assert knee(timed_further({}, 15, device.rehearse, "cuda"), "cuda") is None
    assert sorted(set(device.tried)) == [2, 4, 8]


def test_what_is_known_is_not_timed_again_and_nothing_beyond_the_knee(make_device):
    device = make_device(lambda rows: 0.01 * max(rows, 8))
    known = timed_further({}, 8, device.rehearse, "cuda")
    device.tried.clear()
    further = timed_further(known, 16, device.rehearse, "cuda")
    assert {rows for rows in device.tried if rows < 8} == set()
    device.tried.clear()

    assert timed_further(further, 64, device.rehearse, "cuda") == further
    assert device.tried == []


def test_a_pass_of_seconds_is_not_tried_for_the_sake_of_a_figure(make_device):
    device = make_device(lambda rows: 0.6 * rows)
    found = timed_further({}, 32, device.rehearse, "cuda")

    assert list(found) == [2]
    assert knee(found, "cuda") is None


def test_a_disturbance_is_not_taken_for_the_knee(make_device):
    """The first passes of 4 rows were slow, and never again."""
    slow = [4] * 4
    device = make_device(lambda rows: 1.0 if slow and rows == 4 and slow.pop() else 0.1)

    assert knee(timed_further({}, 4, device.rehearse, "cuda"), "cuda") is None


def test_what_is_over_at_once_says_nothing(make_device):
    """As on a simulated device, which sleeps."""
    device = make_device(lambda rows: 1e-5 * rows)

    assert knee(timed_further({}, 32, device.rehearse, "cuda"), "cuda") is None


def test_memory_that_ends_before_the_knee_ends_the_search(make_device, no_room):
    device = make_device(lambda rows: 0.1, room=4, no_room=no_room)

    assert list(timed_further({}, 32, device.rehearse, "cuda")) == [2, 4]


def test_a_pass_that_fails_otherwise_is_no_end_of_memory(make_device):
    device = make_device(lambda rows: 0.1, room=4, no_room=lambda: RuntimeError("CUDA error"))
    with pytest.raises(RuntimeError, match="CUDA error"):
        timed_further({}, 32, device.rehearse, "cuda")
