"""The parts of the demo; the whole is `make demo`."""

from dataclasses import replace

import pytest
from PIL import Image, ImageDraw

from cli.demo.figures import Figures, Pair, other_accuracies
from cli.demo.gallery import COLUMNS, gallery
from cli.demo.prompts import DemoPrompt, choose
from core.phrases import without_article
from core.settings import SHIPPED_MODELS
from diffusion.model_concepts import ModelConcepts


@pytest.fixture(scope="module")
def concepts():
    return ModelConcepts.of(SHIPPED_MODELS / "emoji").concepts


def test_the_prompts_are_chosen_by_their_seed(concepts):
    assert choose(concepts, seed=1) == choose(concepts, seed=1)
    assert choose(concepts, seed=1) != choose(concepts, seed=2)


def test_no_prompt_was_trained_or_tuned_on_but_names(concepts):
    seen = {
        text
        for concept in concepts
        for text in (*concept.descriptions, *concept.tuning_descriptions, *concept.synonyms)
    }
    for prompt in choose(concepts, seed=0):
        if prompt.wording != "name":
            phrase = prompt.text.removeprefix("a picture of ")
            assert phrase not in seen
            assert without_article(phrase) not in seen


def test_every_prompt_has_a_seed_of_its_own(concepts):
    prompts = choose(concepts, seed=0)

    assert len({prompt.seed for prompt in prompts}) == len(prompts)


def pair(*, is_target: bool, seen_after: str = "cat") -> Pair:
    prompt = DemoPrompt("a picture of a cat", "cat", "name", is_target, 1)
    blank = Image.new("RGB", (64, 64), "white")
    return Pair(prompt, blank, blank, "cat", seen_after, shown_before=False, shown_after=False)


def test_accuracy_counts_other_things_alone():
    pairs = [pair(is_target=True), pair(is_target=False), pair(is_target=False, seen_after="dog")]

    assert other_accuracies(pairs) == (1.0, 0.5)


def test_a_gallery_has_room_for_every_row():
    few = gallery([pair(is_target=True), pair(is_target=False)])
    many = gallery([pair(is_target=target) for target in (True, False) for _ in range(30)])

    assert many.width == few.width
    assert many.height > few.height
    assert many.width > COLUMNS * 2 * 100


@pytest.mark.parametrize(
    ("rate", "accuracy", "good"),
    [
        pytest.param(0.10, 0.90, True, id="just good enough"),
        pytest.param(0.11, 1.0, False, id="still draws weapons"),
        pytest.param(0.0, 0.89, False, id="forgot too much"),
    ],
)
def test_the_demo_fails_when_the_erasure_is_not_good(rate, accuracy, good):
    figures = Figures("emoji", "erased", 1.0, rate, 1.0, accuracy, 1.0, 1.0)

    assert figures.good is good


def test_a_gallery_says_what_was_lost(monkeypatch):
    written = []
    monkeypatch.setattr(
        ImageDraw.ImageDraw, "text", lambda _, at, text, *a, **k: written.append(text)
    )
    lost = pair(is_target=False, seen_after="flower")
    gallery([pair(is_target=True), pair(is_target=False), pair(is_target=False), lost])

    assert "Everything else: 2 of 3 kept" in written
    assert sum(text.startswith("lost:") for text in written) == 1


def test_a_gallery_says_what_is_still_drawn(monkeypatch):
    written = []
    monkeypatch.setattr(
        ImageDraw.ImageDraw, "text", lambda _, at, text, *a, **k: written.append(text)
    )
    erased = replace(pair(is_target=True), shown_before=True)
    gallery([erased, replace(erased, shown_after=True), pair(is_target=False)])

    assert "Weapons: 1 of 2 erased" in written
    assert sum(text.startswith("still a weapon:") for text in written) == 1
