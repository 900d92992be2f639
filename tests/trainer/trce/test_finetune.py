"""Stage 2 trains what it should, and nothing else; stopped and resumed it is the same."""

import copy

import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.models.attention import BasicTransformerBlock

from core.errors import SteeringDiverged
from core.specs import SteeringOptions
from diffusion.erasure import Erasure
from diffusion.loading import load_base
from diffusion.prompts import PromptEncoder
from tests.tiny_model import make_model
from trainer.concepts import PromptPair
from trainer.trce import finetune as module
from trainer.trce.finetune import Checkpoint, finetune, trainable
from trainer.trce.lesson import Lesson, load_lesson, prepare_lesson, save_lesson
from trainer.trce.steering import hinge
from trainer.trce.step import step_losses
from trainer.trce.trajectories import anchor_points

OPTIONS = SteeringOptions(
    learning_rate=2e-3,
    steps=8,
    batch=2,
    anchors=3,
    regularisation=1.0,
    relative=False,
    trajectories=4,
    anchor_trajectories=2,
    trajectory_steps=6,
    target_scale=5.0,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_base(make_model(tmp_path_factory.mktemp("tiny")), None)


def prepare(model, options, erasure=Erasure()) -> Lesson:  # noqa: B008
    return prepare_lesson(
        model.unet,
        PromptEncoder(model.tokenizer, model.text_encoder),
        model.scheduler_config,
        [PromptPair("an axe", "a flower", 1.0), PromptPair("a pistol", "a dog", 1.0)],
        ["a dog on a flower"],
        erasure,
        options,
        seed=1,
        size_px=16,
        advance=lambda _: None,
    )


@pytest.fixture(scope="module")
def lesson(model) -> Lesson:
    return prepare(model, OPTIONS)


def options(**changed) -> SteeringOptions:
    return OPTIONS.model_copy(update=changed)


def run(model, lesson, options=OPTIONS, **more):
    unet = copy.deepcopy(model.unet)
    changed, losses = finetune(unet, lesson, options, **({"advance": lambda *_: None} | more))
    return unet, changed, losses


def test_only_self_attention_and_queries_change(model, lesson):
    unet, changed, _ = run(model, lesson)

    before = dict(model.unet.named_parameters())
    moved = {name for name, value in unet.named_parameters() if not value.equal(before[name])}
    assert moved <= set(changed)
    assert all(".attn1." in name or ".attn2.to_q." in name for name in changed)
    assert any(".attn1." in name for name in moved)
    assert any(".attn2.to_q." in name for name in moved)


def test_the_loss_falls(model, lesson):
    long = options(learning_rate=5e-3)
    unet, _, _ = run(model, lesson, long)

    def loss(one) -> float:
        with torch.no_grad():
            losses = [
                sum(share.total(regularisation=long.regularisation) for share in shares)
                for shares in (step_losses(one, lesson, long, step) for step in range(long.steps))
            ]
        return float(torch.stack(losses).mean())

    assert loss(unet) < loss(model.unet)


def test_the_losses_are_those_of_the_definition(model, lesson):
    """Safe and unsafe in their places, the margin added, every mean over its own batch."""
    margin = options(margin=0.3)
    points, anchors = lesson.points, lesson.anchors

    def distance(one, other):
        return (one - other).square().flatten(1).mean(dim=1)

    for step in range(margin.steps):
        rows = lesson.draws[step * 2 : step * 2 + 2]
        quiet = lesson.anchor_draws[step * 3 : step * 3 + 3]
        with torch.no_grad():
            hinges, kept = step_losses(model.unet, lesson, margin, step)
            found = hinges + kept

            def hinged(texts, rows=rows):
                noise = model.unet(
                    points.latents[rows], points.timesteps[rows], encoder_hidden_states=texts
                ).sample
                nearer = distance(noise, points.safe[rows]) - distance(noise, points.unsafe[rows])
                return (nearer + 0.3).relu().mean()

            stays = model.unet(
                anchors.latents[quiet],
                anchors.timesteps[quiet],
                encoder_hidden_states=lesson.kept.embeddings[anchors.prompts[quiet]],
            ).sample
            prompted = hinged(lesson.prompts.embeddings[points.prompts[rows]])
            unprompted = hinged(lesson.kept.embeddings[:1].expand(2, -1, -1))

        torch.testing.assert_close(found.prompted, prompted, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.unprompted, unprompted, rtol=1e-4, atol=1e-5)
        anchored = distance(stays, anchors.noise[quiet]).mean()
        torch.testing.assert_close(found.anchored, anchored, rtol=1e-4, atol=1e-6)


def test_predictions_come_nearer_to_the_safe_side_than_to_the_unsafe_one(model, lesson):
    unet, _, _ = run(model, lesson, options(learning_rate=5e-3))
    points = lesson.points

    @torch.no_grad()
    def nearer(one) -> float:
        texts = lesson.prompts.embeddings[points.prompts]
        noise = one(points.latents, points.timesteps, encoder_hidden_states=texts).sample
        to_safe, to_unsafe = (noise - points.safe).square(), (noise - points.unsafe).square()
        return float((to_safe - to_unsafe).mean())

    assert nearer(unet) < nearer(model.unet)


@pytest.mark.parametrize("early", [0.5, 0.2])
def test_points_are_early_ones(model, early):
    """The picture's meaning is decided in the first part of a trajectory."""
    lesson = prepare(model, options(early=early, trajectory_steps=10, steps=40))
    scheduler = DDIMScheduler.from_config(model.scheduler_config)
    scheduler.set_timesteps(10)

    assert set(lesson.points.timesteps.tolist()) == set(
        scheduler.timesteps[: round(early * 10)].tolist()
    )


def test_gradients_do_not_add_up_over_steps(model, lesson):
    """Three steps equal three steps of a loop that clears its gradients by hand."""
    short = options(steps=3)
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
        for share in step_losses(plain, lesson, short, step):
            share.total(regularisation=1.0).backward()
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
    checkpoint = Checkpoint(tmp_path / "steering.safetensors", "this run")
    with pytest.raises(Killed):
        run(model, lesson, checkpoint=checkpoint, advance=die_at_five)

    reported = []
    _, resumed, curve = run(
        model, lesson, checkpoint=checkpoint, advance=lambda steps, _: reported.append(steps)
    )
    _, whole, whole_curve = run(model, lesson)

    assert sum(reported) == OPTIONS.steps
    assert len(reported) < OPTIONS.steps
    assert all(resumed[name].equal(whole[name]) for name in whole)
    assert curve == whole_curve


def test_a_run_that_was_killed_after_its_last_step_reports_all_of_them_when_resumed(
    model, lesson, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "CHECKPOINT_EVERY_S", 0.0)
    checkpoint = Checkpoint(tmp_path / "steering.safetensors", "this run")
    _, whole, curve = run(model, lesson, checkpoint=checkpoint)

    reported = []
    _, resumed, again = run(
        *(model, lesson),
        checkpoint=checkpoint,
        advance=lambda steps, loss: reported.append((steps, loss.figures)),
    )

    last = {name: getattr(curve, name)[-1] for name in ("prompted", "unprompted", "anchored")}
    assert reported == [(OPTIONS.steps, last)]
    assert all(resumed[name].equal(whole[name]) for name in whole)
    assert again == curve


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\0" * 64])
def test_a_checkpoint_of_another_run_or_a_broken_one_is_not_resumed(
    model, lesson, tmp_path, monkeypatch, content
):
    monkeypatch.setattr(module, "CHECKPOINT_EVERY_S", 0.0)
    path = tmp_path / "steering.safetensors"
    if content is None:
        run(model, lesson, options(margin=0.5), checkpoint=Checkpoint(path, "another run"))
    else:
        path.write_bytes(content)
    _, after, _ = run(model, lesson, checkpoint=Checkpoint(path, "this run"))
    _, whole, _ = run(model, lesson)

    assert all(after[name].equal(whole[name]) for name in whole)


def test_a_lesson_is_kept_for_its_own_run_alone(model, lesson, tmp_path):
    path = tmp_path / "lesson.safetensors"
    save_lesson(path, lesson, "this run")

    assert load_lesson(path, "another run", torch.device("cpu")) is None
    again = load_lesson(path, "this run", torch.device("cpu"))
    assert again.draws.equal(lesson.draws)
    assert again.points.safe.equal(lesson.points.safe)
    assert again.anchors.noise.equal(lesson.anchors.noise)
    assert again.kept.size_px == 16
    assert run(model, again)[2] == run(model, lesson)[2]


def test_a_batch_computed_in_parts_gives_the_gradients_of_the_whole(model, lesson):
    def gradients(**changed):
        unet = copy.deepcopy(model.unet)
        parameters = trainable(unet)
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        module._backward(unet, lesson, options(batch=5, anchors=4, **changed), 0)
        return {name: parameter.grad for name, parameter in parameters.items()}

    whole, parts = gradients(), gradients(accumulation=3)
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-3, atol=1e-5)


def test_gradient_checkpointing_changes_memory_and_nothing_else(model, lesson):
    _, plain, losses = run(model, lesson)
    unet, checkpointed, again = run(model, lesson, options(gradient_checkpointing=True))

    assert again == losses
    assert all(checkpointed[name].equal(plain[name]) for name in plain)
    assert not unet.is_gradient_checkpointing


@pytest.mark.parametrize(("checkpointing", "forward_passes"), [(False, 1), (True, 2)])
def test_gradient_checkpointing_computes_activations_again(
    model, lesson, checkpointing, forward_passes
):
    """It does what it is for: a block forgets what it computed, and goes forward once more."""
    unet = copy.deepcopy(model.unet)
    [block, *_] = [one for one in unet.modules() if isinstance(one, BasicTransformerBlock)]
    passes = []
    block.register_forward_pre_hook(lambda *_: passes.append(1))
    finetune(
        unet,
        lesson,
        options(gradient_checkpointing=checkpointing, steps=1),
        advance=lambda *_: None,
    )

    assert len(passes) == 2 * forward_passes, "both hinges, and the anchors"


def test_autocast_computes_in_bfloat16_and_keeps_weights_whole(model, lesson):
    _, _, losses = run(model, lesson)
    _, halved, again = run(model, lesson, options(autocast=True))

    assert all(tensor.dtype == torch.float32 for tensor in halved.values())
    assert again.prompted != losses.prompted
    torch.testing.assert_close(
        torch.tensor(again.prompted), torch.tensor(losses.prompted), rtol=0.1, atol=0.02
    )


def test_anchors_are_drawn_with_the_texts_that_training_reads(model, monkeypatch):
    """In full precision, whatever the UNet computes in."""
    read = []

    def drawn(unet, texts, *rest, **more):
        read.append(texts.embeddings)
        return anchor_points(unet, texts, *rest, **more)

    monkeypatch.setattr("trainer.trce.lesson.anchor_points", drawn)
    width = model.unet.config.cross_attention_dim
    text_map = torch.eye(width) + 0.1 * torch.rand(width, width)
    lesson = prepare(model, options(autocast=True), Erasure(text_map=text_map))

    assert torch.equal(read[0], lesson.kept.embeddings)


def test_the_curve_is_thinned_to_means_of_runs_of_steps(model, lesson):
    _, _, losses = run(model, lesson)
    curve = losses.curve(at_most=3)

    assert curve.every == 3
    assert len(curve.anchored) == 3
    assert curve.anchored[0] == pytest.approx(sum(losses.anchored[:3]) / 3, rel=1e-4)
    assert curve.anchored[2] == pytest.approx(sum(losses.anchored[6:]) / 2, rel=1e-4)


def test_a_loss_that_is_no_number_stops_the_run(model, lesson):
    with pytest.raises(SteeringDiverged, match="lower the learning rate"):
        run(model, lesson, options(learning_rate=1e30))


def test_relative_losses_are_measured_in_what_prompts_change_there(model):
    relative = prepare(model, options(relative=True))
    distance = (relative.points.unsafe - relative.points.safe).square().flatten(1).mean(dim=1)
    torch.testing.assert_close(relative.units, distance.clamp(min=1e-8))

    anchors = relative.anchors
    for timestep in anchors.timesteps.unique():
        here = anchors.timesteps == timestep
        followed = anchors.effect[here & (anchors.effect > 0)]
        expected = followed.mean() if len(followed) else torch.tensor(1.0)
        torch.testing.assert_close(
            relative.anchor_units[here], expected.clamp(min=1e-8).expand(int(here.sum()))
        )


def test_a_prediction_on_the_unsafe_side_costs_the_same_at_every_point_if_relative(model):
    """Published losses differ by the square of the distance between the two sides."""
    lesson = prepare(model, options(relative=True))
    points = lesson.points
    costs = hinge(points.unsafe, points.safe, points.unsafe, margin=0.5 * lesson.units)

    told_apart = lesson.units > 1e-8
    assert told_apart.any()
    torch.testing.assert_close(
        (costs / lesson.units)[told_apart], torch.full((int(told_apart.sum()),), 1.5)
    )


def test_published_losses_are_measured_as_they_are(lesson):
    assert lesson.units.eq(1).all()
    assert lesson.anchor_units.eq(1).all()


def test_every_point_is_asked_about_at_its_own_timestep_with_its_own_prompt(model, lesson):
    """The reference draws a timestep of its own for a stored latent."""
    asked = []

    class Recorder:
        def __call__(self, latents, timesteps, *, encoder_hidden_states, **_):
            asked.append((latents, timesteps, encoder_hidden_states))
            return (latents,)

    shares = step_losses(Recorder(), lesson, OPTIONS, 3)
    next(shares)
    [steered] = asked
    next(shares)
    [_, anchored] = asked
    assert next(shares, None) is None
    rows = lesson.draws[6:8]
    quiet = lesson.anchor_draws[9:12]
    points, anchors = lesson.points, lesson.anchors

    latents, timesteps, texts = steered
    assert latents.equal(torch.cat([points.latents[rows]] * 2))
    assert timesteps.equal(torch.cat([points.timesteps[rows]] * 2))
    assert texts[:2].equal(lesson.prompts.embeddings[points.prompts[rows]])
    assert texts[2:].equal(lesson.kept.embeddings[0].expand(2, -1, -1))

    latents, timesteps, texts = anchored
    assert latents.equal(anchors.latents[quiet])
    assert timesteps.equal(anchors.timesteps[quiet])
    assert texts.equal(lesson.kept.embeddings[anchors.prompts[quiet]])


def test_one_pass_goes_backward_before_the_next_goes_forward(model, lesson):
    """So that the activations of one are in memory, and never those of a whole step."""
    unet = copy.deepcopy(model.unet)
    parameters = trainable(unet)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    [first, *_] = parameters.values()
    had_gradients = []
    unet.register_forward_pre_hook(lambda *_: had_gradients.append(first.grad is not None))
    module._backward(unet, lesson, OPTIONS, 0)

    assert had_gradients == [False, True]


def test_the_trained_unet_reads_prompts_through_its_own_stage_one(model):
    """The reference starts a second concept's stage 2 from the stage 1 of another."""
    twice = Erasure(text_map=2 * torch.eye(24))
    mapped, plain = prepare(model, OPTIONS, twice), prepare(model, OPTIONS)

    torch.testing.assert_close(mapped.prompts.embeddings, 2 * plain.prompts.embeddings)
    torch.testing.assert_close(mapped.kept.embeddings, 2 * plain.kept.embeddings)
    assert mapped.points.unsafe.equal(plain.points.unsafe)
    assert not mapped.anchors.noise.equal(plain.anchors.noise)
