"""`python -m trainer` as its users run it: a process of its own."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from core.manifests import Manifest
from core.progress import Progress
from trainer.__main__ import main

CONCEPTS = [{"name": "axe", "replacement": "flower"}]


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump({"base_model": "tiny", "concepts": CONCEPTS}))
    return path


@pytest.fixture
def command(spec, tiny_folder, tmp_path):
    """The command line, without the name of the program."""
    return [
        *(str(spec), "--base", str(tiny_folder), "--out", str(tmp_path / "out" / "Axe-less!")),
        *("--progress", "json", "--threads", "1"),
    ]


def start(command):
    return subprocess.Popen(
        [sys.executable, "-m", "trainer", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )


def test_it_prints_progress_makes_the_model_and_ends_with_zero(command, tmp_path):
    process = start(command)
    output, _ = process.communicate(timeout=100)

    assert process.returncode == 0
    reports = [Progress.model_validate_json(line) for line in output.splitlines()]
    assert reports[-1] == Progress(stage="writing", done=1, total=1)
    made = Manifest.read(tmp_path / "out" / "Axe-less!")
    assert made.id == "axe-less"
    made.check_files(tmp_path / "out" / "Axe-less!")
    assert list((Path(os.environ["XDG_CACHE_HOME"]) / "trce").glob("*.safetensors"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        pytest.param(["--samples", "2", "--progress", "bar"], "add --progress json", id="bars"),
        pytest.param(["--samples", "9"], "invalid choice: 9", id="too many"),
    ],
)
def test_samples_that_nobody_would_see_are_refused(command, words, says, capfd):
    with pytest.raises(SystemExit) as ended:
        main([*command, *words])

    assert ended.value.code == 2
    assert says in capfd.readouterr().err


def test_sigterm_ends_it_with_143_and_nothing_half_written(command, tmp_path):
    process = start(command)
    assert process.stdout is not None
    for line in process.stdout:
        if "reading captions" in line:
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=100)

    assert process.returncode == 143
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_sigterm_while_writing_takes_back_what_was_written(command, tmp_path, monkeypatch, capfd):
    """The signal comes when the folder is half full: every file but the UNet is there."""
    written = []

    def interrupted(*arguments, **options):
        written.extend(path.name for path in next((tmp_path / "out").iterdir()).iterdir())
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("trainer.erase.write_unet", interrupted)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        main(command)

    assert signal.getsignal(signal.SIGTERM) == before
    assert ended.value.code == 143
    assert sorted(written) == ["erasure.safetensors", "statistics.safetensors"]
    assert list((tmp_path / "out").iterdir()) == []


@pytest.fixture
def failure(capfd):
    """Run it where it must fail; the last line of stdout says how."""

    def run(command):
        assert main(command) == 2
        return json.loads(capfd.readouterr().out.splitlines()[-1])["error"]

    return run


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        pytest.param("base_model: tiny", "give `preset`, at least", id="nothing to erase"),
        pytest.param("{", "cannot be read", id="no YAML"),
        pytest.param("base_model: tiny\npreset: nope", "no preset 'nope'", id="no such preset"),
        pytest.param(
            "base_model: tiny\npreset: weapons\ntextual: {preserve: -1}",
            "textual.preserve",
            id="a number out of bounds",
        ),
    ],
)
def test_a_wrong_spec_is_told_in_the_last_line(command, spec, failure, content, detail):
    spec.write_text(content)
    error = failure(command)
    assert error["type"] == "ConceptInvalid"
    assert detail in error["detail"]


@pytest.mark.parametrize("given", ["No!", "../out", "-", "", "x" * 101])
def test_an_id_that_cannot_be_is_told_before_the_run(command, failure, given, monkeypatch):
    monkeypatch.setattr("trainer.erase.erase", lambda *a, **k: pytest.fail("it began"))
    error = failure([*command, f"--model-id={given}"])
    assert error["type"] == "Invalid"
    assert f"{given!r} is no model id" in error["detail"]


@pytest.mark.parametrize("flag", ["--out", "--work"])
@pytest.mark.parametrize("place", ["a file", "/proc"])
def test_a_place_that_cannot_be_written_to_is_told_before_the_run(
    command, spec, failure, tmp_path, monkeypatch, flag, place
):
    """Root may write to folders whose mode says that nobody may; into /proc nobody may."""
    small = {"steps": 1, "trajectories": 1, "learning_rate": 1e-4}
    asked = {"base_model": "tiny", "concepts": CONCEPTS, "steering": small}
    spec.write_text(yaml.safe_dump(asked))
    monkeypatch.setattr("trainer.erase.read_family", lambda *a: pytest.fail("it began"))
    (tmp_path / "a file").touch()
    error = failure([*command, flag, str(tmp_path / place / "a/folder")])
    assert error["type"] == "Invalid"
    assert "cannot be written to" in error["detail"]
    assert not (tmp_path / "out").exists()


def test_a_base_that_is_no_model_is_told_in_the_last_line(command, failure, tmp_path):
    command[command.index("--base") + 1] = str(tmp_path)
    assert failure(command)["type"] == "ModelUnsupported"


def test_a_manifest_that_does_not_fit_is_told_in_the_last_line(command, failure, tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    command += ["--base-manifest", str(tmp_path / "manifest.json")]
    assert failure(command)["type"] == "UntrustedModel"


def test_a_manifest_is_read_under_the_name_that_was_given(command, failure, tmp_path):
    """And not from a manifest.json that happens to lie beside it."""
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "of-the-base.json").write_text("[]")
    command += ["--base-manifest", str(tmp_path / "none.json")]
    assert "none.json cannot be read" in failure(command)["detail"]


def test_help_answers_without_loading_torch():
    code = """
import runpy, sys
sys.argv = ["trainer", "--help"]
try:
    runpy.run_module("trainer", run_name="__main__")
finally:
    print("torch" in sys.modules)
"""
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "SPEC" in answer.stdout
    assert answer.stdout.splitlines()[-1] == "False"
