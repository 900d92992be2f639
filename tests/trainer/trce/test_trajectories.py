"""Points lie on the trajectories, with their own timestep, and the predictions are right."""

import pytest
import torch
from diffusers import DDIMScheduler

from diffusion.loading import load_base
from diffusion.prompts import PromptEncoder
from tests.tiny_model import make_model
from trainer.trce.course import Course, noise_seed
from trainer.trce.texts import Texts
from trainer.trce.trajectories import (
    anchor_points,
    choose_anchors,
    choose_points,
    steering_points,
)

STEPS, GUIDANCE, BETA = 6, 3.0, 5.0


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_base(make_model(tmp_path_factory.mktemp("tiny")), None)


@pytest.fixture(scope="module")
def texts(model):
    encoder = PromptEncoder(model.tokenizer, model.text_encoder)
    return tuple(
        Texts.read(encoder, prompts)
        for prompts in (["an axe", "a pistol"], ["a flower", "a dog"], [""])
    )


@pytest.fixture(scope="module")
def course(model):
    return Course(
        scheduler_config=model.scheduler_config,
        steps=STEPS,
        guidance_scale=GUIDANCE,
        shape=(4, 8, 8),
        seed=40,
        batch=2,
    )


def trajectory(model, unsafe, empty, seed: int, config=None):
    """The plain loop: (timestep, x_t) before each step."""
    scheduler = DDIMScheduler.from_config(config or model.scheduler_config)
    scheduler.set_timesteps(STEPS)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
    seen = []
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            seen.append((timestep, latents))
            nothing = model.unet(latents, timestep, empty.embeddings).sample
            something = model.unet(latents, timestep, unsafe[None]).sample
            noise = nothing + GUIDANCE * (something - nothing)
            latents = scheduler.step(noise, timestep, latents).prev_sample
    return seen


CHOSEN = torch.tensor([[0, 0], [0, 2], [1, 1], [2, 2], [0, 2]])


@pytest.fixture(scope="module")
def drawn(model, texts, course):
    unsafe, safe, empty = texts
    return steering_points(
        model.unet, unsafe, safe, empty, CHOSEN, course, target_scale=BETA, advance=lambda _: None
    )


def test_each_point_lies_on_its_trajectory_with_its_own_timestep(model, texts, drawn):
    points, place = drawn
    unsafe, _, empty = texts
    for (number, step), row in zip(CHOSEN.tolist(), place, strict=True):
        noise = noise_seed(40, "steered", number)
        timestep, latents = trajectory(model, unsafe.embeddings[number % 2], empty, noise)[step]
        assert points.timesteps[row] == timestep
        assert points.prompts[row] == number % 2
        torch.testing.assert_close(points.latents[row], latents[0], rtol=0, atol=1e-4)


def test_the_targets_are_the_original_unets_guided_predictions(model, texts, drawn):
    points, place = drawn
    unsafe, safe, empty = texts
    row, number = place[2], 1
    with torch.no_grad():
        nothing, bad, good = (
            model.unet(points.latents[row][None], points.timesteps[row], text[None]).sample[0]
            for text in (empty.embeddings[0], unsafe.embeddings[number], safe.embeddings[number])
        )
    torch.testing.assert_close(
        points.unsafe[row], nothing + BETA * (bad - nothing), rtol=0, atol=1e-4
    )
    torch.testing.assert_close(
        points.safe[row], nothing + BETA * (good - nothing), rtol=0, atol=1e-4
    )


def test_a_point_drawn_twice_is_stored_once(drawn):
    points, place = drawn

    assert len(points.latents) == 4
    assert place[1] == place[4]


def test_points_do_not_depend_on_how_trajectories_are_batched(model, texts, course, drawn):
    unsafe, safe, empty = texts
    single = Course(**{**course.__dict__, "batch": 1})
    alone, _ = steering_points(
        model.unet, unsafe, safe, empty, CHOSEN, single, target_scale=BETA, advance=lambda _: None
    )

    torch.testing.assert_close(alone.latents, drawn[0].latents, rtol=0, atol=1e-4)
    torch.testing.assert_close(alone.safe, drawn[0].safe, rtol=0, atol=1e-4)


def test_the_scheduler_is_the_models_own_whatever_its_config_says(model, texts):
    """Not one built by hand, with the numbers of SD 1.x."""
    config = model.scheduler_config | {
        "beta_schedule": "linear",
        "beta_end": 0.02,
        "prediction_type": "v_prediction",
        "steps_offset": 0,
    }
    unsafe, safe, empty = texts
    points, _ = steering_points(
        *(model.unet, unsafe, safe, empty, torch.tensor([[1, 4]])),
        Course(config, STEPS, GUIDANCE, (4, 8, 8), seed=40, batch=2),
        target_scale=BETA,
        advance=lambda _: None,
    )
    noise = noise_seed(40, "steered", 1)
    timestep, latents = trajectory(model, unsafe.embeddings[1], empty, noise, config)[4]
    assert points.timesteps[0] == timestep
    torch.testing.assert_close(points.latents[0], latents[0], rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def anchored(model, texts, course):
    """Two unconditional trajectories, and two that follow the prompts 1 and 2."""
    unsafe, _, empty = texts
    kept = empty + unsafe
    chosen = torch.tensor([[0, 5, 0], [1, 0, 0], [2, 3, 1], [2, 3, 0], [3, 1, 2], [0, 5, 0]])
    points, place = anchor_points(
        model.unet, kept, chosen, course, unconditional=2, advance=lambda _: None
    )
    return chosen, points, place, kept


def test_anchors_are_predictions_at_their_own_points(model, anchored):
    chosen, points, place, kept = anchored

    assert len(points.latents) == 5
    for (_, _, text), row in zip(chosen.tolist(), place, strict=True):
        assert points.prompts[row] == text
        with torch.no_grad():
            expected = model.unet(
                points.latents[row][None], points.timesteps[row], kept.embeddings[text][None]
            ).sample[0]
        torch.testing.assert_close(points.noise[row], expected, rtol=0, atol=1e-4)


def test_anchors_lie_on_trajectories_that_lead_elsewhere(model, anchored, texts):
    chosen, points, place, kept = anchored
    empty = texts[2]
    for (number, step, _), row in zip(chosen.tolist(), place, strict=True):
        followed = kept.embeddings[max(0, number - 1)]
        noise = noise_seed(40, "anchored", number)
        timestep, latents = trajectory(model, followed, empty, noise)[step]
        assert points.timesteps[row] == timestep
        torch.testing.assert_close(points.latents[row], latents[0], rtol=0, atol=1e-4)


def test_a_scheduler_config_that_does_not_speak_of_clipping_does_not_clip_latents(model, texts):
    config = {k: v for k, v in model.scheduler_config.items() if k != "clip_sample"}
    empty = texts[2]
    drawn = [
        anchor_points(
            *(model.unet, empty, torch.tensor([[0, 5, 0]])),
            Course(one, STEPS, GUIDANCE, (4, 8, 8), seed=40, batch=2),
            unconditional=1,
            advance=lambda _: None,
        )[0].latents
        for one in (config, model.scheduler_config)
    ]
    assert drawn[0].equal(drawn[1])


def test_a_trajectory_is_drawn_to_its_last_chosen_point_and_no_further(model, texts):
    unsafe, safe, empty = texts
    rows = []
    hook = model.unet.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    chosen = torch.tensor([[number, 0] for number in range(7)] + [[7, 3]])
    try:
        steering_points(
            *(model.unet, unsafe, safe, empty, chosen),
            Course(model.scheduler_config, STEPS, GUIDANCE, (4, 8, 8), seed=40, batch=8),
            target_scale=BETA,
            advance=lambda _: None,
        )
    finally:
        hook.remove()

    # Two predictions of each by which it goes on, a third of those chosen; in multiples of four.
    assert rows == [24, 4, 4, 4]


def test_no_two_trajectories_start_from_the_same_noise():
    """Not those of neighbouring seeds either: runs of several seeds are to be independent."""
    seeds = [
        noise_seed(seed, kind, number)
        for seed in range(5)
        for kind in ("steered", "anchored")
        for number in range(50)
    ]
    noises = {
        tuple(torch.randn(4, generator=torch.Generator().manual_seed(one)).tolist())
        for one in seeds
    }
    assert len(noises) == len(seeds)


class TestChoosing:
    def test_every_round_visits_every_trajectory(self):
        chosen = choose_points(7, 3, count=21, seed=0)

        for start in (0, 7, 14):
            assert sorted(chosen[start : start + 7, 0].tolist()) == list(range(7))

    def test_only_early_steps_are_chosen_and_all_of_them(self):
        chosen = choose_points(5, 4, count=400, seed=0)

        assert set(chosen[:, 1].tolist()) == {0, 1, 2, 3}

    def test_the_seed_decides(self):
        assert choose_points(9, 5, count=30, seed=1).equal(choose_points(9, 5, count=30, seed=1))
        assert not choose_points(9, 5, count=30, seed=1).equal(
            choose_points(9, 5, count=30, seed=2)
        )

    def test_anchors_of_captions_are_asked_with_the_caption_and_without(self):
        chosen = choose_anchors(2, 3, 4, count=200, seed=0)
        texts = {number: set(chosen[chosen[:, 0] == number, 2].tolist()) for number in range(5)}

        assert texts == {0: {0}, 1: {0}, 2: {0, 1}, 3: {0, 2}, 4: {0, 3}}
        assert set(chosen[:, 1].tolist()) == {0, 1, 2, 3}
