import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import presets
from core.consistency import check_consistent
from core.errors import ConceptInvalid
from core.merging import concepts_to_erase
from core.phrases import mentions, without_article
from core.specs import Concept, ErasureSpec
from trainer.concepts import prompt_pairs, templates

KINDS = ["object", "style", "identity", "unsafe"]


def concept(name="axe", *synonyms, replacement="flower", **fields):
    return Concept(name=name, synonyms=synonyms, replacement=replacement, **fields)


def pairs_of(*concepts):
    return [pair for pairs in prompt_pairs(concepts).values() for pair in pairs]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_sentences_of_its_own(kind):
    assert len(set(templates(kind))) == len(templates(kind)) >= 15
    assert all("{}" in sentence or "{a}" in sentence for sentence in templates(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_concept_is_put_into_the_sentences_of_its_kind(kind):
    """The reference never uses its templates for styles."""
    words = "Marzanna Quill"
    prompts = {pair.unsafe for pair in pairs_of(concept(words, replacement="someone", kind=kind))}
    others = {
        sentence.replace("{}", words) for sentence in templates(kind) if "{a}" not in sentence
    }
    assert others <= prompts
    assert len(prompts) >= 15


def test_the_prompts_of_a_pair_differ_in_the_concept_alone():
    for pair in pairs_of(concept("axe", replacement="bunch of grapes")):
        assert pair.unsafe.replace("an axe", "axe").replace("axe", "*") == pair.safe.replace(
            "a bunch of grapes", "bunch of grapes"
        ).replace("bunch of grapes", "*")


def test_articles_agree_with_the_words():
    prompts = {pair.unsafe: pair.safe for pair in pairs_of(concept("axe", "pistol"))}
    assert prompts["a photo of an axe"] == "a photo of a flower"
    assert prompts["a photo of a pistol"] == "a photo of a flower"


def test_no_prompt_comes_twice_and_every_phrase_weighs_the_same():
    pairs = pairs_of(concept("axe", "an axe", "hatchets"), concept("adze", "Hatchets", "the axe"))

    prompts = [pair.unsafe.casefold() for pair in pairs]
    assert len(prompts) == len(set(prompts))
    assert sum(pair.weight for pair in pairs) == pytest.approx(3)  # axe, hatchets, adze


def test_a_phrase_with_more_space_in_it_is_the_same_phrase():
    pairs = pairs_of(concept("base ball", "base  ball"))
    assert sum(pair.weight for pair in pairs) == pytest.approx(1)
    assert pairs == pairs_of(concept("base ball"))


def test_a_list_of_more_than_twenty_concepts_is_used_to_its_end():
    """The reference cuts it to its first twenty entries."""
    names = [f"thing number {number}" for number in range(25)]
    pairs = prompt_pairs([concept(name) for name in names])
    assert list(pairs) == names
    assert all(pairs.values())


@given(
    st.lists(st.text("abc xyz", min_size=1, max_size=8).filter(str.strip), unique=True, min_size=1)
)
def test_whatever_the_words_their_weights_add_up_to_how_many_there_are(words):
    words = list({word.strip(): None for word in words})
    pairs = pairs_of(*(concept(word, replacement="flower pot") for word in words))
    distinct = {without_article(word) for word in words}
    assert sum(pair.weight for pair in pairs) == pytest.approx(len(distinct))


@pytest.mark.parametrize(
    ("concepts", "protected", "why"),
    [
        pytest.param(
            [concept("axe", replacement="a pistol"), concept("pistol")],
            (),
            "speaks of 'pistol'",
            id="replaced by what another concept erases",
        ),
        pytest.param(
            [concept("gun", replacement="toy gun")],
            (),
            "toy gun",
            id="replaced by a kind of itself",
        ),
        pytest.param(
            [concept("guns", replacement="gun")], (), "speaks of 'guns'", id="its singular"
        ),
        pytest.param(
            [concept("knife", replacement="wooden knives")], (), "of 'knife'", id="its plural"
        ),
        pytest.param(
            [concept("cherries", replacement="a cherry")], (), "of 'cherries'", id="-y and -ies"
        ),
        pytest.param(
            [concept("base ball", replacement="base  ball")], (), "of 'base ball'", id="a space"
        ),
        pytest.param(
            [concept("axe", "blade"), concept("sword", "a blade", replacement="cake")],
            (),
            "both 'flower' and 'cake'",
            id="sent to two places",
        ),
        pytest.param(
            [concept("axe")], ("An axe",), "erased and protected", id="erased and protected"
        ),
    ],
)
def test_contradictions_are_refused_with_the_words_that_contradict(concepts, protected, why):
    with pytest.raises(ConceptInvalid, match=why):
        check_consistent(concepts, protected)


@pytest.mark.parametrize(
    ("erased", "protected"),
    [
        ("axe", "axes"),
        ("axes", "an axe"),
        ("ax", "the axes"),
        ("cherry", "cherries"),
        ("match", "matches"),
        ("water pistols", "Water pistol"),
        ("water  pistols", "water pistol"),
        ("a potato", "potatoes"),
        ("knives", "knife"),
        ("wolf", "wolves"),
    ],
)
def test_what_is_erased_is_not_protected_in_singular_or_plural(erased, protected):
    with pytest.raises(ConceptInvalid, match="both erased and protected") as caught:
        check_consistent([concept(erased, replacement="flower")], [protected])
    assert repr(protected) in str(caught.value)
    assert repr(without_article(erased)) in str(caught.value)


@pytest.mark.parametrize(
    ("erased", "protected"),
    [("glass", "glas"), ("car", "care"), ("plan", "planes"), ("bus", "busy"), ("ax", "a taxi")],
)
def test_words_that_only_look_alike_may_be_erased_and_protected(erased, protected):
    check_consistent([concept(erased, replacement="flower")], [protected])


def test_near_misses_are_no_contradictions():
    check_consistent([concept("axe", replacement="taxes"), concept("pistol")], ["water pistol"])


@pytest.mark.parametrize("text", ["an axe", "two axes", "AXE!", "the axe-man"])
def test_a_text_mentions_a_word_in_singular_and_plural(text):
    assert mentions(text, ["a saw", "axe"]) == "axe"


@pytest.mark.parametrize(
    ("phrase", "text"),
    [
        ("pistols", "a photo of a pistol"),
        ("pistol", "pistols"),
        ("explosives", "a stick of explosive"),
        ("axes", "an ax"),
        ("axes", "three axes"),
        ("matches", "a burnt match"),
        ("cherries", "a cherry on a cake"),
        ("cherry", "cherries on a cake"),
        ("knives", "a knife on a table"),
        ("pocket knife", "two pocket knives"),
        ("scarves", "a red scarf"),
        ("loaf", "loaves of bread"),
        ("the machine\tguns", "a machine  gun"),
    ],
)
def test_it_does_not_matter_which_of_the_two_is_singular(phrase, text):
    assert mentions(text, ["a saw", phrase]) == phrase


@pytest.mark.parametrize(
    ("phrase", "text"),
    [("glass", "glas"), ("caves", "a cafe"), ("as", "a house")],
)
def test_words_that_only_look_alike_are_no_mention(phrase, text):
    assert mentions(text, [phrase]) is None


@pytest.mark.parametrize("text", ["taxes", "axel", "a relaxed man", ""])
def test_parts_of_other_words_are_no_mention(text):
    assert mentions(text, ["axe"]) is None


def test_presets_and_concepts_are_erased_together_and_what_they_share_once():
    shared = presets.load("drugs")[1]
    own = Concept(name="hookah", replacement="teapot")
    spec = ErasureSpec(base_model="m", preset=("drugs", "alcohol-tobacco"), concepts=(shared, own))

    listed = (*presets.load("drugs"), *presets.load("alcohol-tobacco"))
    assert concepts_to_erase(spec) == (*listed, own)


@pytest.mark.parametrize(
    ("own", "complaint"),
    [
        pytest.param(
            Concept(name="Pill", replacement="sweet"), "described differently", id="one name"
        ),
        pytest.param(
            Concept(name="medicine", synonyms=("pills",), replacement="anvil"),
            "'pills' is to become both",
            id="one word",
        ),
    ],
)
def test_a_concept_that_contradicts_a_preset_is_refused(own, complaint):
    with pytest.raises(ConceptInvalid, match=complaint):
        concepts_to_erase(ErasureSpec(base_model="m", preset="drugs", concepts=(own,)))


def test_a_preset_that_does_not_exist_is_refused():
    with pytest.raises(ConceptInvalid, match="no preset 'nothing'"):
        concepts_to_erase(ErasureSpec(base_model="m", preset="nothing"))
