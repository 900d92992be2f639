"""Eight erased models at once against one: they differ by a text map, so they share a batch."""

import statistics
import time
from typing import Any

import torch

from benchmarks.serving import load
from benchmarks.stack import Stack, running_stack
from core.edits import Edit
from core.installation import open_registry
from core.making import describe
from core.manifests import ModelStatus
from core.registrar import Registrar
from core.signing import Signer
from core.specs import Concept, TextualOptions
from core.version import CODE_VERSION
from diffusion.erasure import FILENAME, Erasure

VARIANTS = 8
CLIENTS = 32
ROUNDS = 3
SECONDS = 12.0
STRENGTH = 1e-3


def measure() -> dict[str, Any]:
    one, many = [], []
    with running_stack() as stack:
        urls = [stack.model_url(add_variant(stack, number)) for number in range(VARIANTS)]
        load.run(urls, clients=CLIENTS, seconds=3)  # every worker has loaded every model
        for turn in range(ROUNDS):
            for chosen, speeds in ((urls[:1], one), (urls, many)):
                run = load.run(chosen, clients=CLIENTS, seconds=SECONDS, seed=turn)
                speeds.append(run.pictures_per_s)
    ratios = [all_ / single for all_, single in zip(many, one, strict=True)]
    return {
        "variants_throughput_ratio": statistics.median(ratios),
        "detail": {"one_pictures_per_s": one, f"{VARIANTS}_pictures_per_s": many},
    }


def add_variant(stack: Stack, number: int) -> str:
    """Register an erased model whose map moves the text a little; its id."""
    registry = open_registry(stack.settings)
    base = registry.get("emoji")
    model_id = f"variant-{number}"
    folder = registry.making.begin(model_id)
    width = 256
    shift = torch.randn(width, width, generator=torch.Generator().manual_seed(number))
    Erasure(text_map=torch.eye(width) + STRENGTH * shift).save(folder / FILENAME)
    concept = Concept(name=f"thing {number}", replacement="apple")
    manifest = describe(
        folder,
        model_id=model_id,
        family=base.family,
        drawing=base.drawing,
        code_version=CODE_VERSION,
        status=ModelStatus.SERVING,
        edit=Edit(
            base_model=base.id,
            base_digest=base.content_digest,
            method="trce",
            concepts=(concept,),
            textual=TextualOptions(),
            seed=number,
            seconds=time.thread_time(),
        ),
    )
    Registrar(registry).add(manifest, folder, Signer.load(stack.settings.keys_dir))
    return model_id
