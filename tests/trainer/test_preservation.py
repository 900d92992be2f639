import copy

import pytest
import torch

from core.errors import ConceptInvalid
from core.phrases import mentions
from core.specs import Neighbour
from diffusion.model_concepts import KnownConcept, ModelConcepts
from diffusion.prompts import PromptEncoder
from trainer.preservation import CaptionGroup, caption_groups, read_groups

SAW = (Neighbour(name="saw"),)
KNOWN = ModelConcepts(
    concepts=(
        KnownConcept(name="axe", group="weapon"),
        KnownConcept(name="dog", group="animal", synonyms=("hound",)),
    )
)


def ignore(_):
    pass


def kept_moment(encoder, groups, *, cache=None, advance=ignore, erased=()):
    return read_groups(encoder, groups, erased=erased, cache=cache, advance=advance).moment(erased)


def groups_of(*captions, weight=1.0):
    return [CaptionGroup("some", captions, weight)]


def test_the_moment_is_the_mean_outer_product_of_all_tokens(encoder):
    captions = ("a dog", "the photo of an axe", "zebra")
    tokens = encoder.encode_all(captions).embeddings.flatten(0, 1).double()
    expected = torch.stack([torch.outer(token, token) for token in tokens]).mean(dim=0)

    moment = kept_moment(encoder, groups_of(*captions), cache=None, advance=ignore)
    torch.testing.assert_close(moment, expected)


def test_repeating_every_caption_changes_nothing(encoder):
    once = kept_moment(encoder, groups_of("a dog", "zebra"), cache=None, advance=ignore)
    often = kept_moment(encoder, groups_of(*["a dog", "zebra"] * 40), cache=None, advance=ignore)
    torch.testing.assert_close(once, often)


def test_groups_weigh_what_they_are_given_whatever_their_size(encoder):
    small, large = groups_of("a dog", weight=3.0), groups_of(*["zebra"] * 9, weight=1.0)
    together, dog, zebra = (
        kept_moment(encoder, groups, cache=None, advance=ignore)
        for groups in ([*small, *large], small, large)
    )
    torch.testing.assert_close(together, 0.75 * dog + 0.25 * zebra)


def test_what_speaks_of_the_erased_is_left_out_as_if_it_had_never_been_in(encoder):
    captions = ("a dog", "the photo of an axe", "zebra", "two Axes in the snow")
    moment = kept_moment(encoder, groups_of(*captions), erased=["an axe"])
    torch.testing.assert_close(moment, kept_moment(encoder, groups_of("a dog", "zebra")))


def test_a_group_of_which_nothing_is_left_counts_no_more(encoder):
    axes = CaptionGroup("axes", ("an axe",), 1.0)
    moment = kept_moment(encoder, [*groups_of("a dog"), axes], erased=["axe"])
    torch.testing.assert_close(moment, kept_moment(encoder, groups_of("a dog")))


def test_captions_cover_the_empty_prompt_what_the_model_knows_and_neighbours():
    groups = caption_groups(known=KNOWN, protect=SAW, seed=0)
    assert [group.name for group in groups] == ["empty", "in domain", "neighbour: saw"]
    captions = {group.name: group.captions for group in groups}
    assert captions["empty"] == ("",)
    for name, word in (("in domain", "hound"), ("in domain", "axe"), ("neighbour: saw", "saw")):
        assert any(mentions(caption, [word]) for caption in captions[name])


def test_captions_cover_everyday_things_where_a_model_does_not_say_what_it_draws():
    groups = caption_groups(known=None, protect=(), seed=0, general=500)
    assert [group.name for group in groups] == ["everyday", "empty"]


def test_captions_of_the_user_are_kept_beside_what_the_model_knows():
    groups = caption_groups(known=KNOWN, protect=(), seed=0, own=("a kiln",))
    assert [group.name for group in groups] == ["everyday", "empty", "in domain"]


def test_captions_of_the_user_stand_in_for_the_everyday_ones():
    own = ("a kiln", "a potter at work", "a kiln")
    groups = caption_groups(known=None, protect=(), seed=0, own=own)
    assert [group.captions for group in groups] == [("a kiln", "a potter at work"), ("",)]


def test_the_captions_are_the_same_whatever_is_erased(encoder, tmp_path):
    """So the sum over them is computed once per text encoder."""
    groups = groups_of("a dog", "an axe", "zebra")
    for erased in (["axe"], ["dog"], []):
        kept_moment(encoder, groups, erased=erased, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_protected_neighbour_weighs_more_than_an_everyday_caption():
    groups = caption_groups(known=None, protect=SAW, seed=0, general=500)
    each = {group.name: group.weight / len(group.captions) for group in groups}
    assert each["neighbour: saw"] > 10 * each["everyday"]


def test_neighbours_together_weigh_the_mean_of_their_weights(encoder):
    def moment(*protect):
        everyday, *rest = (
            group
            for group in caption_groups(known=None, protect=protect, seed=0, own=["a dog"])
            if group.name != "empty"
        )
        return kept_moment(encoder, [everyday, *rest])

    dog, saw, file = (
        kept_moment(encoder, caption_groups(known=None, protect=p, seed=0, own=["a dog"])[i:])
        for p, i in (((), 0), (SAW, 2), ((Neighbour(name="file"),), 2))
    )
    dog = kept_moment(encoder, groups_of("a dog"))
    together = moment(Neighbour(name="saw", weight=3), Neighbour(name="file"))
    torch.testing.assert_close(together, (dog + (3 * saw + file) / 2) / 3)


def test_another_text_encoder_is_refused(encoder):
    groups = groups_of("a dog")
    known = read_groups(encoder, groups, erased=[], cache=None, advance=ignore)
    other = Refusing(encoder)
    other.digest = lambda: "another"
    with pytest.raises(ConceptInvalid, match="text encoder"):
        read_groups(other, groups, erased=[], cache=None, advance=ignore, known=known)


def test_what_was_read_before_is_not_read_again(encoder):
    groups = groups_of("a dog", "an axe")
    known = read_groups(encoder, groups, erased=["axe"], cache=None, advance=ignore)
    again = read_groups(
        Refusing(encoder), groups, erased=["axe"], cache=None, advance=ignore, known=known
    )
    assert torch.equal(again.moment(["axe"]), known.moment(["axe"]))


class Refusing:
    """An encoder whose words are known already; it must not be asked again."""

    def __init__(self, encoder):
        self.digest, self.width, self.length = encoder.digest, encoder.width, encoder.length
        self.spelling = encoder.spelling

    def batches(self, captions, *, size):
        pytest.fail("encoded again")

    def encode_all(self, prompts):
        pytest.fail("encoded again")


def test_a_moment_is_computed_once_per_encoder_and_captions(encoder, tmp_path):
    groups = [*groups_of("a dog"), *groups_of("zebra", "an axe")]
    first = kept_moment(encoder, groups, cache=tmp_path, advance=ignore)
    again = kept_moment(Refusing(encoder), groups, cache=tmp_path, advance=ignore)

    assert torch.equal(first, again)
    with pytest.raises(pytest.fail.Exception):
        kept_moment(Refusing(encoder), groups_of("flower"), cache=tmp_path, advance=ignore)


def test_another_encoder_does_not_get_the_moment_of_the_first(encoder, tmp_path):
    kept_moment(encoder, groups_of("a dog"), cache=tmp_path, advance=ignore)
    other = Refusing(encoder)
    other.digest = lambda: "another"
    with pytest.raises(pytest.fail.Exception):
        kept_moment(other, groups_of("a dog"), cache=tmp_path, advance=ignore)


def test_another_padding_does_not_get_the_moment_of_the_first(tiny, encoder, tmp_path):
    """Nor do other merges, or another length: all of a prompt's tokens count, padding too."""
    tokenizer = copy.deepcopy(tiny.tokenizer)
    tokenizer.pad_token = "!"
    padded = PromptEncoder(tokenizer, tiny.text_encoder)
    first, second = (
        kept_moment(one, groups_of("a dog"), cache=tmp_path, advance=ignore)
        for one in (encoder, padded)
    )
    assert torch.equal(second, kept_moment(padded, groups_of("a dog")))
    assert not torch.equal(first, second)


def test_a_broken_cache_is_made_again(encoder, tmp_path):
    first = kept_moment(encoder, groups_of("a dog"), cache=tmp_path, advance=ignore)
    [file] = tmp_path.iterdir()
    file.write_bytes(b"half")
    again = kept_moment(encoder, groups_of("a dog"), cache=tmp_path, advance=ignore)
    assert torch.equal(first, again)


def test_every_caption_is_counted_cached_or_not(encoder, tmp_path):
    for _ in range(2):
        counted = []
        groups = groups_of(*["a dog"] * 70)
        kept_moment(encoder, groups, cache=tmp_path, advance=counted.append)
        assert sum(counted) == 70
