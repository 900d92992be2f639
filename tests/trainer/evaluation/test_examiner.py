import json
import shutil

import numpy as np
import pytest
import torch

from core.rates import Rate
from diffusion.erasure import Erasure
from diffusion.model_concepts import ModelConcepts
from tests.tiny_model import WIDTH
from trainer.evaluation import erasure_table
from trainer.evaluation.drawing import DrawingOptions, Studio
from trainer.evaluation.examiner import Examiner
from trainer.evaluation.prompt_sets import erased_sets, other_set

CONCEPTS = {
    "concepts": [
        {
            "name": "axe",
            "group": "weapon",
            "article": "an",
            "descriptions": ["a photo on the axe"],
        },
        {"name": "dog", "group": "animal", "article": "a"},
        {"name": "flower", "group": "plant", "article": "a"},
    ]
}
KNOWN = ModelConcepts.model_validate(CONCEPTS)


@pytest.fixture
def studio(tiny):
    return Studio(tiny, DrawingOptions(num_inference_steps=2, guidance_scale=5.0, seed=4))


def arrays(pictures):
    return [np.asarray(picture, dtype=int) for picture in pictures]


def test_a_prompt_is_drawn_from_its_place_whoever_stands_around_it(studio):
    many = arrays(studio.draw(["a dog", "an axe"] * 20, Erasure()))
    one = arrays(studio.draw(["a dog", "an axe"], Erasure()))
    assert len(many) == 40
    for i in range(2):
        assert abs(many[i] - one[i]).max() <= 1
    assert abs(many[2] - many[0]).max() > 1


def test_an_erasure_acts_on_prompt_and_empty_prompt_alike(studio, tiny):
    """A map to zero makes all prompts one, so guidance has nothing to add."""
    nothing = Erasure(text_map=torch.zeros(WIDTH, WIDTH))
    unguided = Studio(tiny, DrawingOptions(num_inference_steps=2, guidance_scale=1.0, seed=4))
    [guided] = arrays(studio.draw(["an axe"], nothing))
    [plain] = arrays(unguided.draw(["a dog"], nothing))
    assert abs(guided - plain).max() <= 1


class ObedientJudge:
    """Sees an axe in every second picture it is ever shown, else a dog."""

    concepts = KNOWN

    def __init__(self):
        self.seen = 0

    def names(self, pictures):
        first, self.seen = self.seen, self.seen + len(pictures)
        return ["axe" if n % 2 else "dog" for n in range(first, self.seen)]

    def shows(self, pictures, group):
        return [name in KNOWN.members(group) for name in self.names(pictures)]


def test_rates_count_what_the_judge_sees(studio):
    examiner = Examiner(
        studio,
        ObedientJudge(),
        "weapon",
        erased=erased_sets(KNOWN, "weapon", "tuning", told=["axe"]),
        others=other_set(KNOWN, "weapon"),
    )
    rates = examiner.examine(Erasure())

    assert rates["names"] == Rate(0, 1)
    assert rates["captioned descriptions"] == Rate(1, 1)
    assert rates["unseen descriptions (tuning)"] == Rate(0, 0)
    assert rates["others"] == Rate(1, 2)
    assert list(rates)[-1] == "others"


@pytest.fixture
def judged_folder(tiny_folder, tmp_path, monkeypatch):
    folder = shutil.copytree(tiny_folder, tmp_path / "judged")
    (folder / "concepts.json").write_text(json.dumps(CONCEPTS))
    monkeypatch.setattr("diffusion.judge.Judge.load", lambda folder: ObedientJudge())
    return folder


def test_the_table_has_a_row_for_the_base_and_one_for_each_setting(
    judged_folder, capsys, tmp_path
):
    command = ["--base", str(judged_folder), "--preset", "drugs", "--group", "weapon"]
    command += ["--cache", str(tmp_path / "moments")]
    settings = ["--settings", "{}", "--settings", '{"preserve": 50}']
    assert erasure_table.main([*command, *settings]) == 0

    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert [row[0].removeprefix("| ") for row in rows] == [
        "setting",
        "---",
        "`base`",
        "`{}`",
        '`{"preserve": 50}`',
    ]
    assert len({len(row) for row in rows}) == 1


def test_a_setting_that_is_none_is_refused(judged_folder, capsys):
    command = ["--base", str(judged_folder), "--preset", "drugs", "--group", "weapon"]
    assert erasure_table.main([*command, "--settings", '{"preserve": -1}']) == 2
    assert "greater than 0" in capsys.readouterr().err
