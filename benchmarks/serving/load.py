"""Clients in a process of their own: each asks, waits for its picture, and asks again.

A process says that it is there with an empty line, reads from stdin until when to ask, and prints
one JSON list of answers. Clients that are waiting when the time is up still wait for
their answer, so that the next contender meets an idle machine.
"""

import argparse
import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np

from benchmarks.serving.workload import MEAN_STEPS, STEPS, orders

TIMEOUT_S = 300
PNG = b"\x89PNG"
PROCESSES = 2


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
    def within(self) -> list[Answer]:
        return [one for one in self.answers if self.since_s < one.ended_s <= self.until_s]

    @property
    def pictures_per_s(self) -> float:
        """Counted in denoising steps, since a short run holds few pictures of uneven length.

        A picture that was under way at either end counts with its share.
        """
        done = 0.0
        for one in self.answers:
            inside = min(one.ended_s, self.until_s) - max(one.began_s, self.since_s)
            done += one.steps * max(0.0, inside) / one.seconds
        return done / (self.until_s - self.since_s) / MEAN_STEPS

    def latency_s(self, percentile: float) -> float:
        return float(np.percentile([one.seconds for one in self.answers], percentile))


def run(
    urls: Sequence[str],
    *,
    clients: int,
    seconds: float,
    warm_up_s: float = 1.0,
    steps: tuple[int, ...] = STEPS,
) -> Run:
    """Load `urls` by turns from other processes; the first `warm_up_s` do not count."""
    shares = [len(range(part, clients, PROCESSES)) for part in range(PROCESSES)]
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "benchmarks.serving.load", *urls),
                *("--clients", str(share), "--seed", str(1000 * part)),
                *("--steps", *map(str, steps)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for part, share in enumerate(shares)
        if share
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()  # it is there; starting takes seconds on a busy machine
    began = time.monotonic()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(f"{began + seconds}\n".encode())
        process.stdin.flush()
    said = [process.communicate()[0] for process in processes]
    assert not any(process.returncode for process in processes), "a client was refused"
    answers = [Answer(*one) for part in said for one in json.loads(part)]
    first = min(one.began_s for one in answers)
    return Run(answers, first + warm_up_s, began + seconds)


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
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    arguments = parser.parse_args()
    print(flush=True)
    until = float(sys.stdin.readline())
    answers: list[tuple[int, float, float]] = []
    failures: list[Exception] = []

    def ask_again_and_again(number: int) -> None:
        client = Client(arguments.urls[number % len(arguments.urls)])
        ahead = orders(arguments.seed + number, tuple(arguments.steps))
        try:
            while (began := time.monotonic()) < until:
                order = next(ahead)
                client.ask(order.body)
                answers.append((order.steps, began, time.monotonic()))
        except Exception as error:  # noqa: BLE001  (reported below, by the main thread)
            failures.append(error)

    threads = [
        threading.Thread(target=ask_again_and_again, args=(number,))
        for number in range(arguments.clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
