"""A tiny model, loaded once; tests that change its weights take a copy."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from diffusion.loading import Components, load_base
from diffusion.prompts import PromptEncoder
from tests.tiny_model import make_model

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("tiny") / "tiny")


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> Components:
    return load_base(tiny_folder, None)


@pytest.fixture
def unet(tiny: Components):
    return copy.deepcopy(tiny.unet)


@pytest.fixture(scope="session")
def encoder(tiny: Components) -> PromptEncoder:
    return PromptEncoder(tiny.tokenizer, tiny.text_encoder)


@pytest.fixture(
    params=[
        (torch.OutOfMemoryError, "CUDA out of memory. Tried to allocate 2.00 GiB"),
        (RuntimeError, "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
    ids=["gpu", "cpu"],
)
def no_room(request: pytest.FixtureRequest) -> Callable[[], RuntimeError]:
    """Makes the error that torch raises there when memory has run out."""
    kind, message = request.param
    return lambda: kind(message)
