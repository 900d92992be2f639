"""The benchmark `eval-unlearn` itself runs an erased model, found by its entry point, offline."""

import csv
import tomllib
from pathlib import Path

import numpy as np
import pytest

from core.errors import Invalid
from trainer.evaluation.technique import ErasedModel

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
PROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
GROUP = "eval_unlearn.techniques"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The package's metadata as an installation writes it, wherever these tests run."""
    info = tmp_path / "site" / "trce_technique-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: trce-technique\nVersion: 1\n")
    lines = [f"{name} = {value}" for name, value in PROJECT["entry-points"][GROUP].items()]
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n" + "\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(str(info.parent))


def write_prompts(path, *prompts):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["prompt"], *([prompt] for prompt in prompts)])
    return str(path)


def test_the_benchmark_finds_it_draws_with_it_and_reports(
    installed, judged_base, erased_folder, tmp_path
):
    from eval_unlearn.datasets.ua_ira_csv import load_ua_ira_csv
    from eval_unlearn.registry import register_metric
    from eval_unlearn.runners.single_benchmark_runner import SingleBenchmarkRunner
    from eval_unlearn.types import MetricResult

    seen = []

    @register_metric("sizes")
    class Sizes:
        """A metric over local prompts; those that ship with the benchmark need the hub."""

        def __init__(self, target, retain):
            self._paths = target, retain

        def load_dataset(self):
            return load_ua_ira_csv(*self._paths, batch_size=2)

        def update(self, images, prompts, metadata):
            seen.extend(zip(prompts, metadata["categories"], images, strict=True))

        def compute(self):
            return MetricResult("sizes", float(len(seen)))

    runner = SingleBenchmarkRunner(
        "trce",
        "sizes",
        technique_config={
            "model": str(erased_folder),
            "base": str(judged_base),
            "erase_concept": "dark",
            "device": "cpu",
            "num_inference_steps": 2,
        },
        metric_config={
            "target": write_prompts(tmp_path / "target.csv", "a dark", "a night"),
            "retain": write_prompts(tmp_path / "retain.csv", "a dog"),
        },
        output_dir=str(tmp_path / "results"),
        seed=4,
    )
    report = runner.run()

    assert [(prompt, kind) for prompt, kind, _ in seen] == [
        ("a dark", "target"),
        ("a night", "target"),
        ("a dog", "retain"),
    ]
    assert all(picture.size == (16, 16) for _, _, picture in seen)
    assert (report["technique_name"], report["erase_concept"]) == ("trce", "dark")
    assert list((tmp_path / "results").rglob("*.png"))


@pytest.fixture
def technique(judged_base, erased_folder):
    return ErasedModel(
        model=str(erased_folder), base=str(judged_base), device="cpu", num_inference_steps=2
    )


def test_a_seed_gives_the_same_pictures_and_none_gives_others(technique):
    prompts = ["a dark", "a dark"]
    one, other = (technique.generate(prompts, seed=7) for _ in range(2))
    assert np.array_equal(one[0], other[0])
    assert not np.array_equal(one[0], one[1])
    assert not np.array_equal(
        technique.generate(prompts[:1])[0], technique.generate(prompts[:1])[0]
    )


def test_options_it_would_ignore_are_refused(technique):
    with pytest.raises(Invalid, match="negative_prompt"):
        technique.generate(["a dog"], seed=1, negative_prompt="axe")


def test_a_base_of_another_model_is_refused(tiny_folder, erased_folder):
    with pytest.raises(Invalid, match="made from another model"):
        ErasedModel(model=str(erased_folder), base=str(tiny_folder))
