"""Stage 2 in two processes makes what it makes in one, but for rounding; killed or not."""

import os
import signal
import subprocess
import sys

import psutil
import pytest
import torch

from core.errors import Invalid
from core.manifests import Manifest
from core.specs import MAX_SYNONYMS
from diffusion.erasure import Erasure
from tests.trainer.both_stages import both_stages
from trainer.company import check_processes
from trainer.erase import erase

# More trajectories than are drawn together, and batches that two cannot share evenly.
SPEC = both_stages(batch=3, anchors=6, trajectories=18, anchor_trajectories=34, trajectory_steps=3)
KEEPING = (
    "import trainer.trce.finetune as f, trainer.trce.draft as d, sys, trainer.__main__ as m\n"
    "f.CHECKPOINT_EVERY_S = 0.0\n"
    "d.KEEP_EVERY_S = 0.0\n"
    "sys.exit(m.main(sys.argv[1:]))"
)


@pytest.fixture(scope="module")
def make(tiny_folder, tmp_path_factory, cache):
    """Erase in so many processes; returns the folder and what was reported."""

    def make_it(processes: int, **steering):
        spec = SPEC.model_copy(update={"steering": SPEC.steering.model_copy(update=steering)})
        out, reports = tmp_path_factory.mktemp("several") / "out", []
        erase(
            *(tiny_folder, None, spec, out, reports.append),
            model_id="tiny-out",
            cache=cache,
            processes=processes,
        )
        return out, reports

    return make_it


@pytest.fixture(scope="module")
def shared(make):
    return make(2)


@pytest.fixture
def start(tiny_folder, tmp_path, cache):
    """The command, in two processes, that keeps whatever it can."""
    (tmp_path / "spec.json").write_text(SPEC.model_dump_json())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def start_it():
        return subprocess.Popen(
            [
                *(sys.executable, "-c", KEEPING, str(tmp_path / "spec.json")),
                *("--base", str(tiny_folder), "--out", str(tmp_path / "out")),
                *("--work", str(tmp_path / "work"), "--cache", str(cache)),
                *("--progress", "json", "--model-id", "tiny-out", "--threads", "1"),
                *("--processes", "2"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONWARNINGS": "ignore", "TMPDIR": str(elsewhere)},
        )

    return start_it


def assert_alike(one, other):
    """Equal, but for what rounding makes of the optimiser's steps."""
    one, other = (Erasure.load(out / "erasure.safetensors") for out in (one, other))
    assert one.text_map.equal(other.text_map)
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in one.tensors.items():
        torch.testing.assert_close(other.tensors[name], tensor, rtol=0, atol=1e-3, msg=name)


def test_two_processes_make_what_one_makes(make, shared):
    alone, _ = make(1)

    assert_alike(alone, shared[0])


def test_a_batch_is_shared_that_is_smaller_than_its_parts(make):
    change = {"batch": 2, "accumulation": 2}

    assert_alike(make(1, **change)[0], make(2, **change)[0])


def test_all_follow_what_was_found_however_much_that_is(make, monkeypatch):
    """A merge takes over more neighbours than a spec may name."""
    found = {"axe": tuple(f"dog {n}" for n in range(MAX_SYNONYMS + 1))}
    monkeypatch.setattr("trainer.erase.find_neighbours", lambda *_, **__: found)
    few = {"steps": 2, "kept_trajectories": 4}

    assert_alike(make(1, **few)[0], make(2, **few)[0])


def test_the_first_process_reports_for_all(shared):
    drawn = [one for one in shared[1] if one.stage == "drawing trajectories"]
    steps = [one for one in shared[1] if one.stage == "steering"]

    # Each denoising step tells that it lives, at the count of trajectories that are done by then.
    done = [one.done for one in drawn]
    assert done == sorted(done)
    assert set(done) == {0, 18, 50, 54}
    assert drawn[-1].total == 54
    assert [one.done for one in steps] == list(range(7))
    assert Manifest.read(shared[0]).edit.figures["processes"] == 2


def test_whichever_process_is_killed_it_ends_with_the_same_bytes(shared, start, tmp_path):
    for stage, whom in (("drawing trajectories", 0), ("steering", 1)):
        process = start()
        for line in process.stdout:
            if f'"{stage}","done":' in line and '"done":0' not in line:
                (other,) = psutil.Process(process.pid).children()
                (other if whom else process).kill()
                break
        _, said = process.communicate()

        assert process.returncode == (1 if whom else -signal.SIGKILL), said
        _, alive = psutil.wait_procs([other], timeout=20)
        assert not alive
        assert not (tmp_path / "out").exists()
        assert not list((tmp_path / "elsewhere").iterdir())

    again = start()
    told, _ = again.communicate()
    assert again.returncode == 0
    assert '"drawing trajectories"' not in told
    assert not list((tmp_path / "work").glob("trce-ranks-*"))
    assert Manifest.read(tmp_path / "out").files == Manifest.read(shared[0]).files


def test_one_that_cannot_even_begin_is_told_of_at_once(make, monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(RuntimeError, match="process 1 of 2 ended before stage 2 began"):
        make(2)


@pytest.mark.parametrize(
    ("count", "device", "said"),
    [
        pytest.param(1000, "cpu", r"has \d+ cores; ask for \d+ at most", id="cores"),
        pytest.param(2, "cuda", "has 1 GPUs; ask for 1 at most", id="GPUs"),
        pytest.param(2, "cuda:1", "cuda:1 is one device; name cuda", id="one GPU by name"),
        pytest.param(2, "mps", "on cuda or cpu, not on mps", id="another kind"),
        pytest.param(0, "cpu", "at least one process", id="none"),
    ],
)
def test_more_processes_than_there_are_devices_are_refused(count, device, said, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(Invalid, match=said):
        check_processes(count, device, SPEC.steering)


def test_a_step_too_small_to_be_shared_is_refused(make):
    with pytest.raises(Invalid, match="a step of 1 points cannot be shared by 2 processes"):
        make(2, batch=1, anchors=1)
