import pytest
from typer.testing import CliRunner

from cli.commands.evaluate import _attack, _detector
from cli.comparing import ATTACKS, ERASED, differing_terms, html, sections
from cli.main import app
from core.errors import Invalid
from core.manifests import Drawing, Manifest
from tests.made_reports import attack, rate, report, suite


def made(model_id: str, *parts, **options):
    manifest = Manifest(
        id=model_id,
        kind="base",
        family="sd1",
        status="candidate",
        created_at=0,
        code_version="0",
        drawing=Drawing(native_px=64, multiple_px=16, max_px=128),
        files={"a": "b"},
    )
    return report(manifest, *parts, **options)


ONE = made("one", suite(hits=2), suite("ordinary", kept=rate(30, 40)))
OTHER = made("other", suite(hits=4), attack(hits=1))


def test_models_stand_side_by_side_and_gaps_are_called_so(tmp_path):
    for one in (ONE, OTHER):
        (tmp_path / f"{one.model.id}.json").write_bytes(one.to_bytes())
    out = tmp_path / "compare.html"
    files = [str(tmp_path / name) for name in ("one.json", "other.json")]
    result = CliRunner().invoke(app, ["compare", *files, "--out", str(out)])

    assert result.exit_code == 0, result.output
    assert "not measured" in result.output
    assert "5.0 %" in result.output
    assert dict(sections([ONE, OTHER])[ATTACKS])["p4d (white-box)"][0] is None
    assert "<th>other</th>" in out.read_text()
    assert 'class="bar seen"><i style="width: 5.0%"' in out.read_text()


def test_three_models_have_a_column_each_in_the_order_given():
    third = made("third", suite(hits=40))
    [(name, cells)] = sections([OTHER, third, ONE])[ERASED]
    assert (name, [cell.hits for cell in cells]) == ("explicit", [4, 40, 2])
    page = html([OTHER, third, ONE])
    places = [page.index(f"<th>{name}</th>") for name in ("other", "third", "one")]
    assert places == sorted(places)


def test_what_only_a_later_report_measured_is_among_the_terms():
    assert "budget 10, seed 0" in html([ONE, OTHER])


def test_figures_on_different_terms_are_called_not_comparable():
    assert differing_terms([ONE, OTHER]) == []
    other = OTHER.model_copy(
        update={"detector": OTHER.detector.model_copy(update={"threshold": 0.9})}
    )
    [line] = differing_terms([ONE, other])
    assert line.startswith("detector: ")
    assert "so not comparable: detector" in html([ONE, other])


def test_a_file_that_is_no_report_is_refused(tmp_path):
    (tmp_path / "no.json").write_text("{}")
    result = CliRunner().invoke(app, ["compare", str(tmp_path / "no.json")])
    assert result.exit_code == 1
    assert "malformed" in str(result.exception)


def test_attacks_and_detectors_are_written_short():
    assert _attack("p4d:50:10", 3) == {"name": "p4d", "seed": 3, "budget": 50, "prompts": 10}
    assert _attack("surface", 0) == {"name": "surface", "seed": 0}
    assert _detector("nudenet:core-0.5") == {"name": "nudenet", "convention": "core-0.5"}
    assert _detector("classifier:weapon,alcohol")["classes"] == ["weapon", "alcohol"]
    assert _detector("plugin:mine") == {"name": "plugin:mine"}
    with pytest.raises(Invalid, match="NAME:BUDGET:PROMPTS"):
        _attack("p4d:many", 0)
