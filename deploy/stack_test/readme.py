"""The commands of README's section "Deployment", which are run as they stand there.

Each step takes the next command and says a word of it. A command that no step takes, or that
stands in another order, fails the test: tests/deploy/test_readme.py finds that in a moment, the
stack test after its minutes.
"""

import re

from deploy.compose_command import ROOT

HEADING = "## Deployment\n"
BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
OVERRIDDEN = re.compile(r"`docker compose (-f \S+ -f \S+) up -d --build`")


class Deployment:
    def __init__(self, text: str) -> None:
        """
        Raises:
            ValueError: the section, its block of commands or the one for CPUs is not there.
        """
        _, heading, rest = text.partition(HEADING)
        section = rest.partition("\n## ")[0]
        blocks, overridden = BLOCK.findall(section), OVERRIDDEN.findall(section)
        if not heading or len(blocks) != 1 or len(overridden) != 1:
            raise ValueError("README.md has no section Deployment as the stack test reads it")
        self.left = [_bare(line) for line in blocks[0].splitlines() if _bare(line)]
        self.files: list[str] = overridden[0].split()[1::2]
        """For a host without a GPU."""

    def take(self, words: str) -> str:
        """The next command, which has these words in it.

        Raises:
            ValueError: it has not, or there is none.
        """
        if not self.left or words not in self.left[0]:
            raise ValueError(f"README.md's next command has no {words!r} in it: {self.left[:1]}")
        return self.left.pop(0)


def _bare(line: str) -> str:
    """Without the comment; no command there has a # of its own."""
    return line.partition("#")[0].strip()


def deployment() -> Deployment:
    return Deployment((ROOT / "README.md").read_text())
