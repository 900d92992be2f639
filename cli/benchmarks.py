"""The benchmarks of a checkout: what its Makefile calls `bench-NAME`, and what they wrote."""

import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import Invalid, Misconfigured

CHECKOUT = Path(__file__).resolve().parent.parent
RESULTS = Path("build/bench")
TARGET = re.compile(
    r"^bench-(?P<name>[a-z-]+):.*## (?P<what>.+)\n\t\$\(BIN\)/python (?P<words>.+)$", re.MULTILINE
)
CONTINUED = re.compile(r"\\\n\s*")
LONGEST_LIST = 6
STDERR = 2
"""The descriptor; stdout is for what programs read."""


@dataclass(frozen=True)
class Benchmark:
    name: str
    what: str
    """One line: what it measures."""
    words: tuple[str, ...]
    """For the Python interpreter."""

    def run(self, checkout: Path) -> dict[str, Any]:
        """File -> what was measured; its own table goes to stderr.

        Raises:
            Misconfigured: it failed.
        """
        began = time.time()
        command = [sys.executable, *self.words]
        done = subprocess.run(command, cwd=checkout, stdout=STDERR, check=False)
        if done.returncode != 0:
            raise Misconfigured(
                f"bench-{self.name} ended with {done.returncode}; what it said stands above, and "
                f"`make bench-{self.name}` in {checkout} runs it alone"
            )
        written = sorted((checkout / RESULTS).glob("**/*.json"))
        return {
            str(path.relative_to(checkout)): json.loads(path.read_text())
            for path in written
            if path.stat().st_mtime >= began
        }


def benchmarks(checkout: Path = CHECKOUT) -> dict[str, Benchmark]:
    """Raises Misconfigured: this is an installation without its sources."""
    try:
        makefile = CONTINUED.sub("", (checkout / "Makefile").read_text())
    except OSError as error:
        raise Misconfigured(
            f"benchmarks come with a checkout of the sources, and {checkout} is none: clone the "
            "repository, `make install`, and run `.venv/bin/trce bench` there"
        ) from error
    return {
        found["name"]: Benchmark(found["name"], found["what"], tuple(shlex.split(found["words"])))
        for found in TARGET.finditer(makefile)
    }


def chosen(names: list[str], known: dict[str, Benchmark]) -> list[Benchmark]:
    """Raises Invalid."""
    unknown = [name for name in names if name not in known]
    if unknown:
        raise Invalid(f"no benchmark {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in names]


def figures(measured: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """(a.b.c, value) for every figure of a result; long lists by their length alone."""
    match measured:
        case dict():
            for key, value in measured.items():
                yield from figures(value, f"{name}.{key}" if name else str(key))
        case list() if len(measured) > LONGEST_LIST or any(
            isinstance(one, dict | list) for one in measured
        ):
            yield name, f"{len(measured)} entries"
        case list():
            yield name, ", ".join(map(str, measured))
        case float():
            yield name, f"{measured:.4g}"
        case _:
            yield name, str(measured)
