"""A LoRA on the base is the erased model, as far as it says."""

import copy

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from core.errors import ModelUnsupported
from diffusion.erasure import Erasure
from diffusion.loading import load_base
from diffusion.lora import to_lora
from diffusion.weights import find_weights, open_weights
from tests.tiny_model import FAMILIES, PROJECTED, WIDTH, WIDTH_2, make_model


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def folder(tmp_path_factory, family):
    return make_model(tmp_path_factory.mktemp("lora") / family, family=family)


def low_rank(width, rank, *, seed):
    draw = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(width, rank, generator=draw) for _ in range(2))
    return torch.eye(width) + 0.1 * left @ right.T


def erasure_of(family, *, rank=4):
    if family == "sdxl":
        return Erasure(
            low_rank(WIDTH + WIDTH_2, rank, seed=1), {}, low_rank(PROJECTED, rank, seed=2)
        )
    return Erasure(low_rank(WIDTH, rank, seed=1))


def lora_of(folder, family, erasure, **options):
    config = load_base(folder, None).unet.config
    with open_weights(*find_weights(folder / "unet").paths) as weights:
        return to_lora(weights, erasure, config, family=family, **options)


def output(unet, folder, family):
    encoder = load_base(folder, None).prompt_encoder()
    encoded = encoder.encode_all(["a photo of an axe"])
    draw = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, 8, 8, generator=draw)
    added = None
    if family == "sdxl":
        added = {
            "text_embeds": encoded.pooled,
            "time_ids": torch.tensor([[16.0, 16, 0, 0, 16, 16]]),
        }
    with torch.no_grad():
        return unet(latents, 500, encoded.embeddings, added_cond_kwargs=added).sample


def with_diffusers(folder, family, lora, tmp_path):
    """The base's UNet with the LoRA, as diffusers reads and applies it."""
    lora.save(tmp_path / "erased.safetensors")
    kind = StableDiffusionXLPipeline if family == "sdxl" else StableDiffusionPipeline
    options = {} if family == "sdxl" else {"safety_checker": None}
    pipeline = kind.from_pretrained(str(folder), local_files_only=True, **options)
    # The layer that reads pooled text is nothing that diffusers' key conversion knows.
    text = {name: one for name, one in lora.tensors.items() if "label_emb" not in name}
    pipeline.load_lora_weights(dict(text))
    return pipeline.unet


def test_diffusers_draws_with_the_lora_what_the_erased_model_draws(folder, family, tmp_path):
    erasure = erasure_of(family)
    lora = lora_of(folder, family, erasure, dtype=torch.float32)
    applied = with_diffusers(folder, family, lora, tmp_path)
    if family == "sdxl":
        erasure = Erasure(erasure.text_map)
    erased = load_base(folder, None).unet
    plain = output(copy.deepcopy(erased), folder, family)
    erasure.bake(erased)

    wanted = output(erased, folder, family)
    torch.testing.assert_close(output(applied, folder, family), wanted, atol=1e-4, rtol=1e-3)
    assert (wanted - plain).abs().max() > 1e-3


def apply_by_hand(unet, lora, family):
    """Every factor added to the weight that its key names."""
    from diffusion.originals.unet import original_module

    used = set()
    with torch.no_grad():
        for name, module in unet.named_modules():
            if not isinstance(module, torch.nn.Linear):
                continue
            key = original_module(name, unet.config) if family == "sdxl" else name
            key = "lora_unet_" + key.replace(".", "_")
            if f"{key}.lora_up.weight" in lora.tensors:
                up, down = (lora.tensors[f"{key}.lora_{way}.weight"] for way in ("up", "down"))
                scale = float(lora.tensors[f"{key}.alpha"]) / len(down)
                module.weight += scale * (up.double() @ down.double()).float()
                used.add(key)
    assert used == {name.split(".")[0] for name in lora.tensors}


def relative_error(unet, erased, base):
    wanted, given, before = (dict(one.named_parameters()) for one in (erased, unet, base))
    missed = sum(float((wanted[n] - given[n]).double().square().sum()) for n in wanted)
    change = sum(float((wanted[n] - before[n]).double().square().sum()) for n in wanted)
    return (missed / change) ** 0.5


def test_stage_1_is_exact_at_its_own_rank_and_the_error_is_what_it_says(folder, family):
    erasure = erasure_of(family)
    base = load_base(folder, None).unet
    erased, applied = copy.deepcopy(base), copy.deepcopy(base)
    erasure.bake(erased)
    for dtype, bound in ((torch.float32, 1e-6), (torch.float16, 1e-3)):
        lora = lora_of(folder, family, erasure, dtype=dtype)
        assert lora.rank == 4
        assert lora.error < bound
    apply_by_hand(applied, lora, family)
    assert relative_error(applied, erased, base) == pytest.approx(lora.error, rel=0.02)


def test_less_rank_is_less_exact_and_says_so(folder, family):
    errors = [lora_of(folder, family, erasure_of(family), rank=r).error for r in (4, 2, 1)]
    assert errors == sorted(errors)
    assert errors[-1] > 0.1


def test_what_stage_2_changed_is_fitted_as_well_as_its_rank_allows(folder, family):
    base = load_base(folder, None).unet
    draw = torch.Generator().manual_seed(5)
    names = [
        name for name, _ in base.named_parameters() if "attn1" in name or "attn2.to_q" in name
    ]
    changed = {
        name: one + 0.1 * torch.randn(one.shape, generator=draw)
        for name, one in base.named_parameters()
        if name in names
    }
    erasure = Erasure(erasure_of(family).text_map, changed)
    fine, coarse = (lora_of(folder, family, erasure, steered_rank=r) for r in (64, 2))
    erased, applied = copy.deepcopy(base), copy.deepcopy(base)
    erasure.bake(erased)
    apply_by_hand(applied, coarse, family)
    assert relative_error(applied, erased, base) == pytest.approx(coarse.error, rel=0.02)
    assert fine.error < coarse.error
    # Changed biases are left out, and counted.
    assert all(name.endswith(".bias") for name in coarse.left_out)
    assert len(coarse.left_out) == sum(name.endswith(".bias") for name in names)


@pytest.mark.parametrize(("rank", "at_most"), [(2, 2), (None, 3), (9, 3)])
def test_a_rank_that_is_asked_for_holds_for_both_stages(folder, family, rank, at_most):
    base = load_base(folder, None).unet
    draw = torch.Generator().manual_seed(5)
    [name] = [name for name, _ in base.named_parameters() if name.endswith("attn2.to_q.weight")][
        :1
    ]
    changed = base.get_parameter(name).detach()
    changed = changed + torch.randn(changed.shape, generator=draw)
    erasure = Erasure(erasure_of(family).text_map, {name: changed})
    lora = lora_of(folder, family, erasure, rank=rank, steered_rank=3)
    ranks = {
        len(one)
        for key, one in lora.tensors.items()
        if key.endswith("attn2_to_q.lora_down.weight")
    }
    assert ranks == {at_most}
    assert rank is None or lora.rank <= rank


def test_a_model_that_changes_nothing_makes_no_lora(folder, family):
    with pytest.raises(ModelUnsupported, match="changes nothing"):
        lora_of(folder, family, Erasure())
