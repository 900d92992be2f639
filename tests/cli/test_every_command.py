"""What holds for every command of `trce`: it teaches its use, and answers programs in JSON."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from cli.examples import EXAMPLES
from cli.main import app

DOCUMENTED = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()


def leaves(command, words=("trce",)):
    """(words, command) of everything that can be run."""
    if hasattr(command, "commands"):
        for name, one in command.commands.items():
            yield from leaves(one, (*words, name))
    else:
        yield words, command


COMMANDS = dict(leaves(typer.main.get_command(app)))
each = pytest.mark.parametrize("words", COMMANDS, ids=" ".join)


@each
def test_it_answers_programs(words):
    assert "--json" in [flag for param in COMMANDS[words].params for flag in param.opts]


@each
def test_it_says_what_it_does_and_every_option_too(words):
    command = COMMANDS[words]
    assert command.help
    assert [param.name for param in command.params if not getattr(param, "help", None)] == []


@each
def test_it_is_documented_with_its_example(words):
    assert f"`{EXAMPLES[' '.join(words)]}`" in DOCUMENTED


@each
def test_its_example_is_one_that_it_takes(words):
    example = shlex.split(EXAMPLES[" ".join(words)])
    command = COMMANDS[words]
    assert tuple(example[: len(words)]) == words
    flags = {flag for param in command.params for flag in (*param.opts, *param.secondary_opts)}
    assert {word for word in example if word.startswith("-")} <= flags
    assert f"Example: [bold]{EXAMPLES[' '.join(words)]}" in command.epilog


def test_help_names_no_command_that_is_not_there():
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert {words[1] for words in COMMANDS} <= set(result.output.split())


def complete(line: str, **env: str) -> list[str]:
    """What bash would be offered for the last word of a line."""
    command = [sys.executable, "-c", "from cli.main import run; run()"]
    environment = {
        **os.environ,
        "_TRCE_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
        **env,
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.stdout.split()


def test_a_shell_completes_commands_presets_and_suites():
    assert complete("trce comp") == ["compare"]
    assert "weapons" in complete("trce erase w")
    assert complete("trce evaluate x --suite ord") == ["ordinary"]


def test_a_shell_completes_nothing_where_no_service_answers():
    assert complete("trce models show e", TRCE_URL="http://127.0.0.1:9") == []
    assert complete("trce models show e", TRCE_URL="no address") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_each_shell_is_shown(shell):
    command = [sys.executable, "-m", "cli.main", "--show-completion", shell]
    done = subprocess.run(
        command,
        env={**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "complete" in done.stdout, done.stderr
