"""Tries the steps in their order, and stops at the first that fails.

What was tried and found goes to build/stack/summary.json; the exit code is 1 if anything failed.
"""

import contextlib
import json
import sys
import time
import traceback
from collections.abc import Iterator
from typing import Any

from deploy.stack_test.order import STEPS, Step
from deploy.stack_test.stack import OUT, Stack


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "commands.log").unlink(missing_ok=True)
    stack = Stack()
    tried: list[dict[str, Any]] = []
    with cleared_away(stack):
        for step in STEPS:
            tried.append(attempt(stack, step))
            print(json.dumps(tried[-1]), flush=True)
            if not tried[-1]["ok"]:
                break
    left = stack.compose("ps", "-q").stdout.split()
    passed = len(tried) == len(STEPS) and all(one["ok"] for one in tried) and not left
    summary = {"passed": passed, "compose": stack.command[:2], "steps": tried, "left": left}
    (OUT / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    sys.exit(not passed)


def attempt(stack: Stack, step: Step) -> dict[str, Any]:
    """Its name, whether it went well, what it found, README's commands that it ran, its time."""
    began, before = time.monotonic(), list(stack.deployment.left)
    result: dict[str, Any] = {"step": step.__name__.replace("_", " "), "ok": True}
    try:
        result["found"] = step(stack)
    except Exception as error:  # noqa: BLE001  (the summary is to be written)
        traceback.print_exc()
        result |= {"ok": False, "error": f"{type(error).__name__}: {error}"}
    if taken := before[: len(before) - len(stack.deployment.left)]:
        result["readme"] = taken
    return result | {"took_s": round(time.monotonic() - began, 1)}


@contextlib.contextmanager
def cleared_away(stack: Stack) -> Iterator[None]:
    stack.compose("down", "-v", "--remove-orphans", check=False)
    try:
        yield
    finally:
        logs = stack.compose("logs", "--no-color", check=False).stdout
        (OUT / "containers.log").write_text(logs)
        stack.compose("down", "-v", "--remove-orphans")


if __name__ == "__main__":
    main()
