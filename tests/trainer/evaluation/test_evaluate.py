"""Whole evaluations, of a model that draws noise."""

import json
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from core.detection import DetectorSpec
from core.errors import DetectorFailed, DetectorNotUsable, Invalid, UntrustedModel
from core.evaluation import AttackSpec, EvaluationSpec
from core.importing import read_family
from core.making import describe
from core.manifests import Manifest
from core.reports import Report
from core.thresholds import ATTACKS
from diffusion.detectors.classifier import ClassifierDetector
from diffusion.erasure import Erasure
from trainer.evaluation import __main__ as command
from trainer.evaluation.album import Album
from trainer.evaluation.drawing import DrawingOptions, Order, Studio
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.page import page

DOCS = Path(__file__).parents[3] / "docs"


def run(judged_base, base_manifest, erased_folder, cache, report=lambda _: None, **fields):
    fields = {"num_inference_steps": 2, "split": "tuning"} | fields
    spec = EvaluationSpec(model="tiny-dark", **fields)
    return evaluate(
        *(judged_base, base_manifest, erased_folder, Manifest.read(erased_folder), spec, report),
        cache=cache,
        prompt_sets=cache,
    )


@pytest.fixture(scope="module")
def evaluated(judged_base, base_manifest, erased_folder, tmp_path_factory):
    attacks = tuple(AttackSpec(name=name, budget=2, prompts=1) for name in ATTACKS)
    seen = []
    found = run(
        *(judged_base, base_manifest, erased_folder, tmp_path_factory.mktemp("cache")),
        report=seen.append,
        attacks=attacks,
    )
    return found, seen


def test_every_figure_comes_from_the_outcomes(evaluated):
    report = evaluated[0].report
    assert [suite.name for suite in report.suites if suite.prompts] == [
        "explicit",
        "synonyms",
        "descriptions",
        "multi-concept",
        "ordinary",
    ]
    for suite in report.suites:
        shown = [one for one in suite.outcomes if one.base_shown]
        assert suite.base_rate.hits == len(shown) == suite.asr.total
        assert suite.asr.hits == sum(one.shown for one in shown)
        assert suite.kept is None or suite.kept.total == sum(
            bool(one.base_right) for one in suite.outcomes
        )


def test_black_box_and_white_box_are_told_apart(evaluated):
    access = {attack.name: attack.access for attack in evaluated[0].report.attacks}
    assert access == dict.fromkeys(ATTACKS[:3], "black-box") | dict.fromkeys(
        ATTACKS[3:], "white-box"
    )


def test_the_report_says_on_what_terms(evaluated, base_manifest, erased_folder):
    report = evaluated[0].report
    assert report.base.digest == base_manifest.content_digest
    assert report.model.digest == Manifest.read(erased_folder).content_digest
    assert report.detector.classes == ("dark",)
    assert report.target == ("dark",)
    assert report.costs.erasure.latency.change > 0
    assert Report.parse(report.to_bytes()) == report


def test_what_is_written_is_as_the_schema_says(evaluated):
    schema = json.loads((DOCS / "report.schema.json").read_text())
    written = json.loads(evaluated[0].report.to_bytes())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(written, schema)
    del written["suites"][0]["base_rate"]
    with pytest.raises(jsonschema.ValidationError, match="base_rate"):
        jsonschema.validate(written, schema)


def test_progress_never_runs_past_its_total(evaluated):
    seen = evaluated[1]
    assert {one.stage for one in seen} > {"drawing explicit", "attack surface"}
    assert all(one.done <= one.total for one in seen)


def test_the_page_holds_its_pictures(evaluated):
    html = page(evaluated[0])
    assert html.count("<figure") == 5
    assert "data:image/png;base64," in html
    assert "White-box attacks" in html
    assert "% longer than the base's" in html
    assert 'src="http' not in html


def test_a_report_is_enough_to_measure_again(
    evaluated, judged_base, base_manifest, erased_folder, tmp_path
):
    before = evaluated[0].report
    (tmp_path / "report.json").write_bytes(before.to_bytes())
    arguments = [str(tmp_path / "report.json"), "--base", str(judged_base)]
    arguments += ["--model", str(erased_folder), "--out", str(tmp_path / "out")]
    assert command.main([*arguments, "--cache", str(tmp_path), "--progress", "json"]) == 0

    after = Report.parse((tmp_path / "out/report.json").read_bytes())
    assert after.suites == before.suites
    assert [a.outcomes for a in after.attacks] == [a.outcomes for a in before.attacks]
    assert (tmp_path / "out/report.html").is_file()


def test_a_base_is_drawn_once_for_all_evaluations(
    judged_base, base_manifest, erased_folder, tmp_path
):
    fixed = {"suites": ("explicit", "ordinary")}
    first = run(judged_base, base_manifest, erased_folder, tmp_path, **fixed).report
    again = run(judged_base, base_manifest, erased_folder, tmp_path, **fixed).report
    assert (first.costs.pictures_drawn, first.costs.pictures_from_cache) == (4, 0)
    assert (again.costs.pictures_drawn, again.costs.pictures_from_cache) == (0, 4)
    assert again.suites == first.suites


def test_a_prompt_has_the_same_seed_however_many_are_asked(
    judged_base, base_manifest, erased_folder, tmp_path
):
    fixed = {"suites": ("multi-concept", "ordinary"), "prompt_files": ("some.csv",), "seed": 7}
    rows = "".join(f"{number}\n" for number in range(7))
    (tmp_path / "some.csv").write_text(f"sensitive prompt\n{rows}")
    full, few = (
        run(judged_base, base_manifest, erased_folder, tmp_path, at_most=most, **fixed).report
        for most in (None, 3)
    )
    asked = {(suite.name, one.prompt): one for suite in full.suites for one in suite.outcomes}
    thinned = [(suite.name, one) for suite in few.suites for one in suite.outcomes]
    assert [one.seed for name, one in thinned if name == "some.csv"] == [7, 10, 13]
    assert all(asked[name, one.prompt] == one for name, one in thinned)
    assert few.costs.pictures_drawn == 0


@pytest.mark.parametrize(
    ("fields", "error", "said"),
    [
        pytest.param({"target": ("cat",)}, Invalid, "nothing called cat", id="target"),
        pytest.param({"prompt_files": ("i2p.csv",)}, Invalid, "no prompt set", id="file"),
        pytest.param(
            {"detector": DetectorSpec(name="plugin:no")}, DetectorNotUsable, "'no'", id="plug-in"
        ),
        pytest.param(
            {"detector": DetectorSpec(name="probe")},
            DetectorNotUsable,
            "image encoder",
            id="probe",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_drawn(
    judged_base, base_manifest, erased_folder, tmp_path, fields, error, said
):
    with pytest.raises(error, match=said):
        run(judged_base, base_manifest, erased_folder, tmp_path, **fields)
    assert not (tmp_path / "pictures").exists()


def test_a_model_of_another_base_or_family_is_refused(
    judged_base, base_manifest, erased_folder, tmp_path
):
    other = base_manifest.model_copy(update={"files": {"unet/x": "0"}})
    with pytest.raises(Invalid, match="made from another model"):
        run(judged_base, other, erased_folder, tmp_path)
    xl = base_manifest.model_copy(update={"family": "sdxl"})
    with pytest.raises(Invalid, match="of the family sd1, tiny of sdxl"):
        run(judged_base, xl, erased_folder, tmp_path)


def test_suites_need_a_base_that_says_what_it_draws(tiny_folder, erased_folder, tmp_path):
    family, drawing = read_family(tiny_folder)
    base = describe(tiny_folder, model_id="tiny", family=family, drawing=drawing, code_version="0")
    model = shutil.copytree(erased_folder, tmp_path / "model")
    erased = Manifest.read(model)
    edit = erased.edit.model_copy(update={"base_digest": base.content_digest})
    erased.model_copy(update={"edit": edit}).write(model)

    with pytest.raises(Invalid, match=r"has no concepts\.json"):
        run(tiny_folder, base, model, tmp_path)


def test_a_detector_that_breaks_is_no_proof(
    judged_base, base_manifest, erased_folder, tmp_path, monkeypatch
):
    def broken(self, pictures):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(ClassifierDetector, "scores", broken)
    with pytest.raises(DetectorFailed, match="not judged"):
        run(judged_base, base_manifest, erased_folder, tmp_path, suites=("explicit",))


def test_a_wrong_request_file_is_named(tmp_path, capsys, judged_base):
    (tmp_path / "spec.json").write_text(json.dumps({"model": "x", "suites": ["explizit"]}))
    arguments = [str(tmp_path / "spec.json"), "--base", str(judged_base), "--out", str(tmp_path)]
    assert command.main([*arguments, "--cache", str(tmp_path), "--progress", "json"]) == 2
    assert "spec.json is wrong at suites.0" in capsys.readouterr().out


def test_changed_weights_are_worn_for_their_own_pictures_only(tiny, tmp_path):
    studio = Studio(tiny, DrawingOptions(num_inference_steps=2))
    album = Album(studio, tmp_path)
    name = "conv_out.bias"
    changed = Erasure(tensors={name: dict(tiny.unet.named_parameters())[name].detach() + 1})
    orders = [Order("a dog", 3, 5.0), Order("a dog", 3, 5.0)]
    first = album.pictures(orders, Erasure(), weights="base")
    other = album.pictures(orders, changed, weights="changed")
    (tmp_path / "base").rename(tmp_path / "away")
    again = album.pictures(orders, Erasure(), weights="base")
    studio.wear(Erasure())

    assert album.drawn == 3
    assert np.array_equal(first[0], first[1])
    assert np.array_equal(first[0], again[0])
    assert not np.array_equal(first[0], other[0])


def test_a_spoilt_picture_is_drawn_anew(tiny, tmp_path):
    album = Album(Studio(tiny, DrawingOptions(num_inference_steps=1)), tmp_path)
    [before] = album.pictures([Order("a dog", 0, 1.0)], Erasure(), weights="base")
    [path] = (tmp_path / "base").iterdir()
    path.write_bytes(b"half a picture")
    [after] = album.pictures([Order("a dog", 0, 1.0)], Erasure(), weights="base")
    assert np.array_equal(before, after)


def write_otherwise(file: Path) -> None:
    """Something as sound, with other contents."""
    match file.name:
        case "erasure.safetensors":
            Erasure().save(file)
        case "concepts.json":
            file.write_text(json.dumps(json.loads(file.read_text()), indent=4))
        case _:
            stored = bytearray(file.read_bytes())
            stored[-1] ^= 1
            file.write_bytes(stored)


@pytest.mark.parametrize(
    "name",
    ["model/erasure.safetensors", "base/concepts.json", "base/classifier/model.safetensors"],
)
def test_what_was_put_in_place_since_it_was_checked_is_not_measured(
    judged_base, base_manifest, erased_folder, tmp_path, name
):
    base = shutil.copytree(judged_base, tmp_path / "base")
    model = shutil.copytree(erased_folder, tmp_path / "model")
    write_otherwise(tmp_path / name)

    with pytest.raises(UntrustedModel, match="differs from its manifest"):
        run(base, base_manifest, model, tmp_path / "cache", suites=("explicit",))


def test_a_manifest_that_is_not_there_is_named(tmp_path, capsys, judged_base):
    (tmp_path / "spec.json").write_text(json.dumps({"model": "x"}))
    arguments = [str(tmp_path / "spec.json"), "--base", str(judged_base), "--out", str(tmp_path)]
    arguments += ["--cache", str(tmp_path), "--model-manifest", str(tmp_path / "gone.json")]

    assert command.main([*arguments, "--progress", "json"]) == 2
    assert "gone.json cannot be read" in capsys.readouterr().out
