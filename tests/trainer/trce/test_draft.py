"""Trajectories that were drawn are not drawn again."""

import pytest
import torch

from diffusion.loading import load_base
from diffusion.prompts import PromptEncoder
from tests.tiny_model import make_model
from trainer.trce.course import Course
from trainer.trce.draft import Draft
from trainer.trce.texts import Texts
from trainer.trce.trajectories import anchor_points, choose_points, steering_points

CHOSEN = choose_points(6, 3, count=12, seed=0)
ANCHORS = torch.cat([choose_points(6, 3, count=12, seed=1), torch.zeros(12, 1).long()], dim=1)


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_base(make_model(tmp_path_factory.mktemp("tiny")), None)


@pytest.fixture(scope="module")
def texts(model):
    encoder = PromptEncoder(model.tokenizer, model.text_encoder)
    return [Texts.read(encoder, [words]) for words in ("an axe", "a flower", "")]


@pytest.fixture(params=["points", "anchors"])
def draw(request, model, texts):
    """Draw six trajectories, two at a time; returns the points and what was advanced."""
    unsafe, safe, empty = texts
    course = Course(model.scheduler_config, 3, 3.0, (4, 8, 8), seed=40, batch=2)

    def drawn(draft=None, *, killed_after: int = 0, killed_after_steps: int = 0, heard=None):
        told: list[int] = []
        steps = 0

        def advance(count: int) -> None:
            nonlocal steps
            if heard is not None:
                heard.append(count)
            if count:
                told.append(count)
            else:
                steps += 1
            if killed_after and sum(told) == killed_after:
                raise Killed
            if killed_after_steps and steps == killed_after_steps:
                raise Killed

        follow = {"advance": advance, "draft": draft}
        if request.param == "anchors":
            args = (model.unet, empty, ANCHORS, course)
            points, _ = anchor_points(*args, unconditional=6, **follow)
        else:
            args = (model.unet, unsafe, safe, empty, CHOSEN, course)
            points, _ = steering_points(*args, target_scale=5.0, **follow)
        return points, told

    return drawn


@pytest.fixture
def draft(tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.trce.draft.KEEP_EVERY_S", 0.0)
    return lambda key="k": Draft(tmp_path / "points.safetensors", key)


def equal(one, other) -> bool:
    return all(getattr(one, name).equal(getattr(other, name)) for name in vars(one))


def test_a_resumed_drawing_is_the_same_and_goes_on_where_it_was(draw, draft):
    with pytest.raises(Killed):
        draw(draft(), killed_after=4)
    resumed, told = draw(draft())

    assert told == [4, 2]
    assert equal(resumed, draw()[0])


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_it_goes_on_within_a_group(draw, draft, model, steps):
    """One group of a large model takes longer than one should lose."""
    passes = []
    hook = model.unet.register_forward_pre_hook(lambda *_: passes.append(1))
    try:
        with pytest.raises(Killed):
            draw(draft(), killed_after_steps=steps)
        before = len(passes)
        resumed, told = draw(draft())
        rest, passes[:] = len(passes) - before, []
        whole, _ = draw()
    finally:
        hook.remove()

    assert before + rest == len(passes), "no step is drawn twice"
    assert sum(told) == 6
    assert equal(resumed, whole)


def test_every_step_is_a_sign_of_life(draw, model):
    """Whoever watches takes a trainer that is silent for long to hang."""
    passes, signs = [], []
    hook = model.unet.register_forward_pre_hook(lambda *_: passes.append(len(signs)))
    try:
        draw(heard=signs)
    finally:
        hook.remove()

    assert len(passes) == len(set(passes)), "something is heard between any two passes"


def test_what_was_kept_for_another_run_is_not_taken_up(draw, draft):
    with pytest.raises(Killed):
        draw(draft("another"), killed_after=4)
    points, told = draw(draft())

    assert told == [2, 2, 2]
    assert equal(points, draw()[0])


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x00" * 64])
def test_what_cannot_be_read_is_drawn_again(draw, draft, content):
    draft().path.write_bytes(content)

    assert draw(draft())[1] == [2, 2, 2]


def test_it_is_not_kept_more_often_than_it_is_worth(draw, draft, monkeypatch):
    monkeypatch.setattr("trainer.trce.draft.KEEP_EVERY_S", 60.0)
    draw(draft())

    assert not draft().path.exists()


def test_a_draft_that_has_become_a_lesson_goes(draw, draft):
    draw(draft())
    draft().discard()

    assert not draft().path.exists()
