"""Points lie on the trajectories, with their own timestep, and the predictions are right."""

import pytest
import torch
from diffusers import DDIMScheduler

from diffusion.loading import load_base
from diffusion.prompts import PromptEncoder
from tests.tiny_model import make_model
from trainer.trce.trajectories import Course, anchor_points, choose_points, steering_points

STEPS, GUIDANCE, BETA = 6, 3.0, 5.0


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_base(make_model(tmp_path_factory.mktemp("tiny")), None)


@pytest.fixture(scope="module")
def texts(model):
    encoder = PromptEncoder(model.tokenizer, model.text_encoder)
    unsafe = encoder.encode_all(["an axe", "a pistol"]).embeddings
    safe = encoder.encode_all(["a flower", "a dog"]).embeddings
    return unsafe, safe, encoder.encode("").embedding


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


def trajectory(model, unsafe, empty, seed: int):
    """The plain loop: (timestep, x_t) before each step."""
    scheduler = DDIMScheduler.from_config(model.scheduler_config)
    scheduler.set_timesteps(STEPS)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
    seen = []
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            seen.append((timestep, latents))
            nothing = model.unet(latents, timestep, empty[None]).sample
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
        timestep, latents = trajectory(model, unsafe[number % 2], empty, 40 + number)[step]
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
            for text in (empty, unsafe[number], safe[number])
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


def test_anchors_are_predictions_at_their_own_points(model, texts, course):
    empty = texts[2]
    anchors = anchor_points(model.unet, empty, 3, course, advance=lambda _: None)

    assert len(anchors.latents) == 3 * STEPS
    for row in (0, 7, 17):
        with torch.no_grad():
            expected = model.unet(
                anchors.latents[row][None], anchors.timesteps[row], empty[None]
            ).sample[0]
        torch.testing.assert_close(anchors.noise[row], expected, rtol=0, atol=1e-5)


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
