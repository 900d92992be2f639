"""Stage 2 trains what it should, and nothing else; stopped and resumed it is the same."""

import copy

import pytest
import torch

from core.errors import SteeringDiverged
from diffusion.loading import load_base
from diffusion.prompts import PromptEncoder
from tests.tiny_model import make_model
from trainer.trce import finetune as module
from trainer.trce.finetune import Lesson, Recipe, finetune, step_loss, trainable
from trainer.trce.trajectories import Course, anchor_points, choose_points, steering_points

RECIPE = Recipe(
    learning_rate=2e-3,
    weight_decay=0.01,
    steps=8,
    batch=2,
    anchors=3,
    margin=0.01,
    regularisation=1.0,
    seed=5,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_base(make_model(tmp_path_factory.mktemp("tiny")), None)


@pytest.fixture(scope="module")
def lesson(model) -> Lesson:
    encoder = PromptEncoder(model.tokenizer, model.text_encoder)
    unsafe = encoder.encode_all(["an axe", "a pistol"]).embeddings
    safe = encoder.encode_all(["a flower", "a dog"]).embeddings
    empty = encoder.encode("").embedding
    course = Course(model.scheduler_config, 6, 3.0, (4, 8, 8), seed=1, batch=4)
    chosen = choose_points(4, 3, count=RECIPE.steps * RECIPE.batch, seed=2)
    points, draws = steering_points(
        model.unet, unsafe, safe, empty, chosen, course, target_scale=5.0, advance=lambda _: None
    )
    anchors = anchor_points(model.unet, empty, 2, course, advance=lambda _: None)
    return Lesson(points, draws, anchors, prompts=unsafe, empty=empty)


def run(model, lesson, recipe=RECIPE, **options):
    unet = copy.deepcopy(model.unet)
    changed, curve = finetune(unet, lesson, recipe, **({"advance": lambda *_: None} | options))
    return unet, changed, curve


def test_only_self_attention_and_queries_change(model, lesson):
    unet, changed, _ = run(model, lesson)

    before = dict(model.unet.named_parameters())
    moved = {name for name, value in unet.named_parameters() if not value.equal(before[name])}
    assert moved <= set(changed)
    assert all(".attn1." in name or ".attn2.to_q." in name for name in changed)
    assert any(".attn1." in name for name in moved)
    assert any(".attn2.to_q." in name for name in moved)


def test_the_loss_falls(model, lesson):
    long = Recipe(**{**RECIPE.__dict__, "learning_rate": 5e-3})
    unet, _, _ = run(model, lesson, long)

    def loss(one) -> float:
        with torch.no_grad():
            losses = [
                step_loss(one, lesson, long, step).total(regularisation=long.regularisation)
                for step in range(long.steps)
            ]
        return float(torch.stack(losses).mean())

    assert loss(unet) < loss(model.unet)


def test_gradients_do_not_add_up_over_steps(model, lesson):
    """Three steps equal three steps of a loop that clears its gradients by hand."""
    short = Recipe(**{**RECIPE.__dict__, "steps": 3})
    unet, _, _ = run(model, lesson, short)

    plain = copy.deepcopy(model.unet)
    parameters = trainable(plain)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=short.learning_rate, weight_decay=short.weight_decay
    )
    for step in range(3):
        for parameter in parameters.values():
            parameter.grad = None
        step_loss(plain, lesson, short, step).total(regularisation=1.0).backward()
        optimizer.step()

    for name, parameter in trainable(unet).items():
        assert parameter.equal(parameters[name]), name


def test_the_same_seed_gives_the_same_weights(model, lesson):
    _, first, curve = run(model, lesson)
    _, second, again = run(model, lesson)

    assert all(first[name].equal(second[name]) for name in first)
    assert curve == again


def test_a_run_that_was_stopped_and_resumed_equals_one_that_was_not(
    model, lesson, tmp_path, monkeypatch
):
    class Killed(Exception):
        pass

    def die_at_five(steps: int, _) -> None:
        nonlocal done
        done += steps
        if done == 5:
            raise Killed

    done = 0
    monkeypatch.setattr(module, "CHECKPOINT_EVERY_S", 0.0)
    checkpoint = tmp_path / "steering.safetensors"
    with pytest.raises(Killed):
        run(model, lesson, checkpoint=checkpoint, advance=die_at_five)

    reported = []
    _, resumed, curve = run(
        model, lesson, checkpoint=checkpoint, advance=lambda steps, _: reported.append(steps)
    )
    _, whole, whole_curve = run(model, lesson)

    assert sum(reported) == RECIPE.steps
    assert len(reported) < RECIPE.steps
    assert all(resumed[name].equal(whole[name]) for name in whole)
    assert curve == whole_curve


def test_a_checkpoint_of_another_recipe_is_not_resumed(model, lesson, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHECKPOINT_EVERY_S", 0.0)
    checkpoint = tmp_path / "steering.safetensors"
    run(model, lesson, Recipe(**{**RECIPE.__dict__, "margin": 0.5}), checkpoint=checkpoint)
    _, after, _ = run(model, lesson, checkpoint=checkpoint)
    _, whole, _ = run(model, lesson)

    assert all(after[name].equal(whole[name]) for name in whole)


def test_a_loss_that_is_no_number_stops_the_run(model, lesson):
    with pytest.raises(SteeringDiverged, match="lower the learning rate"):
        run(model, lesson, Recipe(**{**RECIPE.__dict__, "learning_rate": 1e30}))
