import pytest

from core.edits import Edit
from core.errors import ConceptInvalid
from core.manifests import Drawing, Manifest, ModelStatus
from core.merging import completed, concepts_to_erase
from core.specs import Concept, ErasureSpec, TextualOptions

AXE = Concept(name="axe", synonyms=("hatchet",), replacement="flower")
GUN = Concept(name="gun", replacement="dog")
TOMAHAWK = Concept(name="tomahawk", synonyms=("a hatchet",), replacement="flower")


def model(name, *concepts, base="raw", digest="d", method="trce", seed=0, **textual):
    edit = Edit(
        base_model=base,
        base_digest=digest,
        method=method,
        concepts=concepts,
        textual=TextualOptions.model_validate(textual),
        seed=seed,
        seconds=1,
    )
    return Manifest(
        id=name,
        kind="erased",
        family="sd1",
        status=ModelStatus.CANDIDATE,
        created_at=0,
        code_version="",
        drawing=Drawing(native_px=16, multiple_px=4, max_px=32),
        edit=edit,
        files={"a": "b"},
    )


def spec(*models, **fields):
    merge = [manifest.id for manifest in models]
    return ErasureSpec.model_validate({"base_model": "raw", "merge": merge} | fields)


def names(*models, **fields):
    return [concept.name for concept in concepts_to_erase(spec(*models, **fields), models)]


A, B = model("a", AXE), model("b", GUN)


def test_a_merge_erases_what_each_of_its_models_erases():
    assert names(A, B) == ["axe", "gun"]
    assert names(A, model("c", AXE, GUN)) == ["axe", "gun"]


def test_what_is_removed_is_gone_and_what_is_added_comes_last():
    both = model("c", AXE, GUN)
    assert names(both, remove=["Axe"]) == ["gun"]
    assert names(both, remove=["axe", "gun"]) == []
    bomb = {"name": "bomb", "replacement": "cake"}
    assert names(both, concepts=[bomb]) == ["axe", "gun", "bomb"]


def test_a_concept_can_be_described_anew():
    new = {"name": "axe", "synonyms": ["adze"], "replacement": "flower"}
    assert names(A, remove=["axe"], concepts=[new]) == ["axe"]


@pytest.mark.parametrize(
    ("models", "fields", "why"),
    [
        pytest.param([A, B], {"remove": ["bow"]}, "no concept 'bow'", id="not there"),
        pytest.param(
            [A, model("c", AXE.model_copy(update={"synonyms": ()}))],
            {},
            "described differently",
            id="two descriptions",
        ),
        pytest.param([A, model("c", TOMAHAWK)], {}, "'hatchet' stands under", id="counted twice"),
        pytest.param(
            [model("c", AXE, TOMAHAWK)],
            {"remove": ["axe"]},
            "cannot be told apart",
            id="counted under the concept that goes",
        ),
        pytest.param(
            [A],
            {"concepts": [{"name": "hatchet", "replacement": "flower"}]},
            "'hatchet' is erased already, under 'axe'",
            id="added twice",
        ),
        pytest.param(
            [A, B], {"textual": {"protect": ["an axe"]}}, "erased and protected", id="protected"
        ),
        pytest.param(
            [A, model("c", Concept(name="saw", replacement="an axe"))],
            {},
            "speaks of 'axe'",
            id="replaced by what the other erases",
        ),
    ],
)
def test_what_cannot_be_merged_exactly_is_refused_by_name(models, fields, why):
    with pytest.raises(ConceptInvalid, match=why):
        names(*models, **fields)


def test_concepts_of_one_model_may_share_a_phrase_as_long_as_both_stay():
    assert names(model("c", AXE, TOMAHAWK)) == ["axe", "tomahawk"]


def test_what_a_merge_leaves_open_is_as_in_its_models():
    models = [model(name, AXE, seed=5, preserve=3, eot_tokens="first") for name in "ab"]
    filled = completed(spec(*models), models)
    assert (filled.seed, filled.textual.preserve, filled.textual.eot_tokens) == (5, 3, "first")
    assert completed(filled, models) == filled


@pytest.mark.parametrize(
    ("made_with", "given", "count"),
    [
        pytest.param((0, 0), {}, 0, id="as in the models"),
        pytest.param((5, 9), {}, 9, id="the most of them"),
        pytest.param((0, 0), {"neighbours": 7}, 7, id="as asked for"),
    ],
)
def test_as_many_neighbours_of_what_is_new_are_found_as_of_what_is_merged(made_with, given, count):
    models = [
        model(name, concept, neighbours=number)
        for name, concept, number in zip("ab", (AXE, GUN), made_with, strict=True)
    ]
    filled = completed(spec(*models, textual=given), models)
    assert filled.textual.neighbours == count
    assert completed(filled, models) == filled


def test_what_enters_with_the_solving_alone_may_be_chosen_anew():
    models = [model("a", AXE, preserve=3), model("b", GUN, preserve=4)]
    filled = completed(spec(*models, textual={"preserve": 5, "strength": 0.5}), models)
    assert (filled.textual.preserve, filled.textual.strength) == (5, 0.5)


def test_neighbours_of_all_are_protected_with_the_largest_weight():
    models = [
        model("a", AXE, protect=["saw", {"name": "file", "weight": 3}]),
        model("b", GUN, protect=["File", "hose"]),
    ]
    filled = completed(spec(*models, textual={"protect": [{"name": "saw", "weight": 2}]}), models)
    assert {one.name: one.weight for one in filled.textual.protect} == {
        "saw": 2,
        "file": 3,
        "hose": 1,
    }


def test_more_neighbours_than_can_be_protected_are_refused_with_the_numbers():
    """A neighbour that two models name is one."""
    many, others = ([f"{kind} {number}" for number in range(100)] for kind in ("saw", "hose"))
    models = [model("a", AXE, protect=many), model("b", GUN, protect=[*others, "SAW 7"])]
    assert len(completed(spec(*models), models).textual.protect) == 200

    with pytest.raises(ConceptInvalid, match=r"protect: .* name 201 neighbours .* 200 can be"):
        completed(spec(*models, textual={"protect": ["file"]}), models)


@pytest.mark.parametrize(
    ("models", "fields", "why"),
    [
        pytest.param(
            [A, model("c", GUN, preserve=3)], {}, "preserve: .* different values", id="preserve"
        ),
        pytest.param([A, model("c", GUN, seed=1)], {}, "seed: .* different", id="seeds"),
        pytest.param([A], {"seed": 1}, "made with 0", id="seed asked for"),
        pytest.param([A], {"textual": {"eot_tokens": "first"}}, "eot_tokens", id="other tokens"),
        pytest.param([A], {"textual": {"captions": ["a kiln"]}}, "captions", id="other captions"),
        pytest.param([A, model("c", GUN, digest="e")], {}, "different states", id="other base"),
        pytest.param([model("c", GUN, base="other")], {}, "from other, not", id="another base"),
        pytest.param([model("c", GUN, method="uce")], {}, "made by uce", id="another method"),
        pytest.param(
            [A.model_copy(update={"edit": None})], {}, "is a base model", id="not erased"
        ),
    ],
)
def test_models_that_do_not_fit_together_are_refused_by_name(models, fields, why):
    with pytest.raises(ConceptInvalid, match=why):
        completed(spec(*models, **fields), models)
