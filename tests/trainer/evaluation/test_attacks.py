"""What each search promises, on the tiny model: its loss falls, and it keeps its rules."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from PIL import Image

from core.errors import ModelUnsupported
from core.reports import ModelIdentity
from core.settings import SHIPPED_MODELS
from diffusion.erasure import Erasure
from diffusion.loading import load_base, load_prompt_encoder
from tests.tiny_model import FAMILIES, WIDTH, make_model
from trainer.concepts import PromptPair
from trainer.evaluation.album import Album
from trainer.evaluation.attacks import ring_a_bell, surface, text_gradient, white_box
from trainer.evaluation.attacks.soft_prompts import soft_prompts
from trainer.evaluation.attacks.vocabulary import Alphabet
from trainer.evaluation.drawing import DrawingOptions, Studio
from trainer.evaluation.instruments import Instruments


@pytest.fixture(scope="module", params=FAMILIES)
def components(request, tmp_path_factory):
    """One model of each family."""
    folder = tmp_path_factory.mktemp("attacked") / request.param
    return load_base(make_model(folder, family=request.param), None)


@pytest.fixture
def encoder(components):
    return components.prompt_encoder()


@pytest.fixture
def alphabet(encoder):
    return Alphabet(encoder)


@pytest.fixture
def tools(components, encoder, tmp_path):
    studio = Studio(components, DrawingOptions(num_inference_steps=2))
    # The erased model reads every text as half of what it says.
    pooled = encoder.pooled_width
    return Instruments(
        studio=studio,
        album=Album(studio, tmp_path),
        erasure=Erasure(
            text_map=0.5 * torch.eye(encoder.width),
            pooled_map=None if pooled is None else 0.5 * torch.eye(pooled),
        ),
        base=ModelIdentity(id="base", digest="b"),
        model=ModelIdentity(id="erased", digest="e"),
        detector=None,
        judge=None,
        likeness=None,
        report=lambda _: None,
    )


def test_surface_tricks_are_different_bounded_and_the_same_for_one_seed():
    few = surface.variants("an image of an axe", "axe", budget=5, seed=0)
    many = surface.variants("an image of an axe", "axe", budget=60, seed=0)
    assert len(few) == 5
    assert len(set(many)) == len(many) > 30
    assert many[:5] == few
    assert many == surface.variants("an image of an axe", "axe", budget=60, seed=0)
    assert "an image of an axe" not in many
    assert {"AN IMAGE OF AN AXE", "an image of an a x e", "ein Bild von axe"} <= set(many)


def test_soft_tokens_are_read_as_the_tokens_they_stand_for(components, encoder, alphabet):
    prompt = "a photo of an axe"
    rows = alphabet.rows(alphabet.spell(prompt)[None])
    tables = [one.get_input_embeddings() for one in encoder.encoders]
    vectors = torch.cat([table.weight[rows[0][:, 1:4]] for table in tables], dim=-1)
    # What stands where the vectors go does not matter.
    blank = [torch.cat([row[:, :1], row[:, 2:3].repeat(1, 3), row[:, 4:]], dim=1) for row in rows]

    soft, hard = soft_prompts(encoder, blank, vectors), encoder.encode_all([prompt])
    assert torch.allclose(soft.embeddings, hard.embeddings, atol=1e-5)
    if hard.pooled is not None:
        assert torch.allclose(soft.pooled, hard.pooled, atol=1e-5)
    # Nothing stays behind.
    assert not any(table._forward_hooks for table in tables)


def test_tokenizers_that_number_words_differently_are_refused(components):
    if components.second is None:
        pytest.skip("it has one tokenizer")
    other = copy.deepcopy(components.second.tokenizer)
    other.add_tokens(["newword"])
    second = replace(components.second, tokenizer=other)
    with pytest.raises(ModelUnsupported, match="two tokenizers differ"):
        Alphabet(replace(components, second=second).prompt_encoder())


def test_words_are_written_and_read_as_the_same_tokens():
    """On the vocabulary of the shipped model, of which every piece is meant to be a word."""
    encoder = load_prompt_encoder(SHIPPED_MODELS / "emoji", None)
    alphabet = Alphabet(encoder, without=["battle axe"])
    words = [alphabet.text(torch.tensor([place])) for place in range(len(alphabet))]
    assert len(words) > 1000
    assert not [word for word in words if "axe" in word or "battle" in word]


def test_a_longer_genetic_search_comes_nearer(encoder, alphabet):
    pairs = [PromptPair("a photo of an axe", "a photo of a flower", 1.0)]
    concept = ring_a_bell.concept_vector(encoder, pairs)
    assert concept.shape == (77, encoder.width)
    best = [
        ring_a_bell.search(
            *(encoder, alphabet, "a dog", concept), generations=rounds, seed=1, population=24
        )[0].loss
        for rounds in (0, 8)
    ]
    assert best[1] < best[0]


def test_a_longer_gradient_search_comes_nearer_and_can_be_run_again(encoder, alphabet):
    def search(steps):
        return text_gradient.search(*(encoder, alphabet, "a photo of an axe"), steps=steps, seed=2)

    short, long = search(1), search(6)
    assert long[0].loss < short[0].loss
    assert long == search(6)
    assert [one.loss for one in long] == sorted(one.loss for one in long)


@pytest.mark.parametrize("objective", ["p4d", "unlearn-diff"])
def test_white_box_searches_find_better_prompts_than_their_first(tools, alphabet, objective):
    picture = Image.radial_gradient("L").convert("RGB").resize((16, 16))

    def search(steps):
        return white_box.search(
            *(tools, alphabet, "an axe", picture), objective=objective, steps=steps, seed=3
        )

    # A vector that two text encoders read has further to go to the next word.
    first, best = search(1)[0], search(60 if alphabet.vectors.shape[1] > WIDTH else 30)[0]
    assert best.loss < first.loss
    assert best.text.endswith(" an axe")
    assert len(best.text.split()) <= white_box.PREFIX + 2
    assert search(5) == search(5)
    assert math.isfinite(best.loss)
    assert not tools.studio.components.unet.conv_in.weight.requires_grad
