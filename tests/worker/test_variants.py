"""Models with changed weights, drawn by one worker with one UNet."""

import gc
import io
import itertools

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image

from core.importing import import_base
from core.jobs import JobState
from core.signing import Signer
from diffusion.erasure import Erasure
from diffusion.loading import load_base
from diffusion.schedulers import Kind

CHANGED = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"


@pytest.fixture
def picture(jobs, storage):
    def read(job_id: str) -> np.ndarray:
        job = jobs.get(job_id)
        assert job.state is JobState.SUCCEEDED, job.reason
        return np.asarray(Image.open(io.BytesIO(storage.get(job.images[0].key))), dtype=np.int16)

    return read


def test_each_picture_is_its_own_models_whoever_shares_the_worker(
    submit, make_batcher, make_shelf, add_variant, picture
):
    for seed, model in enumerate(("one", "other")):
        add_variant(model, seed=seed)
    models = ["emoji", "one", "other"]
    alone = {}
    for model in models:
        job_id = submit("a cat", model=model)
        make_batcher(shelf=make_shelf()).drain()
        alone[model] = picture(job_id)
    together = {
        submit("a cat", model=model, num_inference_steps=4): model for model in [*models, *models]
    }
    batcher = make_batcher(shelf=make_shelf())
    batcher.drain()
    again = submit("a cat", model="emoji")
    batcher.drain()

    for job_id, model in together.items():
        assert np.abs(picture(job_id) - alone[model]).max() <= 1, model
    assert np.array_equal(picture(again), alone["emoji"])
    assert np.abs(alone["one"] - alone["emoji"]).max() > 20
    assert np.abs(alone["one"] - alone["other"]).max() > 20


def test_text_maps_share_every_pass_and_each_acts_on_its_own_models_prompts(
    submit, make_batcher, make_shelf, add_variant, picture, monkeypatch
):
    width = make_shelf().variant("emoji").embed("a cat").embedding.shape[-1]
    generator = torch.Generator().manual_seed(0)
    models = ["emoji", *(f"map-{number}" for number in range(8))]
    for seed, model in enumerate(models[1:]):
        noise = torch.randn(width, width, generator=generator) / width**0.5
        add_variant(model, seed=seed, text_map=torch.eye(width) + 0.6 * noise)
    shelf = make_shelf()
    rows, forward = [], UNet2DConditionModel.forward

    def counting(self, sample, *arguments, **options):
        rows.append(len(sample))
        return forward(self, sample, *arguments, **options)

    monkeypatch.setattr(UNet2DConditionModel, "forward", counting)
    alone = {}
    for model in models:
        job_id = submit("a cat", model=model)
        make_batcher(shelf=shelf).drain()
        alone[model] = picture(job_id)
    steps = 4
    assert rows == [2] * steps * len(models)

    rows.clear()
    together = {submit("a cat", model=model): model for model in models}
    make_batcher(shelf=shelf, rows=len(models)).drain()

    assert rows == [2 * len(models)] * steps
    for job_id, model in together.items():
        assert np.abs(picture(job_id) - alone[model]).max() <= 1, model
    for one, other in itertools.combinations(models, 2):
        assert np.abs(alone[one] - alone[other]).max() > 20, (one, other)


def test_schedulers_are_begun_once_for_all_models_of_a_base(
    submit, make_batcher, add_variant, monkeypatch
):
    """Each kind and number of steps is remembered, and a worker keeps many models."""
    begun, begin = [], Kind.begun
    monkeypatch.setattr(
        Kind, "begun", lambda kind, steps: begun.append(steps) or begin(kind, steps)
    )
    for seed in range(3):
        add_variant(f"m{seed}", seed=seed)
        submit("a cat", model=f"m{seed}", num_inference_steps=7)
    make_batcher().drain()

    assert begun.count(7) == 1


def test_after_a_variant_the_base_is_what_it_was_bit_for_bit(
    submit, make_batcher, make_shelf, add_variant, registry
):
    add_variant("one", seed=1)
    shelf = make_shelf()
    submit(model="one")
    submit(model="emoji")
    make_batcher(shelf=shelf).drain()
    base = shelf.variant("emoji")
    base.denoiser.wear()

    loaded = load_base(registry.path("emoji"), None).unet.state_dict()
    live = base.base.unet._unet.state_dict()
    assert all(torch.equal(live[name], tensor) for name, tensor in loaded.items())
    assert shelf.variant("one").base is base.base


def test_models_take_turns_under_load(jobs, submit, make_batcher, add_variant, heartbeat):
    """Neither of two models waits for the other to run out of work."""
    add_variant("one", seed=1)
    first, second = (submit(model=model, num_inference_steps=20) for model in ("emoji", "one"))
    ends = {}

    def note(steps: int) -> None:
        for job_id in (first, second):
            if jobs.get(job_id).state.ended:
                ends.setdefault(job_id, steps)

    heartbeat.on_step = note
    batcher = make_batcher()
    batcher.drain()

    assert jobs.get(second).state is JobState.SUCCEEDED
    assert heartbeat.steps >= 40
    assert all(end > 30 for end in ends.values())


def test_the_cache_of_changed_weights_is_bounded_and_what_it_forgets_is_loaded_again(
    submit, make_batcher, make_shelf, add_variant, picture
):
    for seed in range(3):
        add_variant(f"m{seed}", seed=seed)
    shelf = make_shelf(delta_cache_bytes=1)
    first, *_ = [submit("a cat", model=f"m{seed}") for seed in range(3)]
    batcher = make_batcher(shelf=shelf)
    gc.disable()
    try:
        batcher.drain()
        (base,) = shelf._bases.values()
        batches = len(base._batches)
    finally:
        gc.enable()
    held = [name for name, one in shelf._variants.items() if one.delta.size_bytes]
    again = submit("a cat", model="m0")
    batcher.drain()

    assert len(held) == 1
    assert batches == 2, "what is forgotten goes at once: the collector comes by seldom"
    assert np.abs(picture(again) - picture(first)).max() <= 1


def test_a_model_that_overflows_fails_its_job_with_a_reason_and_stores_nothing(
    jobs, settings, submit, make_batcher, add_variant
):
    """Not a black square."""
    add_variant("overflowing", seed=1, scale=1e37)
    job_id = submit(model="overflowing", n=2)
    make_batcher().drain()

    job = jobs.get(job_id)
    assert (job.state, job.attempt) == (JobState.FAILED, 1)
    assert [image.finish_reason for image in job.images] == ["error", "error"]
    assert "not made of numbers" in job.reason
    assert not list(settings.images_dir.rglob("*.png"))


def test_weights_of_another_unet_are_refused_before_anything_is_drawn(
    jobs, registry, settings, submit, make_batcher, add_variant, monkeypatch
):
    save = Erasure.save
    monkeypatch.setattr(
        Erasure,
        "save",
        lambda self, path: save(Erasure(tensors={"nowhere.weight": torch.zeros(2)}), path),
    )
    add_variant("foreign", seed=1)
    job_id = submit(model="foreign")
    make_batcher().drain()

    assert jobs.get(job_id).state is JobState.FAILED
    assert "no parameter nowhere.weight" in jobs.get(job_id).reason


def test_the_same_files_under_two_names_are_two_models(make_shelf, registry, settings):
    signer = Signer.load(settings.keys_dir)
    import_base(registry.path("emoji"), "twin", registry, signer)
    assert registry.get("twin").content_digest == registry.get("emoji").content_digest
    shelf = make_shelf()

    assert [shelf.variant(name).model_id for name in ("emoji", "twin")] == ["emoji", "twin"]
    assert shelf.variant("emoji").model_id == "emoji"
