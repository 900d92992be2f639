"""Child processes that do not outlive their parent, however it ends."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

PR_SET_PDEATHSIG = 1
# Loaded here: after a fork, before the exec, nothing may take the loader's lock.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent(by: signal.Signals = signal.SIGKILL) -> None:
    """In a child: the kernel sends it `by` when the thread that started it ends, on Linux.

    For a child whose start is a library's. One whose parent had ended before is not told.
    """
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, int(by))


def start_child(
    command: Sequence[str | Path],
    *,
    env: dict[str, str] | None = None,
    stdin: int | None = subprocess.DEVNULL,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    death_signal: signal.Signals = signal.SIGTERM,
) -> "subprocess.Popen[bytes]":
    """Start `command` in a session of its own, so that a Ctrl-C in the terminal reaches only us.

    On Linux the kernel sends it `death_signal` when the *thread* that called this ends: call it
    from a thread that lives as long as the child should. Elsewhere the child is not told.
    """
    parent = os.getpid()

    def tie_to_parent() -> None:
        die_with_parent(death_signal)
        if _libc is not None and os.getppid() != parent:  # it died since the fork
            os._exit(1)

    return subprocess.Popen(
        [str(word) for word in command],
        env=env,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
        preexec_fn=tie_to_parent,  # noqa: PLW1509  (two system calls, no locks)
    )


def stop_child(process: "subprocess.Popen[bytes]", *, grace_s: float) -> int:
    """Ask it to end; after `grace_s` seconds, end it. Returns its exit code."""
    if process.poll() is None:
        process.terminate()
        try:
            return process.wait(grace_s)
        except subprocess.TimeoutExpired:
            kill_session(process)
    return process.wait()


def kill_session(process: "subprocess.Popen[bytes]") -> None:
    """SIGKILL the child and everything it started in its session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
