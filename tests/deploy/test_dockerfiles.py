"""What the images are built from, and what may be built in besides."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml

from core.checkup.names import FOR_COMPOSE

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "deploy").glob("*.Dockerfile"))
WORKER = ROOT / "deploy" / "worker.Dockerfile"
BUILT_IN = {"TRCE_EXTRAS", "TRCE_PACKAGES"}
EXTRAS = re.compile(r"\.\[([\w,-]+)")


def instructions(file: Path) -> list[tuple[str, str]]:
    """Each with what follows it, comments left out and lines joined."""
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined) if word]


@pytest.fixture(scope="module")
def extras() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return set(project["optional-dependencies"])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
class TestEach:
    def test_it_installs_pinned_versions_of_extras_that_there_are(self, file, extras):
        for word, rest in instructions(file):
            if word == "RUN" and "pip install" in rest:
                assert "--constraint requirements.lock" in rest
                for names in EXTRAS.findall(rest):
                    assert set(names.split(",")) <= extras

    def test_it_is_built_from_the_python_that_compose_names(self, file):
        (named,) = [rest for word, rest in instructions(file) if word == "ARG" and "IMAGE" in rest]
        services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
        builds = [one["build"] for one in services.values() if "build" in one]
        name, _, image = named.partition("=")

        assert re.search(r":\d+\.\d+\.\d+-", image), "a version that stays the same"
        assert ("FROM", f"${{{name}}}") in instructions(file)
        given = {one["args"][name] for one in builds if one["dockerfile"] == f"deploy/{file.name}"}
        assert given == {f"${{{name}:-{image}}}"}

    def test_it_ends_as_a_user_without_rights(self, file):
        users = [rest for word, rest in instructions(file) if word == "USER"]

        assert users == ["trce"]

    def test_it_copies_what_is_sent_to_the_builder(self, file):
        sent = (ROOT / ".dockerignore").read_text().splitlines()
        for word, rest in instructions(file):
            if word == "COPY":
                for source in shlex.split(rest)[:-1]:
                    assert (ROOT / source).exists(), source
                    assert f"!{source.removeprefix('./')}" in sent, source

    def test_dependencies_come_before_the_code_that_changes(self, file):
        words = instructions(file)
        installs = [n for n, (word, rest) in enumerate(words) if "pip install" in rest]
        code = [n for n, one in enumerate(words) if one == ("COPY", "core ./core")]

        assert max(installs) < min(code)


class TestBuiltInBesides:
    def test_each_argument_is_empty_unless_it_is_given_and_used_after_it_is_named(self):
        words = instructions(WORKER)
        for name in BUILT_IN:
            (named,) = [n for n, one in enumerate(words) if one == ("ARG", f'{name}=""')]
            uses = [n for n, (word, rest) in enumerate(words) if word == "RUN" and name in rest]
            assert uses, name
            assert named < min(uses), name

    def test_another_choice_keeps_the_layer_of_torch(self):
        words = instructions(WORKER)
        (torch,) = [n for n, (_, rest) in enumerate(words) if rest.endswith(" torch")]
        named = [n for n, (word, rest) in enumerate(words) if rest.partition("=")[0] in BUILT_IN]

        assert torch < min(named)

    def test_compose_hands_them_over_from_the_env_file(self):
        services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]

        for role in ("inference", "trainer"):
            given = services[role]["build"]["args"]
            assert {name: given[name] for name in BUILT_IN} == {
                name: f"${{{name}:-}}" for name in BUILT_IN
            }
        assert BUILT_IN <= FOR_COMPOSE, "a line of .env that stops every process"

    def test_what_operators_are_told_to_build_in_is_there(self, extras):
        operations = (ROOT / "docs" / "operations.md").read_text()
        told = re.findall(r"`TRCE_EXTRAS=([\w,]+)`", operations)

        assert told
        assert {name for one in told for name in one.split(",")} <= extras


def test_what_is_compiled_can_be_run_where_it_is_kept():
    """/tmp is mounted without the right to run programs, which is Docker's default for a tmpfs."""
    override = yaml.safe_load((ROOT / "deploy" / "compose.compile.yml").read_text())
    inference = override["services"]["inference"]
    ((place, _, options),) = [one.partition(":") for one in inference["tmpfs"]]

    assert "exec" in options.split(",")
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        assert Path(inference["environment"][name]).is_relative_to(place), name
    assert inference["environment"]["TRCE_COMPILE_UNET"] == "true"
    assert inference["environment"]["TRCE_WARM_UP"]
