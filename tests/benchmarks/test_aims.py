"""What is missed is said, and nothing else."""

import json

import pytest

from benchmarks.serving import __main__ as serving
from benchmarks.serving.aims import missed


def test_a_figure_that_misses_its_aim_is_named_with_it():
    figures = {"vs_bare_loop": 0.89, "idle_overhead_ms": 15.0, "load_ratio": 1.3}
    assert missed(figures) == [
        "vs_bare_loop is 0.890, not >= 0.9",
        "load_ratio is 1.300, not <= 1.2",
    ]
    assert missed({"vs_bare_loop": 0.90, "cpu_s_per_job": 9.0}) == []


def run(monkeypatch, tmp_path, figure: float) -> None:
    monkeypatch.setattr(serving, "OUT", tmp_path / "bench" / "serving.json")
    monkeypatch.setattr(serving, "draw", lambda *_: None)
    monkeypatch.setitem(serving.PARTS, "swap", lambda: {"swap_copy_ratio": figure, "detail": {}})
    monkeypatch.setattr("sys.argv", ["serving", "--only", "swap"])
    serving.main()


def test_a_run_that_misses_an_aim_ends_with_its_name(monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match=r"missed: swap_copy_ratio is 1\.600, not <= 1\.5"):
        run(monkeypatch, tmp_path, 1.6)
    kept = json.loads((tmp_path / "bench" / "serving.json").read_text())
    assert kept["swap_copy_ratio"] == 1.6


def test_a_run_answers_for_what_it_measured_alone(monkeypatch, tmp_path):
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "serving.json").write_text('{"vs_bare_loop": 0.5, "detail": {}}')
    run(monkeypatch, tmp_path, 1.4)
    kept = json.loads((tmp_path / "bench" / "serving.json").read_text())
    assert (kept["vs_bare_loop"], kept["swap_copy_ratio"]) == (0.5, 1.4)
