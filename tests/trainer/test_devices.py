"""A device that is not there is told before anything is read, and as one line."""

import pytest
import torch
import yaml

from core.errors import Invalid
from trainer.__main__ import FAILED, main
from trainer.devices import check_device

SPEC = {"base_model": "tiny", "concepts": [{"name": "axe", "replacement": "flower"}]}


@pytest.mark.parametrize(
    ("device", "says"),
    [
        pytest.param(
            "cuda",
            "no CUDA device",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here"),
        ),
        ("foo", "no device 'foo'"),
        ("cuda:-3", "no device"),
        ("meta", "nothing here runs on meta"),
    ],
)
def test_a_device_that_is_not_there_is_told(
    tiny_folder, tmp_path, capsys, monkeypatch, device, says
):
    monkeypatch.setattr("trainer.erase.load_prompt_encoder", lambda *a, **k: pytest.fail("read"))
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(SPEC))
    words = ("--base", tiny_folder, "--out", tmp_path / "out", "--device", device)
    assert main([str(word) for word in (tmp_path / "spec.yaml", *words)]) == FAILED

    assert says in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_a_gpu_beyond_the_last_is_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_device("cuda:1")
    with pytest.raises(Invalid, match="no cuda:2; this machine has 2"):
        check_device("cuda:2")


def test_the_cpu_is_always_there():
    check_device("cpu")
    check_device(torch.device("cpu"))
