"""The model in `models/emoji`: it loads anywhere, draws what it is asked, and stays small."""

import json

import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import AutoModelForImageClassification, CLIPVisionModelWithProjection

from trainer.pretraining.assemble import LARGEST
from trainer.pretraining.folders import Folders

FOLDER = Folders().model
NAMES = ["pistol", "knife", "bomb", "skull", "rose", "pizza", "castle", "penguin", "guitar", "car"]


@pytest.fixture(scope="module")
def pipeline():
    loaded = StableDiffusionPipeline.from_pretrained(FOLDER)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def draw(pipeline, prompts: list[str], *, steps: int = 20, seed: int = 0) -> torch.Tensor:
    return pipeline(
        prompts,
        num_inference_steps=steps,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(seed),
        output_type="pt",
    ).images


def test_it_has_the_geometry_of_stable_diffusion(pipeline):
    assert pipeline.vae.config.scaling_factor == 0.18215
    assert pipeline.vae.config.latent_channels == 4
    assert pipeline.vae_scale_factor == 8
    assert pipeline.tokenizer.model_max_length == 77
    assert pipeline.tokenizer.pad_token == pipeline.tokenizer.eos_token


def test_a_seed_decides_the_picture(pipeline):
    first, again, other = (
        draw(pipeline, ["a picture of an axe"], steps=2, seed=seed) for seed in (1, 1, 2)
    )
    assert first.shape == (1, 3, 64, 64)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_classifier_recognises_what_was_asked_for(pipeline):
    judge = AutoModelForImageClassification.from_pretrained(FOLDER / "classifier").eval()
    drawn = draw(pipeline, [f"a picture of a {name}" for name in NAMES])
    with torch.no_grad():
        best = judge(drawn * 2 - 1).logits.argmax(1).tolist()
    right = [
        judge.config.id2label[number] == name for number, name in zip(best, NAMES, strict=True)
    ]
    assert sum(right) >= 8


def test_the_image_encoder_shares_the_space_of_the_text_encoder(pipeline):
    """Of ten drawn things, half or more lie nearest to their own name; chance is one."""
    viewer = CLIPVisionModelWithProjection.from_pretrained(FOLDER / "image_encoder").eval()
    prompts = [f"a picture of a {name}" for name in NAMES]
    ids = pipeline.tokenizer(
        prompts, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        said = pipeline.text_encoder(ids).pooler_output
        shown = viewer(draw(pipeline, prompts) * 2 - 1).image_embeds
    nearest = torch.cosine_similarity(shown[:, None], said[None], dim=-1).argmax(1)
    assert (nearest == torch.arange(len(NAMES))).sum() >= 5


def test_the_judges_say_how_they_want_their_pictures():
    for judge in ("classifier", "image_encoder"):
        said = json.loads((FOLDER / judge / "preprocessor_config.json").read_text())
        assert said["image_mean"] == said["image_std"] == [0.5, 0.5, 0.5]


def test_the_folder_stays_small_and_holds_no_pickles():
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= LARGEST
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".txt", ".md", ".png"}
