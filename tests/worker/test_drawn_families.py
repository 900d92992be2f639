"""A worker draws with every family, erased or not, each in its own way of reading a prompt."""

import shutil

import pytest
import torch

from core.importing import import_base
from core.jobs import JobState
from core.manifests import ModelStatus
from core.registrar import Registrar
from core.signing import Signer
from core.specs import ErasureSpec
from tests.tiny_model import FAMILIES, SIDE_PX, make_model
from trainer.erase import erase
from worker.shelf import Shelf

SPEC = {"concepts": [{"name": "axe", "replacement": "flower"}], "textual": {"preserve": 0.02}}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_base_and_what_was_erased_from_it_are_drawn_by_one_worker(
    family, settings, registry, jobs, submit, make_batcher, tmp_path
):
    signer = Signer.load(settings.keys_dir)
    base = import_base(
        make_model(tmp_path / family, family=family), f"tiny-{family}", registry, signer
    )
    spec = ErasureSpec.model_validate(SPEC | {"base_model": base.id})
    made = erase(
        *(registry.path(base.id), base, spec, tmp_path / "erased", lambda _: None),
        model_id="erased",
    )
    scratch = registry.making.begin("erased")
    scratch.rmdir()
    shutil.copytree(tmp_path / "erased", scratch)
    Registrar(registry).add(made, scratch, signer)
    Registrar(registry).set_status("erased", ModelStatus.SERVING, signer)

    size = {"width": SIDE_PX, "height": SIDE_PX}
    ids = [submit("a photo of an axe", model=model, **size) for model in (base.id, "erased")]
    shelf = Shelf(registry, device=torch.device("cpu"), dtype=torch.float32)
    make_batcher(shelf=shelf).drain()

    for job_id in ids:
        job = jobs.get(job_id)
        assert job.state is JobState.SUCCEEDED, job.reason
    plain, erased = (shelf.variant(model).embed("an axe") for model in (base.id, "erased"))
    assert not torch.equal(plain.embedding, erased.embedding)
    assert (plain.pooled is None) == (family != "sdxl")
    if family == "sdxl":
        assert not torch.equal(plain.pooled, erased.pooled)
