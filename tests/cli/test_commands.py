import subprocess
import sys

import pytest

from cli.specs import parse_spec, read_fields
from cli.stack.ports import free_port
from core.errors import Invalid


def trce(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli.main", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_no_service_is_an_error_that_says_how_to_start_one():
    result = trce("generate", "a cat", "--url", f"http://127.0.0.1:{free_port('127.0.0.1')}")

    assert result.returncode == 2
    assert "trce up" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_erasure_without_a_service_is_told_how_to_do_without():
    result = trce("erase", "weapons", "--url", f"http://127.0.0.1:{free_port('127.0.0.1')}")

    assert result.returncode == 2
    assert "--out" in result.stderr
    assert "--data-dir" in result.stderr


def test_a_bad_option_is_refused_before_anything_is_sent():
    result = trce("generate", "a cat", "--steps", "0")

    assert result.returncode == 2
    assert "num_inference_steps" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_size_is_checked_like_everything_else():
    result = trce("generate", "a cat", "--width", "5")

    assert result.returncode == 2
    assert "width" in result.stderr


def read_spec(*what):
    return parse_spec(read_fields(what), "emoji", source=" ".join(what))


def test_a_word_is_a_preset(tmp_path):
    assert read_spec("weapons").preset == "weapons"


def test_several_words_are_several_presets():
    assert read_spec("weapons", "drugs").preset == ("weapons", "drugs")


@pytest.mark.parametrize("listed", ["violence", "[violence]"])
def test_presets_are_erased_beside_what_a_file_holds(tmp_path, listed):
    path = tmp_path / "spec.yaml"
    path.write_text(f"preset: {listed}\nconcepts: [{{name: axe, replacement: flower}}]\n")
    spec = read_spec("drugs", str(path))

    assert spec.asked_for == ("violence", "drugs", "axe")


def test_two_files_are_one_too_many():
    with pytest.raises(Invalid, match=r"a\.yaml and b\.json: give one file"):
        read_fields(["a.yaml", "b.json"])


def test_a_file_holds_a_spec(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text("base_model: mine\nconcepts: [{name: axe, replacement: flower}]\n")

    spec = read_spec(str(path))
    assert spec.base_model == "mine"
    assert spec.concepts[0].name == "axe"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("concepts: [", id="not YAML"),
        pytest.param("- a list", id="not a mapping"),
        pytest.param("concepts: [{name: axe, replacement: axe}]", id="target is source"),
    ],
)
def test_a_file_that_is_no_spec_is_named(tmp_path, text):
    path = tmp_path / "spec.yaml"
    path.write_text(text)

    with pytest.raises(Invalid, match=r"spec\.yaml"):
        read_spec(str(path))
