"""What an erasure costs is told from its manifest and timed; timing changes nothing."""

import pytest
import torch

from core.edits import StageCost
from core.manifests import Manifest
from diffusion.erasure import Erasure
from diffusion.loading import load_base
from tests.tiny_model import WIDTH
from trainer.evaluation.costs import erasure_costs, latency
from trainer.evaluation.drawing import DrawingOptions, Studio


@pytest.fixture
def studio(judged_base):
    return Studio(load_base(judged_base, None), DrawingOptions(num_inference_steps=4))


def test_a_map_alone_is_all_that_a_picture_waits_for(studio):
    found = latency(studio, Erasure(torch.eye(WIDTH)), "dark")

    assert found.step_seconds == found.base_step_seconds > 0
    assert found.steps == 4
    mapping = found.map_prompt_seconds / (4 * found.base_step_seconds)
    assert found.change == pytest.approx(mapping, abs=1e-6)
    assert found.change > 0


def test_changed_tensors_are_timed_beside_the_bases_which_stay(studio):
    parameters = dict(studio.components.unet.named_parameters())
    before = {name: one.detach().clone() for name, one in parameters.items()}
    name = next(name for name in before if ".attn1." in name)
    found = latency(studio, Erasure(tensors={name: (before[name] + 1).half()}), "dark")

    assert found.map_prompt_seconds == 0
    assert found.step_seconds != found.base_step_seconds
    assert found.change == pytest.approx(
        found.step_seconds / found.base_step_seconds - 1, abs=1e-6
    )
    assert all(one.equal(before[name]) for name, one in parameters.items())


def test_making_is_told_as_the_manifest_has_it(studio, erased_folder):
    timed = latency(studio, Erasure(torch.eye(WIDTH)), "dark")
    edit = Manifest.read(erased_folder).edit
    bare = erasure_costs(edit, timed)
    assert bare.seconds == 1
    assert (bare.parameters_changed, bare.artifact_bytes, bare.unet_bytes) == (None, None, None)

    stage = StageCost(seconds=2, peak_memory_bytes=3)
    figures = {"parameters_changed": 4.0, "artifact_bytes": 5.0, "unet_bytes": 6.0}
    told = erasure_costs(
        edit.model_copy(update={"costs": {"stage 1": stage}, "figures": figures}), timed
    )
    assert told.stages == {"stage 1": stage}
    assert (told.parameters_changed, told.artifact_bytes, told.unet_bytes) == (4, 5, 6)
    assert told.processes == 1
