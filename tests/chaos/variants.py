"""The models that there are before a run begins: a base, and two that were erased from it.

One differs from the base by a map of text, as stage 1 leaves it, and shares passes with the base;
one in its UNet as well, as stage 2 leaves it, so that weights are swapped for it and back.
"""

import torch
from torch import Tensor

from core.making import describe
from core.manifests import Manifest, ModelStatus
from core.registrar import Registrar
from core.registry import ModelRegistry
from core.signing import Signer
from core.version import CODE_VERSION
from diffusion.erasure import FILENAME, Erasure, write_unet
from diffusion.loading import load_base
from tests.edits import pistol_edit
from tests.tiny_model import WIDTH
from trainer.trce.finetune import trainable

MODEL, MAPPED, CHANGED = "tiny", "tiny-mapped", "tiny-changed"
KIND_OF_MODEL = {MODEL: "base", MAPPED: "text map", CHANGED: "changed weights"}
SHIFT = 0.5
"""Of each changed weight, in standard deviations of a normal one: the pictures differ visibly."""


def add_erased(base: Manifest, registry: ModelRegistry, signer: Signer) -> list[Manifest]:
    """Make both of a base, sign and promote them."""
    generator = torch.Generator().manual_seed(0)
    mapped = Erasure(text_map=_text_map(generator))
    changed = Erasure(text_map=_text_map(generator), tensors=_tensors(base, registry, generator))
    return [
        _add(model_id, erasure, base, registry, signer)
        for model_id, erasure in ((MAPPED, mapped), (CHANGED, changed))
    ]


def _text_map(generator: torch.Generator) -> Tensor:
    return torch.eye(WIDTH) + torch.randn(WIDTH, WIDTH, generator=generator)


def _tensors(
    base: Manifest, registry: ModelRegistry, generator: torch.Generator
) -> dict[str, Tensor]:
    """Of the parameters that stage 2 changes, in the dtype that it leaves them in."""
    unet = load_base(registry.path(base.id), None).unet
    return {
        name: (one.detach() + SHIFT * torch.randn(one.shape, generator=generator)).half()
        for name, one in trainable(unet).items()
    }


def _add(
    model_id: str, erasure: Erasure, base: Manifest, registry: ModelRegistry, signer: Signer
) -> Manifest:
    folder = registry.making.begin(model_id)
    erasure.save(folder / FILENAME)
    # For other programs; a worker digests it while it draws, and lets nothing out before.
    write_unet(registry.path(base.id) / "unet", erasure, folder / "unet")
    made = describe(
        folder,
        model_id=model_id,
        family=base.family,
        drawing=base.drawing,
        code_version=CODE_VERSION,
        edit=pistol_edit(base),
        status=ModelStatus.CANDIDATE,
    )
    registrar = Registrar(registry)
    registrar.add(made, folder, signer)
    return registrar.set_status(model_id, ModelStatus.SERVING, signer)
