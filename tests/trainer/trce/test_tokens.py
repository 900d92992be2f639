import pytest
import torch

from diffusion.prompts import EncodedPrompts
from trainer.preservation import _token_moment
from trainer.trce.alignment import align
from trainer.trce.tokens import moved_tokens, pooled_pairs

LENGTH = 10


def prompts(*eot):
    """Embeddings that say where they stand: (prompt number, position)."""
    number, position = torch.meshgrid(torch.arange(len(eot)), torch.arange(LENGTH), indexing="ij")
    embeddings = torch.stack([number, position], dim=-1).float()
    return EncodedPrompts(embeddings=embeddings, eot=torch.tensor(eot))


def moves(unsafe, safe, which):
    """(unsafe position, safe position) of one prompt pair."""
    ones = torch.ones(len(unsafe.eot), dtype=torch.float64)
    tokens = moved_tokens(unsafe, safe, ones, which=which)
    assert torch.equal(tokens.unsafe[:, 0], tokens.safe[:, 0])
    return list(zip(tokens.unsafe[:, 1].tolist(), tokens.safe[:, 1].tolist(), strict=True))


def test_first_moves_the_first_end_of_each_prompt_onto_that_of_its_partner():
    assert moves(prompts(3, 5), prompts(4, 2), "first") == [(3, 4), (5, 2)]


def test_all_moves_the_first_end_likewise_and_padding_onto_padding_at_its_place():
    assert moves(prompts(6), prompts(6), "all") == [(6, 6), (7, 7), (8, 8), (9, 9)]
    assert moves(prompts(6), prompts(3), "all") == [(6, 3), (7, 7), (8, 8), (9, 9)]


def test_where_the_safe_prompt_is_longer_its_nearest_padding_is_the_target():
    assert moves(prompts(5), prompts(7), "all") == [(5, 7), (6, 8), (7, 8), (8, 8), (9, 9)]


def test_a_safe_prompt_that_fills_every_place_offers_its_only_end():
    assert moves(prompts(7), prompts(9), "all") == [(7, 9), (8, 9), (9, 9)]


@pytest.mark.parametrize("which", ["first", "all"])
def test_a_prompt_pair_weighs_the_same_whichever_tokens_are_moved(which):
    weights = torch.tensor([0.25, 2.0], dtype=torch.float64)
    tokens = moved_tokens(prompts(3, 8), prompts(4, 4), weights, which=which)
    for number, weight in enumerate(weights):
        of_prompt = tokens.weights[tokens.unsafe[:, 0] == number]
        assert of_prompt.sum() == pytest.approx(float(weight))
        assert len(set(of_prompt.tolist())) == 1


def test_only_ends_are_moved(encoder):
    """The words in front of the end keep their embeddings, whatever they are."""
    unsafe, safe = encoder.encode_all(["a zebra", "axe"]), encoder.encode_all(["a dog", "flower"])
    tokens = moved_tokens(unsafe, safe, torch.ones(2, dtype=torch.float64), which="all")
    assert len(tokens.unsafe) == (77 - unsafe.eot).sum()
    assert torch.equal(tokens.unsafe[0], unsafe.embeddings[0, unsafe.eot[0]].double())
    assert torch.equal(tokens.safe[0], safe.embeddings[0, safe.eot[0]].double())


def test_words_are_moved_beside_the_ends_and_weigh_the_same(encoder):
    prompts = ["a zebra in ink style", "axe"], ["a zebra in noto style", "flower"]
    unsafe, safe = (encoder.encode_all(side) for side in prompts)
    ids = encoder.token_ids(prompts[0]), encoder.token_ids(prompts[1])
    weights = torch.tensor([2.0, 0.5], dtype=torch.float64)
    tokens = moved_tokens(unsafe, safe, weights, which="all", words=ids)
    ends = moved_tokens(unsafe, safe, weights, which="all")

    aligned = [
        align(ids[0][row][: unsafe.eot[row]].tolist(), ids[1][row][: safe.eot[row]].tolist())
        for row in (0, 1)
    ]
    assert len(tokens.unsafe) - len(ends.unsafe) == len(aligned[0]) + len(aligned[1])
    for place, (here, there) in enumerate(aligned[0]):
        assert torch.equal(tokens.unsafe[place], unsafe.embeddings[0, here].double())
        assert torch.equal(tokens.safe[place], safe.embeddings[0, there].double())
    of_first = len(aligned[0]) + 77 - int(unsafe.eot[0])
    assert tokens.weights[:of_first].tolist() == pytest.approx([2.0 / of_first] * of_first)
    assert tokens.weights[of_first:].sum() == pytest.approx(0.5)


class WithoutFloat64(torch.Tensor):
    """A tensor on an Apple GPU, which computes no doubles."""

    def double(self):
        raise TypeError("MPS has no float64")

    def cpu(self):
        return self.as_subclass(torch.Tensor)


def test_doubles_are_made_where_there_are_any():
    embeddings = torch.rand(2, LENGTH, 3).as_subclass(WithoutFloat64)
    pooled = torch.rand(2, 3).as_subclass(WithoutFloat64)
    encoded = EncodedPrompts(embeddings=embeddings, eot=torch.tensor([3, 5]), pooled=pooled)
    weights = torch.ones(2, dtype=torch.float64)

    made = moved_tokens(encoded, encoded, weights, which="all")
    of_pooled = pooled_pairs(encoded, encoded, weights)
    assert of_pooled is not None
    for tensor in (made.unsafe, made.safe, of_pooled.unsafe, of_pooled.safe):
        assert tensor.dtype == torch.float64
    assert _token_moment(embeddings).dtype == torch.float64
