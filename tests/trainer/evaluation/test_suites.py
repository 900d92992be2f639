import json

import pytest

from core.errors import Invalid
from core.settings import SHIPPED_MODELS
from diffusion.model_concepts import ModelConcepts
from trainer.evaluation.prompt_files import read_prompt_file
from trainer.evaluation.suites import built_in, classes_of, targets_of

KNOWN = ModelConcepts.of(SHIPPED_MODELS / "emoji")
NAMES = ("explicit", "synonyms", "descriptions", "multi-concept", "neighbours", "ordinary")


@pytest.fixture(scope="module")
def weapons():
    return targets_of(KNOWN, ["weapon"])


@pytest.fixture(scope="module")
def suites(weapons, encoder):
    return {
        (name, split): built_in(name, KNOWN, weapons, encoder, split, seed=0)
        for name in NAMES
        for split in ("tuning", "test")
    }


@pytest.mark.parametrize("name", NAMES)
def test_no_prompt_of_the_test_split_is_a_tuning_prompt(suites, name):
    tuning, test = (
        {q.prompt for q in suites[name, split].questions} for split in ("tuning", "test")
    )
    assert tuning
    assert test
    assert tuning.isdisjoint(test)


@pytest.mark.parametrize("name", NAMES)
def test_a_suite_asks_for_what_was_erased_or_for_anything_else(suites, weapons, name):
    suite = suites[name, "test"]
    targets = {concept.name for concept in weapons}
    kept = name in {"neighbours", "ordinary"}
    assert suite.kind == ("kept" if kept else "erased")
    assert all((question.concept in targets) is not kept for question in suite.questions)


def test_kept_things_are_either_near_or_ordinary(suites, weapons):
    near, ordinary = (
        {q.concept for q in suites[name, "test"].questions} for name in ("neighbours", "ordinary")
    )
    assert near.isdisjoint(ordinary)
    assert len(near) == 30
    assert len(near) + len(ordinary) + len(weapons) == len(KNOWN.concepts)


def test_two_concepts_are_named_in_either_order(suites, weapons):
    questions = suites["multi-concept", "test"].questions
    assert len(questions) == 3 * len(weapons)
    firsts = {
        question.prompt.split(" and ")[0].endswith(question.concept) for question in questions
    }
    assert firsts == {True, False}


def test_descriptions_do_not_name_the_concept(suites):
    for question in suites["descriptions", "test"].questions:
        assert question.concept not in question.prompt.split()


def test_the_digest_tells_every_change(suites):
    suite = suites["explicit", "test"]
    assert suite.digest == suites["explicit", "test"].digest
    assert suite.thinned(5).digest != suite.digest
    assert len(suite.thinned(5).questions) <= 5
    assert suite.thinned(None) is suite


def test_targets_are_found_by_name_synonym_and_group():
    assert {c.name for c in targets_of(KNOWN, ["a handgun"])} == {"pistol"}
    assert "pistol" in {c.name for c in targets_of(KNOWN, ["firearm"])}
    with pytest.raises(Invalid, match="draws nothing called a unicorn's wig"):
        targets_of(KNOWN, ["a unicorn's wig"])


def test_a_detector_looks_for_whole_groups_where_it_can(weapons):
    assert classes_of(KNOWN, weapons) == ("weapon",)
    some = targets_of(KNOWN, ["firearm", "cat"])
    assert set(classes_of(KNOWN, some)) == {"firearm", "cat"}


HEADERS = {
    "i2p": ("prompt,categories,sd_seed,sd_guidance_scale,hard", "a cat,shocking,123,7.5,0"),
    "mma": ("target_prompt,adv_prompt,sanitized_adv_prompt", "a cat,c4t qq,c4t"),
    "ring-a-bell": (",sensitive prompt", "0,qq zz"),
    "coco": ("case_number,prompt,evaluation_seed,coco_id", "1,a cat,123,42"),
    "unlearn-diff": (
        "case_number,prompt,evaluation_seed,evaluation_guidance,categories",
        "1,a cat,123,7.5,x",
    ),
    "p4d": ("case_number,prompt,evaluation_seed,evaluation_guidance", "1,a cat,123,7.5"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_public_sets_are_known_by_their_columns(tmp_path, name):
    path = tmp_path / "some.csv"
    path.write_text("\n".join(HEADERS[name]) + "\n")
    suite = read_prompt_file(path)
    [question] = suite.questions
    assert (suite.name, suite.source) == ("some.csv", name)
    assert suite.kind == ("kept" if name == "coco" else "erased")
    seeded = name not in {"mma", "ring-a-bell"}
    assert question.seed == (123 if seeded else None)
    assert question.guidance_scale == (7.5 if name in {"i2p", "p4d", "unlearn-diff"} else None)


def test_the_adversarial_prompt_is_asked_not_what_it_stands_for(tmp_path):
    path = tmp_path / "mma.csv"
    path.write_text("\n".join(HEADERS["mma"]))
    assert read_prompt_file(path).questions[0].prompt == "c4t qq"


def test_json_lines_are_read_too(tmp_path):
    path = tmp_path / "captions.jsonl"
    path.write_text(json.dumps({"image_id": 1, "caption": "a cat"}) + "\n\n")
    assert read_prompt_file(path).kind == "kept"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        pytest.param(
            "a.csv", "prompts,x\nq,1\n", r"a\.csv has the columns prompts, x", id="columns"
        ),
        pytest.param(
            "a.csv", "prompt,categories,sd_seed\nq,x,1.5\n", "row 2, column 'sd_seed'", id="seed"
        ),
        pytest.param(
            "a.csv", "prompt,categories,sd_seed\nq,x,-1\n", "'-1' is no number", id="range"
        ),
        pytest.param(
            "a.csv", "sensitive prompt\nq\n \n", "row 3, column 'sensitive prompt'", id="empty"
        ),
        pytest.param("a.csv", "sensitive prompt\nq,r\n", "row 2: more cells", id="cells"),
        pytest.param("a.csv", "sensitive prompt\n", "holds no rows", id="no rows"),
        pytest.param("a.jsonl", '{"a": 1}\n{', "a.jsonl, row 2: no JSON", id="json"),
        pytest.param(
            "a.csv",
            "prompt,evaluation_seed,evaluation_guidance\nq,1,high\n",
            "row 2, column 'evaluation_guidance': 'high' is no number from 0 to 30",
            id="guidance",
        ),
        pytest.param(
            "a.csv",
            "prompt,categories,sd_seed\nq,x,1\n\nq\n,x,2\n",
            "row 5, column 'prompt'",
            id="after an empty line",
        ),
        pytest.param(
            "a.jsonl",
            '{"image_id": 1, "caption": "q"}\n{"image_id": 2}',
            "a.jsonl, row 2, column 'caption': no prompt",
            id="a row without the column",
        ),
        pytest.param("a.csv", "sensitive prompt\n\0\n", "holds a NUL character", id="NUL"),
        pytest.param("a.jsonl", "[]", "row 1: no JSON object", id="list"),
        pytest.param("a.txt", "q", r"\.csv or \.jsonl", id="suffix"),
        pytest.param("a.csv", b"sensitive prompt\n\xff\n", "cannot be read as UTF-8", id="bytes"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_row_and_column(tmp_path, name, text, said):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(Invalid, match=said):
        read_prompt_file(tmp_path / name)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(Invalid, match=r"no prompt set i2p\.csv"):
        read_prompt_file(tmp_path / "i2p.csv")
