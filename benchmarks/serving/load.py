"""Clients in processes of their own: each asks, waits for its picture, and asks again.

A process says that it is there with an empty line, begins when it reads one, says with another
that each of its clients has had a picture, reads until when to ask, and prints one JSON list of
answers. Clients that are waiting when the time is up still wait for their answer, so that the next
contender meets an idle machine.

Clients that began with whole pictures at once would have them in crowds for ever, since every
client's step counts have the same sum. So each begins with the rest of one, and the rests are
spread evenly: the load is from the first moment on what it would become.
"""

import argparse
import http.client
import json
import math
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np

from benchmarks.serving.workload import MEAN_STEPS, STEPS, Order, orders

TIMEOUT_S = 300
PNG = b"\x89PNG"
PROCESSES = 2
WARM_UP_S = 1.0
"""What passes between the last client's first answer and the moment from which on is counted."""
SEEDS = 1000
"""More than there are clients: those of one seed have no others' prompts."""


@dataclass(frozen=True)
class Answer:
    steps: int
    began_s: float
    """On the clock that all processes of a machine share."""
    ended_s: float

    @property
    def seconds(self) -> float:
        return self.ended_s - self.began_s


@dataclass(frozen=True)
class Run:
    """What clients saw between two moments."""

    answers: list[Answer]
    since_s: float
    until_s: float

    @property
    def pictures_per_s(self) -> float:
        """Counted in denoising steps, since a short run holds few pictures of uneven length.

        Between two ends of pictures a server that draws one at a time has done the steps of those
        that ended since, and nothing else, however long they had waited. One that draws many at
        once has others half done at either end, as many at the one as at the other in the mean.
        """
        counted = [one for one in self.answers if self.since_s < one.ended_s <= self.until_s]
        if not counted:
            return 0.0
        began_s = max(one.ended_s for one in self.answers if one.ended_s <= self.since_s)
        lasted_s = max(one.ended_s for one in counted) - began_s
        return sum(one.steps for one in counted) / lasted_s / MEAN_STEPS

    def latency_s(self, percentile: float) -> float:
        """Of what was asked for between the two moments."""
        asked = [one for one in self.answers if self.since_s < one.began_s <= self.until_s]
        return float(np.percentile([one.seconds for one in asked], percentile))


class Clients:
    """Has the processes begin and end."""

    def __init__(self, processes: "list[subprocess.Popen[bytes]]") -> None:
        self._processes = processes
        self._hear()  # they are there; starting takes seconds on a busy machine

    def begin(self) -> None:
        """Returns when each has had a picture."""
        self._tell("")
        self._hear()

    def end(self, until_s: float) -> list[Answer]:
        """What all have had when the last of those that asked until then has been answered."""
        self._tell(str(until_s))
        said = [process.communicate()[0] for process in self._processes]
        assert not any(process.returncode for process in self._processes), "a client was refused"
        return [Answer(*one) for part in said for one in json.loads(part)]

    def _tell(self, line: str) -> None:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{line}\n".encode())
            process.stdin.flush()

    def _hear(self) -> None:
        for process in self._processes:
            assert process.stdout is not None
            assert process.stdout.readline(), "a client was refused"


@contextmanager
def asking(
    urls: Sequence[str], *, clients: int, steps: tuple[int, ...] = STEPS, seed: int = 0
) -> Iterator[Clients]:
    """So many for `urls` by turns, in other processes, that wait for `begin`."""
    with ExitStack() as running:  # closes each one's stdin in the end, which ends it
        yield Clients(
            [
                running.enter_context(
                    subprocess.Popen(
                        [
                            *(sys.executable, "-m", "benchmarks.serving.load", *urls),
                            *("--clients", str(clients), "--part", str(part)),
                            *("--seed", str(seed), "--steps", *map(str, steps)),
                        ],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                    )
                )
                for part in range(min(PROCESSES, clients))
            ]
        )


def run(
    urls: Sequence[str],
    *,
    clients: int,
    seconds: float,
    steps: tuple[int, ...] = STEPS,
    seed: int = 0,
) -> Run:
    """What clients see of `urls` in so many seconds, once each of them has been answered."""
    with asking(urls, clients=clients, steps=steps, seed=seed) as all_:
        all_.begin()
        since_s = time.monotonic() + WARM_UP_S
        until_s = since_s + seconds
        return Run(all_.end(until_s), since_s, until_s)


def orders_of(
    number: int, clients: int, *, seed: int, steps: tuple[int, ...] = STEPS
) -> Iterator[Order]:
    """What one of so many clients asks for, in a load of its own for each seed."""
    own = SEEDS * seed + number
    within = random.Random(own).random()  # noqa: S311  (no secret)
    return orders(own, steps, behind=(number + within) / clients)


class Client:
    """Keeps one connection open, as clients do."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        assert self._url.hostname is not None
        self._http = http.client.HTTPConnection(
            self._url.hostname, self._url.port, timeout=TIMEOUT_S
        )

    def ask(self, body: dict[str, object]) -> bytes:
        self._http.request(
            "POST", self._url.path, json.dumps(body), {"Content-Type": "application/json"}
        )
        response = self._http.getresponse()
        data = response.read()
        if response.status != http.client.OK or not data.startswith(PNG):
            raise RuntimeError(f"{response.status}: {data[:200]!r}")
        return data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("urls", nargs="+")
    parser.add_argument("--clients", type=int, default=1, help="of all processes together")
    parser.add_argument("--part", type=int, default=0, help="the number of this process")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    arguments = parser.parse_args()
    print(flush=True)
    sys.stdin.readline()
    until_s = math.inf
    answers: list[tuple[int, float, float]] = []
    failures: list[Exception] = []

    def ask_again_and_again(number: int, answered: threading.Event) -> None:
        client = Client(arguments.urls[number % len(arguments.urls)])
        ahead = orders_of(
            number, arguments.clients, seed=arguments.seed, steps=tuple(arguments.steps)
        )
        try:
            while (began := time.monotonic()) < until_s:
                order = next(ahead)
                client.ask(order.body)
                answers.append((order.steps, began, time.monotonic()))
                answered.set()
        except Exception as error:  # noqa: BLE001  (reported below, by the main thread)
            failures.append(error)
            answered.set()

    numbers = range(arguments.part, arguments.clients, PROCESSES)
    had_one = [threading.Event() for _ in numbers]
    threads = [
        # Daemons: whoever will say when to end may have ended itself.
        threading.Thread(target=ask_again_and_again, args=one, daemon=True)
        for one in zip(numbers, had_one, strict=True)
    ]
    for thread in threads:
        thread.start()
    for answered in had_one:
        answered.wait()
    if failures:
        raise failures[0]
    print(flush=True)
    until_s = float(sys.stdin.readline())
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
