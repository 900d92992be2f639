"""What the nemesis does: each fault happens at one moment, and may have an end of its own."""

import contextlib
import random
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import psutil
import redis

from tests.chaos.installation import LEASE_S, Installation
from tests.crowding import crowding

FREEZE_S = LEASE_S + 2.0
"""So long that the leases of what is frozen lapse."""
CUT_S = LEASE_S + 2.0
FULL_S = 4.0
DRAWS = "billiard.spawn"
"""Part of the command of each worker's child that draws."""
BEATS = "worker.heartbeat"
"""Part of the command of the process that keeps a worker's leases alive."""
TRAINS = "-m trainer "
"""Part of the command of the process that a trainer worker starts for each erasure."""
GONE_WITHIN_S = 2.0
"""After its parent's death; what is frozen takes longer."""
TRAINED_S = 8.0
"""How long a training may have gone on, at most, before it must be struck."""
OF_TRAINERS = ("training killed", "trainer worker killed")
OF_BROKERS = ("broker killed", "broker frozen", "network cut", "disk filled", "everything killed")
"""After which a worker finds the broker away."""
OF_DRAWERS = (
    *("pool child killed", "worker killed", "worker frozen", "heartbeat frozen"),
    "network cut",
)


@dataclass(frozen=True)
class Fault:
    """One that has happened."""

    kind: str
    at: float
    """Unix seconds."""
    lasted_s: float = 0.0
    crowding: float = 1.0
    """Of the machine then; see `tests.crowding`."""
    took_s: float = 0.0
    """To choose whom to strike, and to strike: a job that was begun meanwhile may feel it."""


@dataclass
class Nemesis:
    """Does harm, and undoes what must be undone; everything in the thread that calls."""

    installation: Installation
    random: random.Random
    done: list[Fault] = field(default_factory=list)
    _ended: int = 0
    """How many generations had ended when it was last looked."""
    _ended_before: int = -1
    """The same at the last blow to whoever draws."""
    _let_train_s: float = 0.0
    _pending: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    @property
    def kinds(self) -> dict[str, Callable[[], float]]:
        """What each fault does; it returns how long it lasts, in seconds."""
        return {
            "pool child killed": lambda: self._kill(self._pool_children()),
            "worker killed": lambda: self._kill(self._busy_workers()),
            "training killed": lambda: self._kill_training(above=0),
            # Celery's child, or its parent.
            "trainer worker killed": lambda: self._kill_training(above=self.random.choice((1, 2))),
            "broker killed": lambda: self._kill(self._members("unixsocket:")),
            "service killed": lambda: self._kill(self._members("-m service")),
            "worker frozen": self._freeze_worker,
            # Its worker draws on, while its leases lapse and others draw the same.
            "heartbeat frozen": lambda: self._freeze(self._heartbeats(), FREEZE_S),
            "broker frozen": lambda: self._freeze(self._members("unixsocket:"), FREEZE_S),
            "service frozen": lambda: self._freeze(self._members("-m service"), FREEZE_S),
            "wakes dropped": self._drop_wakes,
            "network cut": self._cut,
            "disk filled": self._fill,
            "everything stopped": self._stop_everything,
            "everything killed": self._kill_everything,
        }

    def strike(self, kind: str) -> bool:
        """Whether there was something to strike: it may not have started again yet, or be idle."""
        at, crowded = time.time(), crowding()
        try:
            lasted_s = self.kinds[kind]()
        except (psutil.NoSuchProcess, redis.RedisError):
            return False
        self.done.append(Fault(kind, at, lasted_s, crowded, time.time() - at))
        if kind in OF_DRAWERS:
            self._ended_before = self._ended
        return True

    def tend(self) -> None:
        """Undo what is due; to be called often."""
        now = time.monotonic()
        due = [undo for at, undo in self._pending if at <= now]
        self._pending = [(at, undo) for at, undo in self._pending if at > now]
        for undo in due:
            undo()
        self.installation.tend()

    def relent(self) -> None:
        """Undo everything now."""
        pending, self._pending = self._pending, []
        for _, undo in pending:
            undo()

    def _later(self, delay_s: float, undo: Callable[[], None]) -> float:
        self._pending.append((time.monotonic() + delay_s, undo))
        return delay_s

    def _members(self, words: str) -> list[psutil.Process]:
        return self.installation.stack.members(words)

    def _busy_workers(self) -> list[psutil.Process]:
        """Those that hold jobs: the death of an idle one tries nothing.

        None before something has ended since the last of them was struck: on a slow machine each
        would be struck when it had just come up, and nothing would show that the others draw.
        """
        with self._impatient_client() as client:
            self._ended = sum(map(int, client.hvals("outcomes:generation")))
            if self._ended <= self._ended_before:
                return []
            return [
                worker
                for worker in self.installation.workers()
                if client.scard(f"owner:{self.installation.owner(worker)}")
            ]

    def _pool_children(self) -> list[psutil.Process]:
        """The processes that draw."""
        return self._family(DRAWS)

    def _heartbeats(self) -> list[psutil.Process]:
        return self._family(BEATS)

    def _family(self, words: str) -> list[psutil.Process]:
        """Processes of busy workers whose command line holds `words`."""
        return [
            child
            for worker in self._busy_workers()
            for child in worker.children(recursive=True)
            if words in " ".join(child.cmdline())
        ]

    def _impatient_client(self) -> redis.Redis:
        """While the broker is frozen, whoever waits for it cannot thaw it."""
        socket = str(self.installation.broker_socket)
        return redis.Redis(unix_socket_path=socket, socket_timeout=1, retry=None)

    def _pick(self, processes: list[psutil.Process]) -> psutil.Process:
        if not processes:
            raise psutil.NoSuchProcess(0)
        return self.random.choice(processes)

    def _kill(self, processes: list[psutil.Process]) -> float:
        """With all that dies of it: who draws outlives its parent by a moment, and claims."""
        victim = self._pick(processes)
        family = [victim, *victim.children(recursive=True)]
        victim.kill()
        until = time.monotonic() + GONE_WITHIN_S
        while time.monotonic() < until and not all(map(is_gone, family)):
            time.sleep(0.02)
        return 0.0

    def _kill_training(self, *, above: int) -> float:
        """The process that trains, or who started it, each time at another moment of its life.

        Args:
            above: how far: 0 is itself.
        """
        trainings = [
            process
            for process in self._members(TRAINS)
            if time.time() - process.create_time() >= self._let_train_s
        ]
        process = self._pick(trainings)
        for _ in range(above):
            parent = process.parent()
            process = self._pick([parent] if parent else [])
        self._let_train_s = self.random.uniform(0.0, TRAINED_S)
        return self._kill([process])

    def _freeze_worker(self) -> float:
        """The child that draws, or that and all that belongs to its worker."""
        worker = self._pick(self._busy_workers())
        family = [worker, *worker.children(recursive=True)]
        if self.random.random() < 0.5:
            family = [child for child in family if DRAWS in " ".join(child.cmdline())]
        return self._freeze(family, FREEZE_S, all_of_them=True)

    def _freeze(
        self, processes: list[psutil.Process], for_s: float, *, all_of_them: bool = False
    ) -> float:
        frozen = processes if all_of_them else [self._pick(processes)]
        if not frozen:
            raise psutil.NoSuchProcess(0)
        for process in frozen:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGSTOP)
        return self._later(for_s, lambda: _thaw(frozen))

    def _drop_wakes(self) -> float:
        """All that lie in Celery's list."""
        with self._impatient_client() as client:
            client.delete("generation")
        return 0.0

    def _cut(self) -> float:
        self.installation.far.cut()
        return self._later(CUT_S, self.installation.far.mend)

    def _fill(self) -> float:
        self.installation.disk.fill()
        return self._later(FULL_S, self.installation.disk.clear)

    def _stop_everything(self) -> float:
        return self._restart(self.installation.stack.interrupt)

    def _kill_everything(self) -> float:
        return self._restart(self.installation.stack.kill)

    def _restart(self, end: Callable[[], object]) -> float:
        """The far worker is not restarted, and the disk is not full, while all starts anew."""
        self.relent()
        began = time.monotonic()
        end()
        self.installation.stack.start()
        return time.monotonic() - began


def plan(counts: dict[str, int], rng: random.Random) -> list[str]:
    """The faults in the order in which they happen: the rare ones spread among the many."""
    faults = [kind for kind, count in counts.items() for _ in range(count)]
    rng.shuffle(faults)
    return faults


def is_gone(process: psutil.Process) -> bool:
    """Dead, whoever is to be told of it."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _thaw(frozen: Iterable[psutil.Process]) -> None:
    for process in frozen:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGCONT)
