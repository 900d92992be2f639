import pytest
import torch

from core.specs import Concept
from diffusion.model_concepts import KnownConcept, ModelConcepts
from trainer.concepts import mentions
from trainer.preservation import CaptionGroup, caption_groups, kept_moment

AXE = Concept(name="axe", synonyms=("hatchet",), replacement="flower")
KNOWN = ModelConcepts(
    concepts=(
        KnownConcept(name="axe", group="weapon"),
        KnownConcept(name="dog", group="animal", synonyms=("hound",)),
    )
)


def ignore(_):
    pass


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


def test_what_is_erased_is_in_no_group(encoder):
    groups = caption_groups([AXE], known=KNOWN, protect=["saw"], seed=0, general=500)
    captions = [caption for group in groups for caption in group.captions]

    assert not any(mentions(caption, AXE.words) for caption in captions)
    assert any(mentions(caption, ["hound"]) for caption in captions)
    assert any(mentions(caption, ["saw"]) for caption in captions)
    assert "" in captions


def test_a_protected_neighbour_weighs_more_than_an_everyday_caption(encoder):
    groups = caption_groups([AXE], known=None, protect=["saw"], seed=0, general=500)
    each = {group.name: group.weight / len(group.captions) for group in groups}
    assert each["protected"] > 10 * each["everyday"]


class Refusing:
    """An encoder whose words are known already; it must not be asked again."""

    def __init__(self, encoder):
        self.digest, self.width, self.length = encoder.digest, encoder.width, encoder.length

    def batches(self, captions, *, size):
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
