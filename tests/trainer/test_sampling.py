"""Samples on the way: the same prompts by base and erased model, and nothing else disturbed."""

import base64
import io
from itertools import count

import pytest
from PIL import Image

from core.manifests import Manifest
from core.specs import Concept, ErasureSpec
from diffusion.denoiser import Denoiser
from diffusion.erasure import Erasure
from diffusion.model_concepts import ModelConcepts
from trainer import room
from trainer.erase import erase
from trainer.sampling import LONGEST_S, Sampler, Showing, open_sampler
from trainer.subjects import Subject, subjects

AXE = Concept(name="axe", synonyms=("hatchet",), replacement="flower")
PISTOL = Concept(name="pistol", replacement="dog", kind="unsafe")
SPEC = ErasureSpec.model_validate(
    {
        "base_model": "tiny",
        "concepts": [AXE.model_dump(), PISTOL.model_dump()],
        "textual": {"preserve": 0.002, "ridge": 1e-4, "protect": ["hammer"]},
        "steering": {
            "steps": 12,
            "batch": 2,
            "anchors": 2,
            "learning_rate": 1e-2,
            "trajectories": 2,
            "anchor_trajectories": 2,
            "kept_trajectories": 0,
            "trajectory_steps": 4,
        },
    }
)


@pytest.fixture
def make(tiny_folder, tmp_path, cache):
    """Erase into tmp_path/<out>, and return the rounds that were shown."""

    def erase_it(out: str, *, samples: int, **changed) -> list:
        shown = []
        erase(
            *(tiny_folder, None, SPEC.model_copy(update=changed), tmp_path / out, lambda _: None),
            model_id="tiny-out",
            cache=cache,
            showing=Showing(samples, shown.append) if samples else None,
        )
        return shown

    return erase_it


@pytest.fixture
def sampler(tiny, encoder):
    """With a clock that goes on by so many seconds whenever it is looked at."""

    def make_sampler(shown: list, *, tick_s: float = 0.0) -> Sampler:
        ticks = count()
        return Sampler(
            *(tiny.unet, tiny.vae, tiny.scheduler_config, encoder),
            [Subject("an axe", 3)],
            shown.append,
            native_px=16,
            rows=8,
            clock=lambda: next(ticks) * tick_s,
        )

    return make_sampler


def picture(sample) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(sample.jpeg)))


@pytest.mark.parametrize("steering", [SPEC.steering, None], ids=["both stages", "stage 1"])
def test_the_model_is_the_same_byte_for_byte_without_them(make, tmp_path, steering):
    assert make("without", samples=0, steering=steering) == []
    assert make("with", samples=3, steering=steering)

    made, plain = (Manifest.read(tmp_path / name) for name in ("with", "without"))
    assert made.files == plain.files
    assert made.content_digest == plain.content_digest
    assert made.edit.figures["samples_seconds"] > 0
    assert "samples_seconds" not in plain.edit.figures


def test_every_round_draws_the_same_prompts_from_the_base_to_the_end(make):
    rounds = make("out", samples=3)

    assert [one.after for one in rounds[:2]] == ["base", "stage-1"]
    assert rounds[-1].after == "step-12"
    for one in rounds:
        assert [sample.prompt for sample in one.pictures] == [
            "an axe",
            "a photo of pistol",
            "a hammer",
        ]
        assert [sample.seed for sample in one.pictures] == [0, 1, 2]
    base, stage_one, end = (rounds[place].pictures[0] for place in (0, 1, -1))
    assert picture(base).size == (16, 16)
    assert len({base.jpeg, stage_one.jpeg, end.jpeg}) == 3


def test_a_round_is_due_six_times_and_at_the_end(sampler):
    shown = []
    one = sampler(shown)
    for step in range(120):
        one.during_stage_two(step, step + 1, 120, Erasure())
    one.during_stage_two(0, 55, 60, Erasure())

    steps = [round_.after for round_ in shown]
    assert steps == [f"step-{step}" for step in (20, 40, 60, 80, 100, 120, 55)]


def test_rounds_on_the_way_are_left_out_while_they_have_had_more_than_their_share(sampler):
    """Where nothing takes time but samples, only the last is drawn, which shows the end."""
    shown = []
    one = sampler(shown, tick_s=1.0)
    one.before()
    for step in range(12):
        one.during_stage_two(step, step + 1, 12, Erasure())

    assert [round_.after for round_ in shown] == ["base", "step-12"]


def test_where_a_round_takes_too_long_there_are_no_more(sampler, monkeypatch):
    steps = []
    step = Denoiser.step
    monkeypatch.setattr(Denoiser, "step", lambda self: steps.append(1) or step(self))
    shown = []
    one = sampler(shown, tick_s=1.1 * LONGEST_S)
    one.before()
    one.after_stage_one(Erasure())

    assert shown == []
    assert len(steps) == 1


def test_where_memory_ends_there_are_no_more_and_the_erasure_goes_on(sampler, monkeypatch):
    asked = []

    def full(*_, **__):
        asked.append(1)
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")

    shown = []
    one = sampler(shown)
    monkeypatch.setattr(one._encoder, "encode", full)
    one.before()
    one.after_stage_one(Erasure())

    assert shown == []
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("wanted", "prompts"),
    [
        (1, ["an axe"]),
        (2, ["an axe", "a hammer"]),
        (
            5,
            [
                "an axe",
                "a photo of pistol",
                "a photo of an axe",
                "a picture with pistol",
                "a hammer",
            ],
        ),
    ],
)
def test_concepts_take_turns_and_the_last_is_to_stay(wanted, prompts):
    drawn = subjects((AXE, PISTOL), SPEC, None, wanted)

    assert [one.prompt for one in drawn] == prompts
    assert len({one.seed for one in drawn}) == wanted


def test_without_a_neighbour_a_caption_is_drawn_that_speaks_of_nothing_erased():
    bare = ErasureSpec(base_model="tiny", concepts=(AXE,))
    *_, stays = subjects((AXE,), bare, None, 3)

    assert stays.prompt
    assert "axe" not in stays.prompt


def test_where_memory_is_short_there_are_none(tiny_folder, encoder, monkeypatch):
    needed = room.needed(tiny_folder, SPEC, SPEC.concepts).memory_bytes
    shown = []

    def opened(free: int):
        monkeypatch.setattr("trainer.room.free_memory_bytes", lambda _: free)
        return open_sampler(
            *(tiny_folder, None, SPEC, SPEC.concepts, encoder, None),
            Showing(2, shown.append),
            native_px=16,
            device="cpu",
        )

    assert opened(needed) is None
    assert opened(2 * needed) is not None


def test_of_a_base_that_says_what_it_draws_a_name_is_drawn_that_is_not_erased():
    shared = {"group": "thing", "article": "a", "synonyms": ["odd"]}
    things = [{"name": one, **shared} for one in ("axe", "dog")]
    known = ModelConcepts.model_validate({"concepts": things})
    bare = ErasureSpec(base_model="tiny", concepts=(AXE,))

    assert subjects((AXE,), bare, known, 2)[-1].prompt == "a dog"
