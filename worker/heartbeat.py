"""The heartbeat of a worker: a child process that keeps its leases alive.

A thread would starve whenever a C call holds the interpreter lock, as loading or compiling a
model does for seconds; a process does not. It also notices what a thread cannot: that no step
has been finished for too long. Then it kills the worker, whose supervisor starts another.

    worker -> child, JSON lines on stdin     {"leases": [[job id, token], ...]}  {"step": 1}
                                             {"let_go": [[job id, token], ...]}
                                             {"stand_in": true | false}
    child -> worker, JSON lines on stdout    {"job id": "lost" | "cancelled" | "late", ...}
                                             the first after its first beat

When the worker dies its end of the pipe closes. The child gives back what it held, so that
another worker has it at once instead of when the lease lapses, and ends. What the worker let go
of while Redis was away, the child gives back as soon as Redis answers, and no attempt is counted.
While the worker loads a model, and looks at nothing else, the child ends what was cancelled or is
late in its place.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator

import redis

from core.children import start_child
from core.errors import StoreUnavailable
from core.job_store import JobStore
from core.jobs import JobState, Lease
from core.leasing import Leasing, Verdict
from core.redis_connection import connect
from core.settings import Settings
from core.terms import terms
from core.workers import WorkerRoll
from worker.bell import Bell
from worker.marks import LATE, SHUTTING_DOWN, beat_file, drain_mark

MAX_PERIOD_S = 1.0
BEGIN_WITHIN_S = 60.0
READ_BYTES = 1 << 16


class Heartbeat:
    """The worker's side."""

    def __init__(self, owner: str) -> None:
        self._verdicts: dict[str, Verdict] = {}
        self._leases: list[tuple[str, str]] = []
        self._closing = False
        self._telling = threading.Lock()
        self._beating = threading.Event()
        self._process = start_child(
            [sys.executable, "-m", "worker.heartbeat", owner, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._listener = threading.Thread(target=self._listen, name="heartbeat", daemon=True)
        self._listener.start()

    def begin(self) -> None:
        """Wait for the first beat: what is claimed before it may lapse before it.

        A broker that is away for long keeps no worker from starting; there is nothing to claim.
        """
        self._beating.wait(BEGIN_WITHIN_S)

    def hold(self, leases: Iterable[Lease]) -> None:
        """From now on, keep these leases alive and no others."""
        held = [(lease.job_id, lease.token) for lease in leases]
        if held != self._leases:
            self._leases = held
            self._tell({"leases": held})

    def let_go(self, leases: Iterable[Lease]) -> None:
        """Redis has been away for too long: give these back when it answers again."""
        held = [(lease.job_id, lease.token) for lease in leases]
        if held:
            self._tell({"let_go": held})
        self.hold([])

    @contextlib.contextmanager
    def standing_in(self) -> Iterator[None]:
        """Within, the worker obeys no verdict. The child ends the jobs itself, and what was drawn
        of them is lost."""
        self._tell({"stand_in": True})
        try:
            yield
        finally:
            self._tell({"stand_in": False})

    def step(self) -> None:
        """The worker has got somewhere: it does not hang. From any thread."""
        self._tell({"step": 1})

    def verdict(self, lease: Lease) -> Verdict | None:
        """Why the work on a lease is to stop, if it is."""
        return self._verdicts.get(f"{lease.job_id}:{lease.token}")

    def close(self) -> None:
        """The child ends; leases are beaten no more."""
        self._closing = True
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(5)
        self._listener.join(5)

    def _tell(self, message: dict[str, object]) -> None:
        assert self._process.stdin is not None
        with self._telling:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as said:
            for line in said:
                self._verdicts = json.loads(line)
                self._beating.set()
        if not self._closing:
            # Without a heartbeat this worker would claim jobs and lose them. Celery starts it
            # anew, and it takes back what it held.
            os.kill(os.getpid(), signal.SIGKILL)


class Pulse:
    """The child's side: beats, watches for a hang, writes the beat file."""

    def __init__(
        self,
        leasing: Leasing,
        roll: WorkerRoll,
        bell: Bell,
        owner: str,
        worker_pid: int,
        settings: Settings,
    ) -> None:
        self._leasing = leasing
        self._bell = bell
        self._roll = roll
        self._owner = owner
        self._worker_pid = worker_pid
        self._lease_s = settings.lease_s
        self._step_timeout_s = settings.step_timeout_s
        self._drain_mark = drain_mark(settings.run_dir, owner)
        self._beat_file = beat_file(settings.run_dir, owner)
        self._beat_file.parent.mkdir(parents=True, exist_ok=True)
        self._leases: list[tuple[str, str]] = []
        self._let_go: list[tuple[str, str]] = []
        self._stands_in = False
        self._last_step = time.monotonic()
        self._told: dict[str, Verdict] | None = None
        self._unread = b""

    def run(self) -> None:
        """Until the worker closes its end, or dies; what it holds then is given back."""
        period_s = min(MAX_PERIOD_S, self._lease_s / 3)
        due, bell = time.monotonic(), self._bell.fileno()
        while True:
            wait_s = max(0.0, due - time.monotonic())
            ready, _, _ = select.select([0, bell], [], [], wait_s)
            if 0 in ready and not self._read():
                self._give_back()
                return
            if bell in ready:
                self._bell.silence()
                due = time.monotonic()
            if time.monotonic() >= due:
                self._beat()
                due = time.monotonic() + period_s

    def _read(self) -> bool:
        """Take in what the worker says; False at its end."""
        data = os.read(0, READ_BYTES)
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            self._last_step = time.monotonic()
            if "leases" in message:
                self._leases = [(job_id, token) for job_id, token in message["leases"]]
            self._stands_in = message.get("stand_in", self._stands_in)
            if "let_go" in message:
                self._let_go += [(job_id, token) for job_id, token in message["let_go"]]
        return bool(data)

    def _give_back(self) -> None:
        with contextlib.suppress(StoreUnavailable, redis.RedisError):  # then the leases lapse
            self._give_back_after_outage()
            if self._drain_mark.exists():
                # It was told to stop, and was killed since a load or a step took too long for it.
                self._leasing.give_back(self._leases, SHUTTING_DOWN, counted=False)
            else:
                self._leasing.give_back(self._leases, "its worker died")

    def _give_back_after_outage(self) -> None:
        """The token decides: a job that somebody else has by now is left to him."""
        if self._let_go:
            self._leasing.give_back(self._let_go, "the broker was away", outage=True)
            self._let_go = []

    def _end(self, verdicts: dict[str, Verdict]) -> None:
        """The worker finds that they are not its any more."""
        for job_id, token in self._leases:
            match verdicts.get(job_id):
                case "cancelled":
                    self._leasing.end(job_id, token, JobState.CANCELLED)
                case "late":
                    self._leasing.end(job_id, token, JobState.FAILED, reason=LATE)

    def _beat(self) -> None:
        if self._leases and time.monotonic() - self._last_step > self._step_timeout_s:
            with contextlib.suppress(ProcessLookupError):  # it has just died of itself
                os.kill(self._worker_pid, signal.SIGKILL)
            return
        # Leases first: a full disk or a full memory, where the others fail, may not cost them.
        verdicts: dict[str, Verdict] = {}
        try:
            if self._leases:
                verdicts = self._leasing.beat(self._leases, lease_s=self._lease_s)
            if self._stands_in:
                self._end(verdicts)
            self._give_back_after_outage()
        except (StoreUnavailable, redis.RedisError):
            return  # they may lapse; then the fencing token decides
        with contextlib.suppress(OSError):
            self._beat_file.touch()
        with contextlib.suppress(StoreUnavailable, redis.RedisError):
            self._roll.beat(self._owner)
        tokens = dict(self._leases)
        told = {f"{job_id}:{tokens[job_id]}": verdict for job_id, verdict in verdicts.items()}
        if told != self._told:
            self._told = told
            # A worker that has just died is not there to read it. The end of its pipe tells us
            # next, and what it held is given back then.
            with contextlib.suppress(BrokenPipeError):
                os.write(1, json.dumps(told).encode() + b"\n")


def main() -> None:
    # The kernel sends it when the worker dies; the pipe tells the same, and leaves time to act.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    owner, worker_pid = sys.argv[1], int(sys.argv[2])
    settings = Settings()
    assert settings.redis_url is not None
    client = connect(settings.redis_url, retry_s=settings.lease_s / 6)
    leasing = JobStore(client, terms(settings)).leasing
    bell = Bell(connect(settings.redis_url), owner)
    bell.start()
    Pulse(leasing, WorkerRoll(client), bell, owner, worker_pid, settings).run()


if __name__ == "__main__":
    main()
