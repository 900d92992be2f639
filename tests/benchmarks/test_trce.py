"""`make bench-trce`: both sides compute the same, and a broken promise is no success."""

import json

import pytest
import torch

from benchmarks import published, trce
from core.specs import SteeringOptions
from diffusion.erasure import Erasure
from diffusion.loading import load_base
from diffusion.prompts import PromptEncoder
from tests.tiny_model import make_model
from trainer.trce.finetune import trainable
from trainer.trce.statistics import Statistics
from trainer.trce.texts import Texts
from trainer.trce.textual import text_map
from trainer.trce.tokens import TokenPairs

KEPT = {
    "stage1_speedup": 145.0,
    "stage1_max_error": 2e-15,
    "stage2_speedup": 6.0,
    "stage2_memory_ratio": 0.47,
}


def test_solving_each_layer_is_one_map_for_all():
    draw = torch.Generator().manual_seed(0)

    def rows(count: int, width: int = 12):
        return torch.randn(count, width, dtype=torch.float64, generator=draw)

    unsafe, safe, captions = rows(20), rows(20), rows(60)
    kept = captions.T @ captions / len(captions)
    weights = [rows(7), rows(9)]
    pairs = TokenPairs(unsafe, safe, torch.ones(20, dtype=torch.float64))
    edit = text_map(Statistics.of(pairs), kept, preserve=2.0, ridge=0.1)
    solved = published.solve_each_layer(weights, unsafe, safe, kept, preserve=2.0, ridge=0.1)

    for weight, one in zip(weights, solved, strict=True):
        torch.testing.assert_close(one, weight @ edit.text_map, rtol=0, atol=1e-10)
        assert (one - weight).abs().max() > 1e-3


def test_the_published_procedure_trains_what_ours_trains(tmp_path):
    model = load_base(make_model(tmp_path / "tiny"), None)
    encoder = PromptEncoder(model.tokenizer, model.text_encoder)
    unsafe, safe, empty = (
        Texts.read(encoder, prompts).embeddings for prompts in (["an axe"], ["a flower"], [""])
    )
    options = SteeringOptions(
        steps=2, batch=1, anchors=2, learning_rate=1e-3, trajectories=2, trajectory_steps=4
    )
    trained = published.steer(
        *(model.unet, model.scheduler_config, unsafe, safe, empty[0], Erasure(), options), seed=0
    )
    before = dict(model.unet.named_parameters())
    moved = {name for name, one in trained.named_parameters() if not one.equal(before[name])}
    assert moved
    assert moved <= set(trainable(trained))


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Runs it, with figures in place of the children that measure."""

    def run(**changed):
        sides = {
            "stage-1": [{"map_s": 1.0, "folding_s": 1.0, "published_s": 145.0, "max_error": 0.0}],
            "stage-2": [{"seconds": 1.0, "memory_bytes": one} for one in (40, 90, 45)],
            "stage-2-published": [{"seconds": 6.0, "memory_bytes": 100}] * 3,
        }
        figures = {
            name: [one | {"libraries_bytes": 0} | changed.get(name, {}) for one in runs]
            for name, runs in sides.items()
        }
        monkeypatch.setattr(trce, "OUT", tmp_path / "trce.json")
        monkeypatch.setattr(trce, "_child", lambda measure: figures[measure].pop(0))
        monkeypatch.setattr("sys.argv", ["trce"])
        return trce.main(), json.loads((tmp_path / "trce.json").read_text())

    return run


def test_its_result_is_that_of_the_median_run(measured):
    code, result = measured()

    assert code == 0
    assert set(KEPT) <= set(result)
    assert result["stage2_memory_ratio"] == 0.45
    assert result["stage2_speedup"] == 6.0


def test_a_missed_bound_is_no_success(measured, capsys):
    code, result = measured(**{"stage-1": {"published_s": 99.0}})

    assert code == 1
    assert result["stage1_speedup"] == 99.0
    assert "stage1_speedup is 99, and at least 100 is promised" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stage1_speedup", 99.9),
        ("stage1_max_error", 1.1e-10),
        ("stage2_speedup", 4.9),
        ("stage2_memory_ratio", 0.51),
    ],
)
def test_each_promise_counts(name, value):
    assert trce.missed(KEPT) == []
    [line] = trce.missed(KEPT | {name: value})
    assert line.startswith(name)
