import os
import signal
import sys
import time

import psutil
import pytest
import structlog

from cli.stack.supervisor import Member, Supervisor, on_stop_signals

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def member(tmp_path):
    def make(name: str = "sleeper", command: list[str] = SLEEP) -> Member:
        return Member(name, command, {}, tmp_path / "logs" / f"{name}.log", grace_s=5)

    return make


@pytest.fixture
def supervisor():
    one = Supervisor()
    yield one
    one.stop()


def pid(member: Member) -> int:
    assert member.process is not None
    return member.process.pid


def test_what_dies_is_started_again_at_once(supervisor, member):
    sleeper = member()
    supervisor.start(sleeper)
    first = pid(sleeper)
    os.kill(first, signal.SIGKILL)
    sleeper.process.wait()
    supervisor.tend()

    assert sleeper.running
    assert pid(sleeper) != first


def test_what_lives_is_left_alone(supervisor, member):
    sleeper = member()
    supervisor.start(sleeper)
    first = pid(sleeper)
    supervisor.tend()

    assert pid(sleeper) == first


def test_a_long_log_begins_afresh_and_what_came_before_is_kept_once(
    supervisor, member, monkeypatch
):
    """The child has the file open and goes on writing to it."""
    monkeypatch.setattr("cli.stack.supervisor.MAX_LOG_BYTES", 1000)
    chatty = "import sys, time\nfor i in range(400): print('line', i, flush=True); time.sleep(.01)"
    writer = member("writer", [sys.executable, "-c", chatty])
    supervisor.start(writer)
    kept = writer.log_file.with_name("writer.log.1")
    longest = 0
    while writer.running:
        writer.cut_log()
        longest = max(longest, writer.log_file.stat().st_size)
        time.sleep(0.02)

    assert longest < 2000
    assert b"\0" not in writer.log_file.read_bytes(), "it was cut, and not left as a hole"
    assert writer.log_file.read_text().endswith("line 399\n")
    assert 1000 < kept.stat().st_size < 2000


def test_what_dies_again_and_again_is_started_ever_more_slowly(supervisor, member):
    crashing = member("crashing", [sys.executable, "-c", "raise SystemExit(1)"])
    supervisor.start(crashing)
    end = time.monotonic() + 3
    while time.monotonic() < end:
        supervisor.tend()
        time.sleep(0.01)

    assert 2 <= crashing.starts <= 8


def test_what_dies_three_times_at_once_is_told_with_what_it_said(supervisor, member):
    words = "import sys; print('first'); sys.exit('cannot start: no GPU')"
    crashing = member("crashing", [sys.executable, "-c", words])
    with structlog.testing.capture_logs() as logged:
        supervisor.start(crashing)
        end = time.monotonic() + 10
        while crashing.quick_deaths < 3 and time.monotonic() < end:
            supervisor.tend()
            time.sleep(0.01)

    first, second, third = [one for one in logged if one["event"] == "died"]
    assert "said" not in first | second
    assert third["said"] == "cannot start: no GPU"
    assert third["log"] == str(crashing.log_file)


def test_stopping_leaves_nothing_behind(supervisor, member):
    members = [member(name) for name in ("broker", "service", "inference-0")]
    for one in members:
        supervisor.start(one)
    pids = [pid(one) for one in members]
    supervisor.stop()

    assert not any(psutil.pid_exists(number) for number in pids)


def test_the_output_of_a_member_goes_to_its_log(supervisor, member):
    talker = member("talker", [sys.executable, "-c", "print('hello')"])
    supervisor.start(talker)
    talker.process.wait()

    assert talker.log_file.read_text() == "hello\n"


def test_a_signal_ends_the_loop(supervisor, member):
    supervisor.start(member())
    with on_stop_signals(supervisor.ask_to_stop):
        os.kill(os.getpid(), signal.SIGINT)
        supervisor.run()

    assert supervisor.stopping
