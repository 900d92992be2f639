"""Promises that no single file can keep."""

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from pydantic import TypeAdapter

from core import errors
from core.job_scripts import SCRIPTS
from core.job_specs import JobSpec, Kind
from core.queue import TASK_OF_KIND
from core.settings import Settings
from core.terms import terms
from worker.roles import KINDS_OF_ROLE

ROOT = Path(__file__).resolve().parent.parent
LIGHT = [
    "core",
    "service.main",
    "worker.__main__",
    "worker.heartbeat",
    "worker.tidying",
    "cli.main",
]


def kinds_of_spec() -> set[str]:
    schema = TypeAdapter(JobSpec).json_schema()
    return set(schema["discriminator"]["mapping"])


def test_every_kind_of_spec_has_a_task_terms_and_a_worker():
    kinds = kinds_of_spec()

    assert kinds == set(get_args(Kind))
    assert kinds == set(TASK_OF_KIND)
    assert kinds == set(terms(Settings(_env_file=None)))
    assert sorted(kinds) == sorted(kind for some in KINDS_OF_ROLE.values() for kind in some)


def test_every_setting_is_in_the_example_file():
    example = (ROOT / ".env.example").read_text()
    wanted = {
        "REDIS_URL" if name == "redis_url" else f"TRCE_{name.upper()}"
        for name in Settings.model_fields
    }
    listed = {line.lstrip("#").split("=")[0] for line in example.splitlines() if "=" in line}
    files = [ROOT / "docker-compose.yml", *sorted((ROOT / "deploy").glob("compose.*.yml"))]
    compose = "".join(file.read_text() for file in files)
    for_compose = dict(re.findall(r"\$\{(\w+):?-([^}]*)\}", compose))
    for_compose |= dict.fromkeys(re.findall(r"\$\{(\w+):\?", compose), "")

    assert listed == wanted | set(for_compose)
    for name in set(for_compose) - wanted:
        assert f"#{name}={for_compose[name]}\n" in example, name


def test_every_error_is_in_the_tree_drawn_above_it():
    drawn = errors.__doc__
    kinds = [value for value in vars(errors).values() if isinstance(value, type)]
    named = [kind.__name__ for kind in kinds if issubclass(kind, Exception)]

    assert [name for name in named if name not in drawn] == []


def test_every_script_has_a_file_and_every_file_is_used():
    files = {path.stem for path in (ROOT / "core" / "lua").glob("*.lua")}

    assert files == {*SCRIPTS, "prelude"}


@pytest.mark.parametrize("module", LIGHT)
def test_processes_without_a_model_do_not_load_torch(module):
    """They start in a moment and stay small."""
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
