"""A base that draws noise and says that it draws dark and bright things, and an erased model."""

import json
from pathlib import Path

import pytest
import torch

from core.edits import Edit
from core.importing import read_family
from core.making import describe
from core.manifests import Manifest
from core.specs import Concept, TextualOptions
from diffusion.erasure import FILENAME, Erasure
from tests.tiny_judge import write_judge
from tests.tiny_model import WIDTH, make_model

CONCEPTS = {
    "concepts": [
        {
            "name": "dark",
            "group": "light",
            "article": "a",
            "synonyms": ["night"],
            "held_out_synonyms": ["black"],
            "tuning_descriptions": ["no light at all"],
            "test_descriptions": ["when lamps are out"],
        },
        {"name": "bright", "group": "light", "groups": ["bright ones"], "article": "a"},
    ]
}


@pytest.fixture(scope="session")
def judged_base(tmp_path_factory) -> Path:
    folder = make_model(tmp_path_factory.mktemp("judged") / "base")
    write_judge(folder)
    (folder / "concepts.json").write_text(json.dumps(CONCEPTS))
    return folder


@pytest.fixture(scope="session")
def base_manifest(judged_base) -> Manifest:
    family, drawing = read_family(judged_base)
    return describe(judged_base, model_id="tiny", family=family, drawing=drawing, code_version="0")


@pytest.fixture(scope="session")
def erased_folder(tmp_path_factory, judged_base, base_manifest) -> Path:
    folder = tmp_path_factory.mktemp("erased")
    Erasure(text_map=torch.zeros(WIDTH, WIDTH)).save(folder / FILENAME)
    edit = Edit(
        base_model="tiny",
        base_digest=base_manifest.content_digest,
        method="trce",
        concepts=(Concept(name="dark", synonyms=("night",), replacement="dog"),),
        textual=TextualOptions(),
        seed=0,
        seconds=1,
    )
    describe(
        folder,
        model_id="tiny-dark",
        family=base_manifest.family,
        drawing=base_manifest.drawing,
        code_version="0",
        edit=edit,
    ).write(folder)
    return folder
