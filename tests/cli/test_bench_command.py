"""`trce bench`, on a checkout made for the test."""

import json

import pytest
from typer.testing import CliRunner

from cli import benchmarks
from cli.commands import bench
from cli.main import app
from core.errors import Misconfigured

MAKEFILE = """\
help: ## list
\t@true

bench-quick: install ## how fast nothing is (1 second)
\t$(BIN)/python -c 'import json, pathlib; p = pathlib.Path("build/bench/quick.json"); {write}'
bench-broken: install ## never
\t$(BIN)/python \\
\t  -c 'raise SystemExit(3)'
"""
WRITE = 'p.parent.mkdir(parents=True); p.write_text(json.dumps({"speedup": 1.97, "of": [1, 2]}))'


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    (tmp_path / "Makefile").write_text(MAKEFILE.replace("{write}", WRITE))
    (tmp_path / "build").mkdir()
    monkeypatch.setattr(bench, "CHECKOUT", tmp_path)
    monkeypatch.setattr(bench, "benchmarks", lambda: benchmarks.benchmarks(tmp_path))
    return tmp_path


def run(*words):
    return CliRunner().invoke(app, ["bench", *words])


def test_every_target_of_the_makefile_is_listed():
    listed = json.loads(run("--json").stdout)
    makefile = (benchmarks.CHECKOUT / "Makefile").read_text()
    targets = [line.split(":")[0] for line in makefile.splitlines() if line.startswith("bench-")]
    assert [f"bench-{one['name']}" for one in listed] == targets
    assert all(one["what"] for one in listed)


def test_what_was_measured_is_shown(checkout):
    measured = benchmarks.benchmarks(checkout)["quick"].run(checkout)
    assert measured == {"build/bench/quick.json": {"speedup": 1.97, "of": [1, 2]}}
    assert dict(benchmarks.figures(measured["build/bench/quick.json"])) == {
        "speedup": "1.97",
        "of": "1, 2",
    }


def test_it_is_run_by_its_name_and_programs_are_told_all_of_it(checkout):
    done = run("quick", "--json")
    assert json.loads(done.stdout)["quick"]["build/bench/quick.json"]["speedup"] == 1.97
    (checkout / "build/bench/quick.json").unlink()
    (checkout / "build/bench").rmdir()
    assert "1.97" in run("quick").stdout


def test_one_that_fails_is_named(checkout):
    with pytest.raises(Misconfigured, match="bench-broken ended with 3"):
        benchmarks.benchmarks(checkout)["broken"].run(checkout)


def test_an_unknown_one_is_refused_with_those_there_are(checkout):
    result = run("quicker")
    assert result.exit_code == 1
    assert "there are quick, broken" in str(result.exception)


def test_without_sources_the_way_to_them_is_told(tmp_path):
    with pytest.raises(Misconfigured, match="come with a checkout"):
        benchmarks.benchmarks(tmp_path)
