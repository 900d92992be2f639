"""Watching a job: whoever stops watching is told that the job goes on."""

import io

import pytest
from rich.console import Console

from cli.following import follow


class LeftAlone:
    """A client whose user presses Ctrl-C while it waits."""

    def wait(self, path: str, **_: object) -> None:
        raise KeyboardInterrupt


def test_ctrl_c_says_that_the_job_runs_on_and_how_to_end_it():
    said = io.StringIO()

    with pytest.raises(KeyboardInterrupt):
        follow(LeftAlone(), "3945d94f", Console(file=said))

    assert "3945d94f runs on" in said.getvalue()
    assert "`trce jobs cancel 3945d94f`" in said.getvalue()
