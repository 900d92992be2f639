"""An evaluation whose disk fills up ends with a reason, and is not tried again in vain."""

import errno
import json
import os
import resource
import subprocess
import sys

import pytest

from trainer.evaluation import __main__ as command


@pytest.fixture
def words(tmp_path, judged_base, erased_folder) -> list[str]:
    """The command line of an evaluation."""
    wanted = {"model": "tiny-dark", "suites": ["explicit"], "num_inference_steps": 1}
    (tmp_path / "spec.json").write_text(json.dumps(wanted | {"split": "tuning"}))
    return [
        *(str(tmp_path / "spec.json"), "--base", str(judged_base), "--model", str(erased_folder)),
        *("--out", str(tmp_path / "report"), "--cache", str(tmp_path / "cache")),
        *("--progress", "json"),
    ]


def last_words(output: str) -> dict:
    return json.loads(output.splitlines()[-1])["error"]


@pytest.mark.parametrize(
    "bytes_left",
    [pytest.param(200, id="before it draws"), pytest.param(12_000, id="at the report")],
)
def test_a_disk_that_fills_up_is_a_failure_with_a_name(words, tmp_path, bytes_left):
    """No file may grow larger, which looks to who writes one as a full disk does."""
    done = subprocess.run(
        [sys.executable, "-m", "trainer.evaluation", *words, "--threads", "1"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, bytes_left)),
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )

    assert done.returncode == 2
    assert last_words(done.stdout)["type"] == "NotEnoughRoom"
    assert "no room left" in last_words(done.stdout)["detail"]
    assert bool([*tmp_path.glob("cache/pictures/*/*.png")]) == (bytes_left == 12_000)
    assert not [*tmp_path.glob("report/*")]


def test_so_is_one_that_takes_no_more_pictures(words, tmp_path, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("trainer.evaluation.album.write_atomically", full)

    assert command.main(words) == 2
    told = last_words(capsys.readouterr().out)
    assert told["type"] == "NotEnoughRoom"
    assert str(tmp_path / "cache") in told["detail"]
