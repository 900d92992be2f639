"""Both stages, start to end: what stage 2 adds to an erased model."""

import signal
import subprocess
import sys

import pytest
import torch
from diffusers import UNet2DConditionModel

from core.errors import NotEnoughRoom, SteeringDiverged
from core.manifests import Manifest
from core.specs import STEERING_PRESETS, ErasureSpec, SteeringOptions
from diffusion.attention import text_projections
from diffusion.erasure import Erasure, write_tensors
from diffusion.loading import load_prompt_encoder
from tests.trainer.both_stages import both_stages
from trainer.erase import erase
from trainer.trce.finetune import finetune, trainable

SPEC = both_stages(batch=2, anchors=2, trajectories=4, anchor_trajectories=2, trajectory_steps=4)


@pytest.fixture(scope="module")
def made(tiny_folder, tmp_path_factory, cache):
    """A model of both stages, and what was reported while it was made."""
    out, reports = tmp_path_factory.mktemp("both") / "out", []
    erase(*(tiny_folder, None, SPEC, out, reports.append), model_id="tiny-out", cache=cache)
    return out, reports


@pytest.fixture
def run(tiny_folder, tmp_path, cache):
    """Erase into tmp_path/<out>, and return what was reported."""

    def erase_it(spec=SPEC, *, out="out", work=None):
        reports = []
        erase(
            *(tiny_folder, None, spec, tmp_path / out, reports.append),
            model_id="tiny-out",
            cache=cache,
            work=work,
        )
        return reports

    return erase_it


def test_it_leaves_the_text_map_as_stage_one_made_it(made, run, tmp_path):
    run(SPEC.model_copy(update={"steering": None}))
    alone = Erasure.load(tmp_path / "out/erasure.safetensors")
    both = Erasure.load(made[0] / "erasure.safetensors")

    assert both.text_map.equal(alone.text_map)
    assert not alone.tensors
    assert both.tensors


def test_the_published_settings_run_to_their_end_on_a_model_of_sd1(run, unet, tmp_path):
    """300 steps over 100 trajectories of 50, and 100 without a prompt, on random weights."""
    told = SPEC.model_dump(exclude={"steering"}, exclude_unset=True) | {
        "steering": "published-sd1"
    }
    reports = run(ErasureSpec.model_validate(told))

    edit = Manifest.read(tmp_path / "out").edit
    assert edit.steering == SteeringOptions.model_validate(STEERING_PRESETS["published-sd1"])
    assert [one.total for one in reports if one.stage == "drawing trajectories"][-1] == 200
    assert edit.loss_curve.every * len(edit.loss_curve.prompted) == 300
    assert max(edit.loss_curve.unprompted) > 0

    erasure = Erasure.load(tmp_path / "out/erasure.safetensors")
    before = {name: one.half() for name, one in trainable(unet).items()}
    moved = {name: (erasure.tensors[name] - one).abs() for name, one in before.items()}
    assert any(one.any() for one in moved.values())
    # No step of Adam is much longer than the rate; half precision rounds what is there.
    steps = edit.steering.steps * edit.steering.learning_rate
    assert all((moved[name] <= 2 * steps + one.abs() / 1024).all() for name, one in before.items())


def test_the_unet_folder_is_the_same_model_as_the_artifact(made, tiny, encoder, unet):
    erasure = Erasure.load(made[0] / "erasure.safetensors")
    baked = UNet2DConditionModel.from_pretrained(str(made[0] / "unet"))
    embedding = encoder.encode_all(["a photo of an axe"]).embeddings
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    write_tensors(unet, erasure.tensors)

    with torch.no_grad():
        worn = unet(latents, 500, erasure.map_prompts(embedding)).sample
        stage_one = tiny.unet(latents, 500, erasure.map_prompts(embedding)).sample
        torch.testing.assert_close(baked(latents, 500, embedding).sample, worn, atol=5e-3, rtol=0)
    assert (worn - stage_one).abs().max() > 1e-3


def test_the_manifest_says_what_was_done_and_what_it_cost(made):
    edit = Manifest.read(made[0]).edit
    erasure = Erasure.load(made[0] / "erasure.safetensors")
    unet = UNet2DConditionModel.from_pretrained(str(made[0] / "unet"))
    trained = sum(tensor.numel() for tensor in erasure.tensors.values())
    mapped = sum(one.weight.numel() for one in text_projections(unet).values())

    assert edit.steering == SPEC.steering
    assert set(edit.costs) == {"stage 1", "stage 2"}
    assert all(one.seconds > 0 and one.peak_memory_bytes > 0 for one in edit.costs.values())
    assert edit.figures["parameters_changed"] == trained + mapped
    assert edit.figures["map_prompt_seconds"] > 0
    assert edit.figures["erased_step_seconds"] > 0
    assert edit.figures["base_step_seconds"] > 0
    assert len(edit.loss_curve.prompted) == 6
    assert all(value >= 0 for value in edit.loss_curve.anchored)


def test_progress_tells_steps_and_losses(made):
    steps = [report for report in made[1] if report.stage == "steering"]

    assert [report.done for report in steps] == list(range(7))
    assert set(steps[-1].figures) == {"prompted", "unprompted", "anchored"}


def test_the_model_card_tells_of_both_stages(made):
    card = (made[0] / "README.md").read_text()

    assert "both stages" in card
    assert "as fast as its base" in card
    assert "| learning_rate | 0.001 |" in card


def test_the_text_encoder_has_given_its_memory_back_when_training_begins(run, monkeypatch):
    encoders, places = [], []

    def load(*arguments, **options):
        encoders.append(load_prompt_encoder(*arguments, **options))
        return encoders[-1]

    def train(*arguments, **options):
        (encoder,) = encoders[0].encoders
        places.extend(parameter.device.type for parameter in encoder.parameters())
        return finetune(*arguments, **options)

    monkeypatch.setattr("trainer.erase.load_prompt_encoder", load)
    monkeypatch.setattr("trainer.steered.finetune", train)
    run(SPEC)

    assert set(places) == {"meta"}


def test_the_same_job_makes_the_same_folder_byte_for_byte(made, run, tmp_path):
    run(SPEC)

    assert Manifest.read(tmp_path / "out").files == Manifest.read(made[0]).files


def test_a_run_that_was_killed_and_resumed_equals_one_that_was_not(
    made, run, tmp_path, tiny_folder
):
    """A real process, and a real kill -9, in the middle of the training."""
    work = tmp_path / "work"
    (tmp_path / "spec.json").write_text(SPEC.model_dump_json())
    code = (
        "import trainer.trce.finetune as f, sys, trainer.__main__ as m\n"
        "f.CHECKPOINT_EVERY_S = 0.0\n"
        "sys.exit(m.main(sys.argv[1:]))"
    )
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", code, str(tmp_path / "spec.json"), "--work", str(work)),
            *("--base", str(tiny_folder), "--out", str(tmp_path / "out")),
            *("--progress", "json", "--model-id", "tiny-out", "--threads", "1"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if '"steering"' in line and '"done":4' in line:
            process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()

    steps = [report.done for report in run(SPEC, work=work) if report.stage == "steering"]
    assert steps[1] > 1
    assert steps[-1] == 6
    assert Manifest.read(tmp_path / "out").files == Manifest.read(made[0]).files


def test_what_was_kept_of_another_run_is_not_taken_up(made, run, tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.trce.finetune.CHECKPOINT_EVERY_S", 0.0)
    run(SPEC.model_copy(update={"seed": 1}), out="other", work=tmp_path / "work")
    run(SPEC, work=tmp_path / "work")

    assert Manifest.read(tmp_path / "out").files == Manifest.read(made[0]).files


def test_what_other_sources_left_is_not_taken_up(run, tmp_path, monkeypatch):
    """An upgrade between two attempts: half a run of either would be a run of neither."""
    monkeypatch.setattr("trainer.trce.finetune.CHECKPOINT_EVERY_S", 0.0)
    run(SPEC, out="first", work=tmp_path / "work")
    monkeypatch.setattr("trainer.steered.erasing_digest", lambda: "other sources")
    reports = run(SPEC, work=tmp_path / "work")

    assert "drawing trajectories" in {one.stage for one in reports}
    assert [one.done for one in reports if one.stage == "steering"] == list(range(7))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
    ids=["gpu", "cpu", "python"],
)
def test_memory_that_runs_out_is_told_with_what_needs_less(run, tmp_path, monkeypatch, error):
    def full(*_, **__):
        raise error

    monkeypatch.setattr("trainer.steered.finetune", full)
    with pytest.raises(NotEnoughRoom, match=r"batch.*accumulation.*autocast.*gradient_check"):
        run(SPEC)
    assert list(tmp_path.iterdir()) == []


def test_other_errors_stay_what_they_are(run, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr("trainer.steered.finetune", broken)
    with pytest.raises(RuntimeError, match="mat1"):
        run(SPEC)


def test_a_run_that_diverges_leaves_nothing_and_says_what_to_do(run, tmp_path):
    wild = SPEC.steering.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(SteeringDiverged, match="lower the learning rate"):
        run(SPEC.model_copy(update={"steering": wild}))
    assert list(tmp_path.iterdir()) == []
