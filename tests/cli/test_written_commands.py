"""Every `trce ...` that is written down is a command that there is, with options that it has."""

import ast
import contextlib
import html
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from cli.main import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted(ROOT.glob("deploy/**/*.md")),
]
TEMPLATES = sorted((ROOT / "service" / "web" / "templates").glob("*.jinja"))
PROGRAMS = [
    path
    for folder in ("core", "cli", "service", "worker", "trainer", "diffusion")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
FENCED = re.compile(r"^```(?:sh|console)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
CODE = re.compile(r"<code>([^<]+)</code>")
ANY = {"COMMAND", "...", "…"}
"""Stand for any command."""
FLAG = re.compile(r"--?[a-z]")
TREE = typer.main.get_command(app)


def in_words(line: str) -> Iterator[list[str]]:
    """What follows each `trce` of a line of a shell, up to the command's end."""
    reader = shlex.shlex(line, posix=True, punctuation_chars=True)
    words = []
    # A quotation that goes on in the next line ends what can be read of this one.
    with contextlib.suppress(ValueError):
        for word in reader:
            words.append(word)  # noqa: PERF402  (what came before the error counts)
    for n, word in enumerate(words):
        before = words[n - 1] if n else ""
        # Not the namespace of `kubectl -n trce`.
        if word.rpartition("/")[2] == "trce" and before != "-n":
            # `docker compose run --entrypoint trce SERVICE` names the service in between.
            rest = words[n + 2 :] if before == "--entrypoint" else words[n + 1 :]
            ends = [m for m, one in enumerate(rest) if set(one) <= set("|&;<>()")]
            yield rest[: min(ends, default=len(rest))]


def why_not(words: list[str]) -> str | None:
    """None for a command that there is. Many a sentence names one without its arguments."""
    command, path, rest = TREE, "trce", list(words)
    while rest and hasattr(command, "commands"):
        if rest[0] in ANY or rest[0].startswith("-"):
            return None
        if rest[0] not in command.commands:
            return f"there is no {rest[0]!r} in `{path}`"
        path = f"{path} {rest[0]}"
        command = command.commands[rest.pop(0)]
    known = {flag for one in command.params for flag in (*one.opts, *one.secondary_opts)}
    flags = {word.partition("=")[0] for word in rest if FLAG.match(word)}
    unknown = sorted(flags - known - {"--help"})
    return f"`{path}` has no {', '.join(unknown)}" if unknown else None


def of_a_page(text: str) -> Iterator[str]:
    for block in FENCED.findall(text):
        yield from block.replace("\\\n", " ").splitlines()
    yield from (one for one in INLINE.findall(FENCED.sub("", text)) if one.startswith("trce "))


def of_a_program(text: str) -> Iterator[str]:
    """Strings, those that are put together included; what is filled in is a word."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.JoinedStr):
            parts = [one.value if isinstance(one, ast.Constant) else "X" for one in node.values]
            yield from INLINE.findall("".join(map(str, parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from INLINE.findall(node.value.replace("\n", " "))


def of_a_template(text: str) -> Iterator[str]:
    filled = re.sub(r"\{\{.*?\}\}", "X", text)
    yield from (html.unescape(one) for one in CODE.findall(filled))


def wrong(lines: Iterator[str]) -> list[str]:
    return [why for line in lines for words in in_words(line) if (why := why_not(words))]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_those_of_a_page_are_there(page):
    assert wrong(of_a_page(page.read_text())) == []


def test_those_of_messages_are_there():
    found = {path.name: wrong(of_a_program(path.read_text())) for path in PROGRAMS}

    assert {name: lines for name, lines in found.items() if lines} == {}


def test_those_of_the_page_for_people_are_there():
    lines = [line for path in TEMPLATES for line in of_a_template(path.read_text())]

    assert [line for line in lines if line.startswith("trce ")]
    assert wrong(iter(lines)) == []


def test_what_an_alert_says_to_do_is_there():
    text = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text()
    fixes = re.findall(r'fix: "(.*)"$', text, re.MULTILINE)

    assert fixes
    assert wrong(iter(fixes)) == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("trce modls list", "no 'modls'"),
        ("docker compose exec service trce keys mint --scope admin", "no 'mint' in `trce keys`"),
        ("A=$(trce erase weapons --promot | tail -1)", "has no --promot"),
        (".venv/bin/trce up --prot 1", "has no --prot"),
        ("docker compose run --entrypoint trce trainer docter", "no 'docter'"),
    ],
)
def test_one_that_is_not_there_is_found(line, words):
    (why,) = wrong(iter([line]))

    assert words in why
