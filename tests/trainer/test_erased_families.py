"""An erasure of each family, from its folder to the picture of the baked model."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from core.manifests import Manifest
from core.specs import ErasureSpec
from diffusion.erasure import Erasure, write_tensors
from diffusion.loading import load_base, load_prompt_encoder
from tests.tiny_model import FAMILIES, PROJECTED, make_model
from trainer.erase import erase
from trainer.preservation import Kept
from trainer.solving import Solution, solve_again
from trainer.trce.archive import load_statistics
from trainer.trce.statistics import Statistics
from trainer.trce.texts import Texts, predict
from trainer.trce.textual import TextualEdit

AXE = {"name": "axe", "synonyms": ["hatchet"], "replacement": "flower"}
BREAD = {"name": "bread", "replacement": "dog"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(family, name) -> the folder of an erased model; `base` is the base."""
    place = tmp_path_factory.mktemp("families")
    cache = tmp_path_factory.mktemp("cache")

    def make(family, name, *, concepts=(), merge=(), **fields):
        folder = place / family
        if not folder.exists():
            make_model(folder / "base", family=family)
        if not (folder / name).exists():
            spec = {"base_model": "base", "concepts": concepts, "merge": merge}
            if concepts and not merge:
                spec["textual"] = {"preserve": 0.002, "ridge": 1e-4, "eot_tokens": "first"}
            erase(
                *(folder / "base", None, ErasureSpec.model_validate(spec | fields)),
                *(folder / name, lambda _: None),
                model_id=name,
                cache=cache,
                merge=[folder / one for one in merge],
            )
        return folder / name

    return make


@pytest.mark.parametrize("family", FAMILIES)
def test_the_concept_moves_to_its_replacement_in_everything_that_the_unet_reads(made, family):
    folder = made(family, "axe", concepts=[AXE])
    manifest = Manifest.read(folder)
    manifest.check_files(folder)
    assert manifest.family == family

    erasure = Erasure.load(folder / "erasure.safetensors")
    encoder = load_prompt_encoder(folder.parent / "base", None)

    def distances(prompt, target, by):
        one, other = by.map_prompt(encoder.encode(prompt)), encoder.encode(target)
        pooled = 0.0 if one.pooled is None else float((one.pooled - other.pooled).norm())
        return float((one.embedding[one.eot] - other.embedding[other.eot]).norm()), pooled

    unsafe = "a photo of an axe", "a photo of a flower"
    before, after = distances(*unsafe, Erasure()), distances(*unsafe, erasure)
    assert after[0] < 0.6 * before[0]
    assert (erasure.pooled_map is not None) == (family == "sdxl")
    if family == "sdxl":
        assert after[1] < 0.75 * before[1]


@pytest.mark.parametrize(("of_text", "of_pooled"), [(3.0, 5.0), (5.0, 3.0), (5.0, None)])
def test_the_worse_of_two_condition_numbers_is_reported(of_text, of_pooled):
    edit, pooled = (
        None if condition is None else TextualEdit(torch.eye(2, dtype=torch.float64), condition)
        for condition in (of_text, of_pooled)
    )
    nothing = torch.zeros(2, 2, dtype=torch.float64)
    statistics = {"axe": Statistics(nothing, nothing, 1.0)}
    solution = Solution(edit, pooled, 1.0, statistics, Kept("encoder", ()))
    assert solution.figures["condition_number"] == 5


@pytest.mark.parametrize("family", FAMILIES)
def test_the_written_unet_is_the_erased_one(made, family):
    folder = made(family, "axe", concepts=[AXE])
    base = load_base(folder.parent / "base", None)
    Erasure.load(folder / "erasure.safetensors").bake(base.unet)
    written = UNet2DConditionModel.from_pretrained(str(folder / "unet"))
    assert written.config.addition_embed_type == base.unet.config.addition_embed_type
    for name, parameter in base.unet.named_parameters():
        torch.testing.assert_close(
            written.get_parameter(name), parameter, atol=2e-3, rtol=2e-3, msg=name
        )


def test_sdxl_is_merged_in_both_of_its_spaces(made):
    for name, concepts in (("axe", [AXE]), ("bread", [BREAD]), ("joint", [AXE, BREAD])):
        made("sdxl", name, concepts=concepts)

    def solved(folder):
        edit = Manifest.read(folder).edit
        return solve_again(
            *load_statistics(folder / "statistics.safetensors"), edit.concepts, edit.textual
        )

    merged = solved(made("sdxl", "merged", merge=["axe", "bread"]))
    joint = solved(made("sdxl", "joint"))
    assert merged.pooled_edit.text_map.shape == (PROJECTED, PROJECTED)
    assert (merged.edit.text_map - joint.edit.text_map).abs().max() < 1e-10
    assert (merged.pooled_edit.text_map - joint.pooled_edit.text_map).abs().max() < 1e-10


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_model_of_which_everything_is_removed_is_its_base(made, family):
    made(family, "axe", concepts=[AXE])
    bare = made(family, "bare", merge=["axe"], remove=["axe"])
    erasure = Erasure.load(bare / "erasure.safetensors")
    assert erasure.text_map is None
    assert erasure.pooled_map is None


@pytest.mark.parametrize("family", FAMILIES)
def test_stage_two_trains_every_family(made, family):
    """Its loss falls, and the folder draws what base, changed tensors and maps draw together."""
    steering = {
        "steps": 12,
        "batch": 2,
        "anchors": 2,
        "learning_rate": 2e-3,
        "regularisation": 0.1,
        "target_scale": 4.0,
        "trajectories": 2,
        "anchor_trajectories": 1,
        "kept_trajectories": 1,
        "trajectory_steps": 4,
    }
    folder = made(family, "steered", concepts=[AXE], steering=steering)
    curve = Manifest.read(folder).edit.loss_curve
    assert sum(curve.unprompted[8:]) < sum(curve.unprompted[:4])

    base = load_base(folder.parent / "base", None)
    erasure = Erasure.load(folder / "erasure.safetensors")
    baked = UNet2DConditionModel.from_pretrained(str(folder / "unet"))
    texts = Texts.read(base.prompt_encoder(), ["a photo of an axe"], size_px=16)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    timestep = torch.tensor([500])
    write_tensors(base.unet, erasure.tensors)
    with torch.no_grad():
        worn = predict(base.unet, latents, timestep, texts.through(erasure))
        torch.testing.assert_close(
            predict(baked, latents, timestep, texts), worn, atol=5e-3, rtol=0
        )
