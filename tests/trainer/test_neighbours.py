"""What a model reads most like what is erased is found, and protected as if it were named."""

import json
import shutil

import pytest
import torch

from core.manifests import Manifest
from core.specs import MAX_SYNONYMS, Concept, ErasureSpec, Neighbour
from diffusion.erasure import Erasure
from diffusion.model_concepts import KnownConcept, ModelConcepts
from diffusion.prompts import PromptEncoder
from trainer.erase import erase
from trainer.neighbours import find_neighbours, nearest, protecting
from trainer.room import needed
from trainer.trce.archive import load_statistics

AXE = {"name": "axe", "synonyms": ["hatchet"], "replacement": "flower"}
BREAD = {"name": "bread", "replacement": "flower"}
NAMES = ("axe", "tomahawk", "bread", "dog", "saw", "file", "zebra", "house", "boat", "tree")
KNOWN = ModelConcepts(
    concepts=tuple(
        KnownConcept(
            name=name, group="thing", synonyms=("hatchets",) if name == "tomahawk" else ()
        )
        for name in NAMES
    )
)


def concept(**fields) -> Concept:
    return Concept.model_validate(fields)


def spec(**fields) -> ErasureSpec:
    return ErasureSpec.model_validate({"base_model": "tiny", "concepts": [AXE]} | fields)


def names(found) -> list[str]:
    return [name for near in found.values() for name in near]


class TestNearest:
    def test_what_reads_the_same_is_nearest_and_says_to_what(self, encoder):
        others = ["a dog", "a saw", "zebra", "a boat"]
        assert nearest(encoder, ["a boat", "a dog"], others, count=2) == {0: 1, 3: 0}

    def test_it_is_the_cosine_of_what_differs_from_the_mean(self, encoder):
        texts, others = ["a boat", "a dog"], ["a saw", "zebra", "a house"]
        encoded = encoder.encode_all([*texts, *others])
        states = encoded.embeddings[torch.arange(5), encoded.eot]
        unit = torch.nn.functional.normalize(states - states.mean(0), dim=-1)
        likeness = unit[2:] @ unit[:2].T
        first = int(likeness.max(dim=1).values.argmax())

        assert nearest(encoder, texts, others, count=1) == {first: int(likeness[first].argmax())}

    def test_nothing_is_near_where_there_is_nothing(self, encoder):
        assert nearest(encoder, ["a dog"], [], count=3) == {}
        assert nearest(encoder, [], ["a dog"], count=3) == {}


class TestFinding:
    def test_what_is_erased_is_no_neighbour_under_any_of_its_names(self, encoder):
        axe = concept(**AXE)
        found = find_neighbours(encoder, [axe], KNOWN, erased=[axe, concept(**BREAD)], count=200)
        assert set(found) == {"axe"}
        assert not {"axe", "tomahawk", "bread"} & set(names(found))

    def test_no_more_than_asked_for_nor_a_third_of_all(self, encoder):
        axe = concept(**AXE)
        sizes = [
            len(names(find_neighbours(encoder, [axe], KNOWN, erased=[axe], count=count)))
            for count in (0, 1, 200)
        ]
        assert sizes == [0, 1, (len(NAMES) - 2) // 3]

    def test_a_model_that_does_not_say_what_it_draws_has_none(self, encoder):
        axe = concept(**AXE)
        assert find_neighbours(encoder, [axe], None, erased=[axe], count=9) == {}


class TestProtecting:
    def test_what_is_named_keeps_its_weight_and_what_is_erased_is_left_out(self):
        named = spec(textual={"protect": [{"name": "saw", "weight": 3}]})
        told = protecting(named, {"axe": ("saws", "dog", "loaves", "breads")}, [concept(**BREAD)])
        assert told.textual.protect == (
            Neighbour(name="saw", weight=3),
            Neighbour(name="dog"),
            Neighbour(name="loaves"),
        )

    def test_nothing_that_was_found_is_dropped_however_much_there_is(self):
        """Many models that are merged found more together than one may name."""
        many = spec(textual={"protect": [f"thing {n}" for n in range(MAX_SYNONYMS)]})
        found = {"axe": tuple(f"one {n}" for n in range(300)), "bread": ("dog",)}
        told = protecting(many, found, many.concepts)
        names = [one.name for one in told.textual.protect]
        assert len(names) == len(set(names)) == MAX_SYNONYMS + 301


@pytest.fixture(scope="module")
def base(tiny_folder, tmp_path_factory):
    folder = shutil.copytree(tiny_folder, tmp_path_factory.mktemp("knowing") / "tiny")
    (folder / "concepts.json").write_text(KNOWN.model_dump_json())
    return folder


@pytest.fixture(scope="module")
def make(base, tmp_path_factory):
    place, cache = tmp_path_factory.mktemp("erased"), tmp_path_factory.mktemp("cache")

    def make(name, *, merge=(), **fields):
        out = place / name
        if not out.exists():
            asked = {"textual": {"preserve": 0.02, "ridge": 1e-3}} if not merge else {}
            asked |= {"base_model": "tiny", "merge": merge} | fields
            erase(
                *(base, None, ErasureSpec.model_validate(asked), out, lambda _: None),
                model_id=name,
                cache=cache,
                merge=[place / one for one in merge],
            )
        return out

    return make


def found_in(folder) -> dict[str, tuple[str, ...]]:
    edit = Manifest.read(folder).edit
    assert edit is not None
    return edit.neighbours


def protected_in(folder) -> set[str]:
    _, kept = load_statistics(folder / "statistics.safetensors")
    return {group.name.removeprefix("neighbour: ") for group in kept.groups if group.is_neighbour}


def text_map(folder):
    return Erasure.load(folder / "erasure.safetensors").text_map


class TestErasing:
    def test_an_erasure_protects_them_and_writes_them_down(self, make):
        axe = make("axe", concepts=[AXE])
        assert len(names(found_in(axe))) == 2
        assert protected_in(axe) == set(names(found_in(axe)))
        assert Manifest.read(axe).edit.textual.protect == ()

    def test_they_stay_nearer_to_where_they_were(self, make, encoder):
        options = {"preserve": 0.02, "ridge": 1e-3}
        without = make("without", concepts=[AXE], textual=options | {"neighbours": 0})
        assert found_in(without) == {}

        axe = make("axe", concepts=[AXE])
        texts = [f"a photo of a {name}" for name in names(found_in(axe))]
        states = encoder.encode_all(texts).embeddings
        moved = [(states @ text_map(one).T - states).norm() for one in (axe, without)]
        assert moved[0] < moved[1]

    def test_naming_them_is_the_same(self, make):
        near = names(found_in(make("axe", concepts=[AXE])))
        options = {"preserve": 0.02, "ridge": 1e-3, "neighbours": 0, "protect": near}
        named = make("named", concepts=[AXE], textual=options)
        assert torch.equal(text_map(named), text_map(make("axe", concepts=[AXE])))

    def test_room_is_asked_for_what_may_be_found(self, base, tiny_folder):
        one = spec()
        knowing, silent = (needed(folder, one, one.concepts) for folder in (base, tiny_folder))
        assert knowing.disk_bytes > silent.disk_bytes

    def test_room_is_asked_for_what_is_taken_over(self, make, monkeypatch):
        make("axe", concepts=[AXE])
        asked = []
        monkeypatch.setattr("trainer.erase.check_room", lambda *given, **_: asked.append(given[2]))
        again = make("with-room", merge=["axe"])
        assert {one.name for one in asked[0].textual.protect} == set(names(found_in(again)))


class TestAlgebra:
    @pytest.fixture
    def no_reading(self, monkeypatch):
        def refuse(*_, **__):
            pytest.fail("a prompt was read")

        monkeypatch.setattr(PromptEncoder, "encode_all", refuse)
        monkeypatch.setattr("trainer.erase.load_prompt_encoder", refuse)

    def test_a_merge_takes_them_over_without_reading(self, make, request):
        one, other = make("axe", concepts=[AXE]), make("boat", concepts=[BREAD])
        request.getfixturevalue("no_reading")
        merged = make("merged", merge=["axe", "boat"])
        assert found_in(merged) == found_in(one) | found_in(other)

    def test_adding_finds_what_is_near_the_new_and_taking_out_lets_it_go(self, make):
        """Though the new concept is itself one that was found near the first."""
        axe = make("axe", concepts=[AXE])
        (near, *_) = found_in(axe)["axe"]
        added = make("added", merge=["axe"], concepts=[{"name": near, "replacement": "flower"}])
        assert set(found_in(added)) == {"axe", near}
        assert near not in protected_in(added)

        back = make("back", merge=["added"], remove=[near])
        assert json.dumps(found_in(back)) == json.dumps(found_in(axe))
        assert torch.equal(text_map(back), text_map(axe))
