"""Every family, with its true component classes: what we compute is what diffusers computes."""

import copy
import json
import shutil

import diffusers
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel

from core.errors import ModelUnsupported, UntrustedModel
from core.importing import read_family
from core.schedulers import SCHEDULERS
from diffusion.denoise_request import DenoiseRequest
from diffusion.denoiser import Denoiser
from diffusion.erasure import Erasure, write_unet
from diffusion.loading import load_base, load_prompt_encoder
from diffusion.schedulers import SchedulerFactory
from tests.same_latents import assert_same_latents
from tests.tiny_model import FAMILIES, PROJECTED, SIDE_PX, WIDTH, WIDTH_2, make_model

PROMPT, NEGATIVE = "a photo of an axe", "the dog"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("families")
    return {family: make_model(place / family, family=family) for family in FAMILIES}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def folder(folders, family):
    return folders[family]


@pytest.fixture(scope="module")
def parts(folder):
    return load_base(folder, None)


def pipeline_of(folder):
    xl = read_family(folder)[0] == "sdxl"
    pipeline = (StableDiffusionXLPipeline if xl else StableDiffusionPipeline).from_pretrained(
        str(folder), local_files_only=True, **({} if xl else {"safety_checker": None})
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def maps(family, *, seed=3):
    """An erasure that changes a good deal."""
    draw = torch.Generator().manual_seed(seed)

    def near_identity(width):
        return torch.eye(width) + 0.2 * torch.randn(width, width, generator=draw)

    if family != "sdxl":
        return Erasure(near_identity(WIDTH))
    return Erasure(near_identity(WIDTH + WIDTH_2), {}, near_identity(PROJECTED))


def draw(parts, prompt, negative, *, erasure=None, guidance_scale=5.0, scheduler=None):
    """The latents of one picture, drawn as a worker draws them."""
    erasure = erasure or Erasure()
    encoder = parts.prompt_encoder()
    wanted, unwanted = (erasure.map_prompt(encoder.encode(text)) for text in (prompt, negative))
    denoiser = Denoiser(
        parts.unet, parts.vae, SchedulerFactory(parts.scheduler_config), device="cpu"
    )
    denoiser.join(
        DenoiseRequest(
            key=1,
            prompt=wanted.embedding,
            negative=unwanted.embedding,
            seed=11,
            num_inference_steps=4,
            guidance_scale=guidance_scale,
            scheduler=scheduler,
            width_px=SIDE_PX,
            height_px=SIDE_PX,
            pooled=wanted.pooled,
            negative_pooled=unwanted.pooled,
        )
    )
    while True:
        if finished := denoiser.step():
            (picture,) = denoiser.decode([finished[0].latents])
            assert picture.size == (SIDE_PX, SIDE_PX)
            return finished[0].latents


def test_every_part_is_on_the_device_that_was_asked_for(folder):
    """`meta` is a device like a GPU: nothing that is there is on the CPU, too."""
    parts = load_base(folder, None, device="meta")
    encoders = [*parts.prompt_encoder().encoders]
    encoders += load_prompt_encoder(folder, None, device="meta").encoders

    for part in (parts.unet, parts.vae, *encoders):
        assert {one.device.type for one in part.state_dict().values()} == {"meta"}


@pytest.mark.parametrize("negative", ["", NEGATIVE], ids=["empty negative", "negative"])
def test_a_picture_is_what_the_pipeline_of_diffusers_draws(folder, parts, negative):
    pipeline = pipeline_of(folder)
    side = SIDE_PX // 2
    latents = torch.randn(4, side, side, generator=torch.Generator().manual_seed(11))
    expected = pipeline(
        PROMPT,
        negative_prompt=negative or None,
        num_inference_steps=4,
        guidance_scale=5.0,
        height=SIDE_PX,
        width=SIDE_PX,
        latents=latents[None],
        output_type="latent",
    ).images[0]
    torch.testing.assert_close(draw(parts, PROMPT, negative), expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_draws_what_diffusers_draws_with_it(folder, parts, name):
    pipeline = pipeline_of(folder)
    known = SCHEDULERS[name]
    own = {key: one for key, one in parts.scheduler_config.items() if not key.startswith("_")}
    pipeline.scheduler = getattr(diffusers, known.class_name).from_config({**own, **known.options})
    generator = torch.Generator().manual_seed(11)
    expected = pipeline(
        PROMPT,
        negative_prompt=NEGATIVE,
        num_inference_steps=4,
        guidance_scale=5.0,
        height=SIDE_PX,
        width=SIDE_PX,
        generator=generator,
        output_type="latent",
    ).images[0]
    drawn = draw(parts, PROMPT, NEGATIVE, scheduler=name)
    assert_same_latents(drawn, expected)


def test_a_mapped_prompt_draws_what_the_baked_unet_draws(folder, family, parts, tmp_path):
    erasure = maps(family)
    mapped = draw(parts, PROMPT, NEGATIVE, erasure=erasure)
    write_unet(folder / "unet", erasure, tmp_path / "unet", dtype=torch.float32)
    baked = copy.copy(parts)
    unet = UNet2DConditionModel.from_pretrained(str(tmp_path / "unet"))
    object.__setattr__(baked, "unet", unet)

    torch.testing.assert_close(draw(baked, PROMPT, NEGATIVE), mapped, atol=2e-4, rtol=1e-3)
    assert (mapped - draw(parts, PROMPT, NEGATIVE)).abs().max() > 1e-2


def test_the_family_is_read_from_the_folder(folder, family, parts):
    assert parts.family == read_family(folder)[0] == family
    encoder = load_prompt_encoder(folder, None)
    assert encoder.width == parts.unet.config.cross_attention_dim
    assert encoder.pooled_width == (PROJECTED if family == "sdxl" else None)
    assert encoder.digest() == parts.prompt_encoder().digest()


def test_the_first_end_of_text_is_found_whatever_pads_the_prompt(folder):
    encoder = load_prompt_encoder(folder, None)
    for prompt in ("", "axe", "a photo of an axe on the dog"):
        words = len(prompt.split())
        assert encoder.encode(prompt).eot == words + 1


def test_saved_erasures_keep_both_maps(family, tmp_path):
    erasure = maps(family)
    erasure.save(tmp_path / "erasure.safetensors")
    loaded = Erasure.load(tmp_path / "erasure.safetensors")
    assert torch.equal(loaded.text_map, erasure.text_map)
    assert (loaded.pooled_map is None) == (erasure.pooled_map is None)
    if family == "sdxl":
        assert torch.equal(loaded.pooled_map, erasure.pooled_map)


def test_an_erasure_of_another_family_is_refused(folder, family, tmp_path):
    for other in FAMILIES:
        if {family, other} in ({"sd1", "sdxl"}, {"sd2", "sdxl"}):
            with pytest.raises(ModelUnsupported):
                write_unet(folder / "unet", maps(other), tmp_path / f"unet-{other}")


def test_a_half_precision_variant_is_loaded(folder, parts, tmp_path):
    """As most folders on hubs are: `…fp16.safetensors` and nothing else."""
    half = shutil.copytree(folder, tmp_path / "half")
    weights = list(half.glob("*/*.safetensors"))
    loaded = load_base(half, None, dtype=torch.float16)
    for name in ("unet", "vae", "text_encoder"):
        part = getattr(loaded, name)
        part.to(torch.float16).save_pretrained(str(half / name), variant="fp16")
    if loaded.second is not None:
        loaded.second.text_encoder.save_pretrained(str(half / "text_encoder_2"), variant="fp16")
    for path in weights:
        path.unlink()

    again = load_base(half, None)
    assert again.unet.dtype == torch.float32
    torch.testing.assert_close(
        draw(again, PROMPT, ""), draw(parts, PROMPT, ""), atol=0.05, rtol=0.05
    )


def test_shards_are_read_like_one_file(folder, parts, tmp_path):
    sharded = shutil.copytree(folder, tmp_path / "sharded")
    whole = sharded / "unet/diffusion_pytorch_model.safetensors"
    whole.unlink()
    parts.unet.save_pretrained(str(sharded / "unet"), max_shard_size="40KB")
    assert len(list((sharded / "unet").glob("*.safetensors"))) > 1

    assert torch.equal(draw(load_base(sharded, None), PROMPT, ""), draw(parts, PROMPT, ""))
    write_unet(sharded / "unet", Erasure(), tmp_path / "unet", dtype=torch.float32)
    write_unet(folder / "unet", Erasure(), tmp_path / "other", dtype=torch.float32)
    one, other = (
        UNet2DConditionModel.from_pretrained(str(tmp_path / name)).state_dict()
        for name in ("unet", "other")
    )
    assert all(torch.equal(one[name], other[name]) for name in other)

    next((sharded / "unet").glob("*00001*.safetensors")).unlink()
    with pytest.raises(UntrustedModel, match="00001"):
        load_base(sharded, None)


def change_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("part", "changes", "why"),
    [
        ("unet", {"addition_embed_type": None}, "addition_embed_type"),
        ("unet", {"addition_embed_type": "text_image"}, "text_image"),
        ("unet", {"projection_class_embeddings_input_dim": 40}, "refiners"),
        ("text_encoder_2", {"hidden_size": 8}, "text encoders write 32"),
        ("vae", {"latents_mean": [0.0]}, "shifts"),
    ],
)
def test_an_sdxl_that_does_not_fit_together_is_refused(folders, tmp_path, part, changes, why):
    folder = shutil.copytree(folders["sdxl"], tmp_path / "broken")
    change_json(folder / part / "config.json", **changes)
    with pytest.raises(ModelUnsupported, match=why):
        load_base(folder, None)


@pytest.mark.parametrize("part", ["tokenizer_2", "text_encoder_2"])
def test_a_missing_part_of_sdxl_is_named(folders, tmp_path, part):
    folder = shutil.copytree(folders["sdxl"], tmp_path / "broken")
    shutil.rmtree(folder / part)
    with pytest.raises(ModelUnsupported, match=part):
        load_base(folder, None)
