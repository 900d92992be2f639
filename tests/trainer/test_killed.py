"""Killed at many moments of one erasure, each time where the last attempt had come to."""

import json
import os
import resource
import signal
import subprocess
import sys

import pytest
from safetensors import safe_open

from core.manifests import Manifest
from tests.trainer.both_stages import both_stages
from trainer.erase import erase

SPEC = both_stages(batch=2, anchors=2, trajectories=6, anchor_trajectories=4, trajectory_steps=3)
# Everything is kept whenever it can be, and trajectories are drawn two at a time. The process
# kills itself when a stage reports so many units, or when the n-th file is written and not yet in
# its place.
SUICIDAL = """
import json, os, pathlib, signal, sys
import trainer.reporting, trainer.trce.draft, trainer.trce.finetune, trainer.trce.gathering
import trainer.__main__ as trainer_main

trainer.trce.draft.KEEP_EVERY_S = trainer.trce.finetune.CHECKPOINT_EVERY_S = 0.0
trainer.trce.gathering.BATCH = 2
moment, count = sys.argv[1], int(sys.argv[2])
files = 0
print_line, replace = trainer.reporting._print_line, pathlib.Path.replace

def report(line):
    print_line(line)
    told = json.loads(line)
    if told.get("stage") == moment and told["done"] >= count:
        os.kill(os.getpid(), signal.SIGKILL)

def put_in_place(*arguments):
    global files
    files += 1
    if moment == "file" and files == count:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(*arguments)

trainer.reporting._print_line = report
pathlib.Path.replace = put_in_place
sys.exit(trainer_main.main(sys.argv[3:]))
"""
MOMENTS = [
    ("reading captions", 1),
    ("file", 1),  # what was computed of them is half way to being kept
    ("solving", 0),  # the closed form of stage 1
    ("drawing trajectories", 2),
    ("file", 1),  # the second two are drawn, and half way to being kept
    ("drawing trajectories", 8),  # among the anchors
    ("file", 3),  # the lesson itself, which takes the place of its drafts
    ("file", 2),  # in training
    ("writing", 0),
]


@pytest.fixture(scope="module")
def whole(tiny_folder, tmp_path_factory, cache):
    """The digests of what a run makes that nobody disturbs."""
    out = tmp_path_factory.mktemp("whole") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.trce.gathering.BATCH", 2)
        erase(*(tiny_folder, None, SPEC, out, lambda _: None), model_id="tiny-out", cache=cache)
    return Manifest.read(out).files


@pytest.fixture
def attempt(tmp_path, tiny_folder):
    """One attempt at the erasure, which dies at a moment; returns its exit code and reports."""
    (tmp_path / "spec.json").write_text(SPEC.model_dump_json())

    def start(
        moment: str = "never", count: int = 1, *, largest_file: int = resource.RLIM_INFINITY
    ) -> tuple[int, list[dict]]:
        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

        done = subprocess.run(
            [
                *(sys.executable, "-c", SUICIDAL, moment, str(count), str(tmp_path / "spec.json")),
                *("--base", str(tiny_folder), "--out", str(tmp_path / "out")),
                *("--work", str(tmp_path / "work"), "--cache", str(tmp_path / "cache")),
                *("--progress", "json", "--model-id", "tiny-out", "--threads", "1"),
            ],
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=limit,
            env=os.environ | {"PYTHONWARNINGS": "ignore"},
        )
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    return start


def test_whenever_it_is_killed_it_ends_with_the_same_bytes(whole, attempt, tmp_path):
    for moment, count in MOMENTS:
        code, _ = attempt(moment, count)
        assert code == -signal.SIGKILL, (moment, count)
        assert not (tmp_path / "out").exists()
        for kept in (tmp_path / "work").glob("[!.]*"):
            with safe_open(str(kept), framework="pt") as file:  # whole, or it would not open
                assert file.keys()

    (tmp_path / "work" / ".steering.safetensors.half").write_bytes(b"half")
    code, again = attempt()
    assert code == 0
    assert not list((tmp_path / "work").glob(".*"))
    assert not any(
        one["stage"] == "drawing trajectories" and one["done"] < one["total"] for one in again
    )
    assert Manifest.read(tmp_path / "out").files == whole


@pytest.mark.parametrize("bytes_left", [200, 60_000])
def test_a_disk_that_fills_up_is_a_failure_with_a_name(attempt, tmp_path, bytes_left):
    """No file may grow larger, which looks to who writes one as a full disk does."""
    code, told = attempt(largest_file=bytes_left)

    assert code == 2
    assert told[-1]["error"]["type"] == "NotEnoughRoom"
    assert "no room left" in told[-1]["error"]["detail"]
    assert not (tmp_path / "out").exists()
