import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion.prompts import PromptEncoder
from tests.tiny_model import make_tokenizer

TOKENIZER = make_tokenizer()


def test_the_end_is_where_the_tokens_end_and_not_where_the_words_do(encoder):
    """ "zebra" is one word and five tokens; the reference counts words."""
    encoded = encoder.encode("a zebra")

    assert encoded.eot == 1 + 1 + 5


def test_the_empty_prompt_ends_at_once(encoder):
    assert encoder.encode("").eot == 1


@settings(deadline=None)
@given(st.lists(st.text(st.characters(codec="ascii"), max_size=60), min_size=1, max_size=4))
def test_nothing_but_padding_follows_the_first_end(encoder, prompts):
    ids = encoder.token_ids(prompts)
    for row, eot in zip(ids, encoder.first_eot(ids), strict=True):
        assert row[eot] == TOKENIZER.eos_token_id
        assert TOKENIZER.eos_token_id not in row[:eot]


def test_an_end_that_was_typed_into_the_prompt_is_the_first_end(encoder):
    assert encoder.encode("a dog <|endoftext|> a pistol").eot == 3


def test_a_prompt_of_75_tokens_fits_and_of_76_is_truncated(encoder):
    assert not encoder.encode("dog " * 75).truncated
    long = encoder.encode("dog " * 76)
    assert long.truncated
    assert long.eot == 76


def test_the_embedding_is_what_the_text_encoder_says(encoder, tiny):
    ids = encoder.token_ids(["a dog"])
    with torch.no_grad():
        expected = tiny.text_encoder(ids).last_hidden_state[0]

    assert torch.equal(encoder.encode("a dog").embedding, expected)


def test_many_at_once_are_the_same_as_one_by_one(encoder):
    prompts = ["a dog", "", "a zebra on the axe"]
    batch = encoder.encode_all(prompts)

    for row, prompt in enumerate(prompts):
        alone = encoder.encode(prompt)
        torch.testing.assert_close(batch.embeddings[row], alone.embedding)
        assert batch.eot[row] == alone.eot


class CountingEncoder:
    """A text encoder that knows how often it was asked."""

    def __init__(self, inner):
        self._inner = inner
        self.calls = 0
        self.config, self.device = inner.config, inner.device

    def __call__(self, ids):
        self.calls += 1
        return self._inner(ids)


def test_a_known_prompt_is_not_encoded_again_until_others_push_it_out(tiny):
    counting = CountingEncoder(tiny.text_encoder)
    encoder = PromptEncoder(tiny.tokenizer, counting, cached_prompts=2)

    for prompt in ["a dog", "an axe", "a dog", "a flower", "a dog"]:
        encoder.encode(prompt)
    assert counting.calls == 3

    encoder.encode("an axe")
    assert counting.calls == 4


def test_remembered_prompts_take_no_more_memory_than_they_may(tiny):
    counting = CountingEncoder(tiny.text_encoder)
    one = PromptEncoder(tiny.tokenizer, tiny.text_encoder).encode("a dog").size_bytes
    encoder = PromptEncoder(tiny.tokenizer, counting, cached_bytes=2 * one)

    for prompt in ["a dog", "an axe", "a dog", "a flower", "a dog"]:
        encoder.encode(prompt)
    encoder.encode("a dog", alone=True)
    assert counting.calls == 3
    encoder.encode("an axe")
    assert counting.calls == 4
    encoder.encode("a flower", company=["a zebra", "an axe"])
    encoder.encode("a flower", alone=True)
    encoder.encode("a zebra")
    assert sum(kept.size_bytes for kept in encoder._cache.values()) == 2 * one


@pytest.mark.parametrize("part", ["weights", "words"])
def test_another_encoder_has_another_digest(tiny, encoder, part):
    import copy

    text_encoder, tokenizer = copy.deepcopy(tiny.text_encoder), tiny.tokenizer
    if part == "weights":
        text_encoder.final_layer_norm.weight[0] += 1
    else:
        tokenizer = make_tokenizer()
        tokenizer.add_tokens(["zebra"])

    assert (
        PromptEncoder(text_encoder=text_encoder, tokenizer=tokenizer).digest() != encoder.digest()
    )
    assert PromptEncoder(tiny.tokenizer, tiny.text_encoder).digest() == encoder.digest()


def test_prompts_that_come_together_are_encoded_in_one_pass(tiny):
    counting = CountingEncoder(tiny.text_encoder)
    encoder = PromptEncoder(tiny.tokenizer, counting)
    prompts = ["a dog", "", "a zebra on the axe", ""]
    together = [encoder.encode(prompt, company=prompts) for prompt in prompts]

    assert counting.calls == 1
    alone = PromptEncoder(tiny.tokenizer, tiny.text_encoder)
    for prompt, encoded in zip(prompts, together, strict=True):
        expected = alone.encode(prompt)
        torch.testing.assert_close(encoded.embedding, expected.embedding)
        assert encoded.eot == expected.eot


def test_alone_a_prompt_has_the_same_bits_whoever_asked_for_it_before(tiny):
    fresh = PromptEncoder(tiny.tokenizer, tiny.text_encoder).encode("a dog", alone=True)
    encoder = PromptEncoder(tiny.tokenizer, tiny.text_encoder)
    others = ["an axe", "a zebra", "a flower on the dog"]
    encoder.encode("a dog", company=others)
    again = encoder.encode("a dog", company=others, alone=True)

    assert torch.equal(again.embedding, fresh.embedding)
    assert torch.equal(encoder.encode("a dog").embedding, fresh.embedding)


@settings(deadline=None, max_examples=20)
@given(
    st.lists(st.sampled_from(["a dog", "", "an axe", "a zebra in the photo"]), max_size=6),
    st.integers(1, 3),
)
def test_company_moves_an_embedding_by_less_than_a_rounding(encoder, company, cached):
    small = PromptEncoder(encoder._tokenizer, encoder._text_encoder, cached_prompts=cached)
    for prompt in ["a flower", *company]:
        found = small.encode(prompt, company=company)
        expected = encoder.encode(prompt, alone=True)
        torch.testing.assert_close(found.embedding, expected.embedding, atol=1e-5, rtol=1e-5)
    assert len(small._cache) <= cached
