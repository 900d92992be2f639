"""The table of what each stage adds: a row for each, measured once, and the UNet as it was."""

import json

import pytest
import yaml
from PIL import Image

from diffusion.loading import load_base
from trainer.evaluation import stages_table
from trainer.evaluation.stages import Rows
from trainer.evaluation.styles import Colourless, style_suites
from trainer.trce.finetune import trainable

STEERING = {
    "steps": 2,
    "batch": 1,
    "anchors": 1,
    "trajectories": 2,
    "anchor_trajectories": 1,
    "kept_trajectories": 1,
    "trajectory_steps": 2,
}
DARK = {"name": "dark", "replacement": "dog"}


@pytest.fixture
def command(judged_base, tmp_path):
    def made(cases, **options):
        (tmp_path / "cases.yaml").write_text(yaml.safe_dump(cases))
        settings = {"steering": json.dumps(STEERING), "seeds": "2", "steps": "2"} | options
        return [
            *(str(tmp_path / "cases.yaml"), "--base", str(judged_base)),
            *("--rows", str(tmp_path / "rows.jsonl"), "--cache", str(tmp_path / "cache")),
            *(part for name, value in settings.items() for part in (f"--{name}", value)),
        ]

    return made


def names(output):
    rows = [line.split(" | ") for line in output.splitlines() if line.startswith("|")]
    assert len({len(row) for row in rows}) == 1
    return [row[0].removeprefix("| ") for row in rows]


EXPECTED = [
    "stages",
    "---",
    "base",
    "stage 1",
    "both, seed 0",
    "both, seed 1",
    "stage 2 alone, seed 0",
]


def test_it_has_a_row_for_each_and_changes_nothing_but_what_is_trained(
    command, judged_base, capsys, monkeypatch
):
    loaded = []

    def load(folder, manifest):
        loaded.append(load_base(folder, manifest))
        return loaded[-1]

    monkeypatch.setattr(stages_table, "load_base", load)
    assert stages_table.main(command([{"name": "drugs", "concepts": [DARK]}])) == 0

    assert names(capsys.readouterr().out) == EXPECTED
    fresh = load_base(judged_base, None).unet
    trained = trainable(loaded[0].unet)
    untouched = dict(fresh.named_parameters()).keys() - trained.keys()
    parameters = dict(loaded[0].unet.named_parameters())
    assert all(fresh.get_parameter(name).equal(parameters[name]) for name in untouched)


def test_what_was_measured_is_not_measured_again(command, capsys, monkeypatch):
    cases = [{"name": "drugs", "concepts": [DARK]}]
    assert stages_table.main(command(cases)) == 0
    first = capsys.readouterr().out
    monkeypatch.setattr("trainer.evaluation.stages._suite_cells", lambda *_: pytest.fail("asked"))

    assert stages_table.main(command(cases)) == 0
    assert capsys.readouterr().out == first


@pytest.mark.parametrize("digest", ["erasing_digest", "measuring_digest"])
def test_it_is_measured_again_when_the_code_has_changed(command, capsys, monkeypatch, digest):
    cases = [{"name": "drugs", "concepts": [DARK]}]
    assert stages_table.main(command(cases, seeds="0")) == 0
    monkeypatch.setattr(f"trainer.evaluation.stages.{digest}", lambda: "other sources")
    asked = []
    monkeypatch.setattr(
        "trainer.evaluation.stages._suite_cells", lambda *_: asked.append(1) or {"asked": "again"}
    )
    assert stages_table.main(command(cases, seeds="0")) == 0

    assert asked
    assert "again" in capsys.readouterr().out


def test_attacks_and_styles_have_columns(command, capsys):
    cases = [
        {"name": "attacked", "concepts": [DARK], "attacks": ["surface"]},
        {"name": "style", "concepts": [DARK], "style": {"erased": "ink", "other": "noto"}},
    ]
    short = {"seeds": "0", "budget": "1", "attacked": "1", "at-most": "2"}
    assert stages_table.main(command(cases, **short, only="attacked")) == 0
    assert "| surface |" in capsys.readouterr().out
    assert stages_table.main(command(cases, **short, only="style")) == 0
    assert "| in the style |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("cases", "options", "says"),
    [
        pytest.param([], {}, "at least 1", id="no cases"),
        pytest.param([{"name": "x", "presets": ["none"]}], {}, "no preset", id="no such preset"),
        pytest.param([{"name": "x", "attacks": ["magic"]}], {}, "0.attacks.0", id="no attack"),
        pytest.param(
            [{"name": "x"}], {"steering": '{"steps": 0}'}, "steering.steps", id="no steps"
        ),
        pytest.param(
            [{"name": "x", "textual": {"preserve": -1.0}}],
            {"textual": '{"preserve": 2.0}'},
            "textual.preserve",
            id="a case's own",
        ),
    ],
)
def test_what_cannot_be_is_told(command, capsys, cases, options, says):
    assert stages_table.main(command(cases, **options)) == 2
    assert says in capsys.readouterr().err


def test_a_file_of_rows_is_read_back(tmp_path):
    rows = Rows(tmp_path / "a/rows.jsonl")
    rows.add("k", "weapons", {"stages": "base"})

    assert rows.find("k") == {"stages": "base"}
    assert rows.find("other") is None


def test_pictures_without_colour_are_told_from_others():
    grey, red = (Image.new("RGB", (8, 8), colour) for colour in ("grey", "red"))
    [of_grey], [of_red] = ([*one.values()] for one in Colourless("ink").scores([grey, red]))

    assert (of_grey, of_red) == (1.0, 0.0)


def test_the_two_splits_ask_for_other_things(judged_base):
    known = stages_table.Judge.load(judged_base).concepts
    tuning, test = (
        {
            question.concept
            for question in style_suites(known, "ink", "noto", split, every=2)[0].questions
        }
        for split in ("tuning", "test")
    )
    assert tuning
    assert not tuning & test
