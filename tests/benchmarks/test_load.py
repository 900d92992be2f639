"""What clients saw of a server is the speed of the server, however it shares itself out."""

import itertools
import statistics
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.serving import load
from benchmarks.serving.load import Answer, Run, orders_of
from benchmarks.serving.throughput import SECONDS
from benchmarks.serving.workload import MEAN_STEPS, STEPS, orders

SEEDS = range(12)


def behind_a_lock(clients: int, steps_per_s: float, seed: int):
    """One picture at a time, in the order in which they were asked for."""
    ahead = [orders_of(number, clients, seed=seed) for number in range(clients)]
    asked_s, now_s = [0.0] * clients, 0.0
    while True:
        number = min(range(clients), key=lambda one: asked_s[one])
        order = next(ahead[number])
        now_s += order.steps / steps_per_s
        yield number, Answer(order.steps, asked_s[number], now_s)
        asked_s[number] = now_s


def all_at_once(clients: int, steps_per_s: float, seed: int):
    """Each gets an equal share of the steps."""
    ahead = [orders_of(number, clients, seed=seed) for number in range(clients)]
    current = [next(one) for one in ahead]
    asked, ends = [0] * clients, [order.steps for order in current]
    s_per_step = clients / steps_per_s
    while True:
        number = min(range(clients), key=lambda one: ends[one])
        steps = current[number].steps
        yield number, Answer(steps, asked[number] * s_per_step, ends[number] * s_per_step)
        current[number] = next(ahead[number])
        asked[number] = ends[number]
        ends[number] += current[number].steps


def seen(server, clients: int, pictures_per_s: float, seed: int) -> Run:
    """As `load.run` has it: from when each was answered on, with all that was asked until then."""
    answers, missing, waiting, until_s = [], set(range(clients)), set(range(clients)), None
    for number, answer in server(clients, pictures_per_s * MEAN_STEPS, seed):
        if until_s is None or answer.began_s < until_s:
            answers.append(answer)
        missing.discard(number)
        if not missing and until_s is None:
            since_s = answer.ended_s + load.WARM_UP_S
            until_s = since_s + SECONDS[clients]
        if until_s is not None and answer.ended_s >= until_s:
            waiting.discard(number)
        if not waiting:
            return Run(answers, since_s, until_s)
    raise AssertionError


@pytest.mark.parametrize("clients", [1, 8, 32])
@pytest.mark.parametrize(
    ("server", "pictures_per_s"),
    [
        pytest.param(behind_a_lock, 1.0, id="lock"),
        pytest.param(behind_a_lock, 2.2, id="faster lock"),
        pytest.param(all_at_once, 4.1, id="slower shares"),
        pytest.param(all_at_once, 7.3, id="shares"),
    ],
)
def test_a_server_is_as_fast_as_it_draws(server, pictures_per_s, clients):
    runs = [seen(server, clients, pictures_per_s, seed) for seed in SEEDS]
    measured = statistics.mean(run.pictures_per_s for run in runs)
    assert measured == pytest.approx(pictures_per_s, rel=0.03)


@pytest.mark.parametrize("clients", [1, 8, 32])
def test_one_run_tells_exactly_how_fast_one_at_a_time_is(clients):
    assert seen(behind_a_lock, clients, 1.0, seed=0).pictures_per_s == pytest.approx(1.0)


def test_a_run_in_which_nothing_ended_drew_nothing():
    slow = [Answer(20, 0.0, 9.0), Answer(20, 9.0, 22.0)]
    assert Run(slow, since_s=10.0, until_s=20.0).pictures_per_s == 0.0
    assert Run(slow, since_s=10.0, until_s=23.0).pictures_per_s == 20 / 13 / MEAN_STEPS


def test_latencies_are_of_whole_pictures():
    """Each client's first one is the rest of one, and got its answer before the run counts."""
    run = seen(all_at_once, 32, 7.3, seed=0)
    s_per_step = 32 / (7.3 * MEAN_STEPS)
    assert run.latency_s(0) == pytest.approx(min(STEPS) * s_per_step)
    assert run.latency_s(100) == pytest.approx(max(STEPS) * s_per_step)


def test_who_is_behind_by_a_share_has_that_many_steps_less_to_go():
    """The sum of one turn of step counts is 100, and each share leaves the rest of it."""
    for behind, left in [(0.0, 100), (0.07, 93), (0.5, 50), (0.99, 1)]:
        ahead = itertools.accumulate(order.steps for order in orders(3, behind=behind))
        assert left in itertools.islice(ahead, 3)


class Counting(ThreadingHTTPServer):
    """Answers each request with something like a picture, and counts those who ask."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.asked: Counter[tuple[str, int]] = Counter()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked[self.client_address] += 1
        threading.Event().wait(0.05)
        self.send_response(200)
        self.send_header("Content-Length", str(len(load.PNG)))
        self.end_headers()
        self.wfile.write(load.PNG)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def servers():
    both = [Counting(), Counting()]
    yield both
    for one in both:
        one.shutdown()
        one.server_close()


@pytest.mark.parametrize("clients", [2, 10])
def test_servers_have_equally_many_clients(servers, clients):
    run = load.run([one.url for one in servers], clients=clients, seconds=0.5)

    assert [len(one.asked) for one in servers] == [clients // 2] * 2
    assert len(run.answers) == sum(sum(one.asked.values()) for one in servers)
    assert all(count > 1 for one in servers for count in one.asked.values())
    assert run.pictures_per_s > 0


def test_a_refused_client_ends_the_load(servers, monkeypatch, capfd):
    monkeypatch.setattr(load, "PNG", b"no picture")
    with pytest.raises(AssertionError, match="a client was refused"):
        load.run([servers[0].url], clients=2, seconds=0.5)
    assert "no picture" in capfd.readouterr().err
