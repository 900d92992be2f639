"""Erased models of the tiny base, made without training: in a moment, and visibly different."""

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

SHIFT = 0.5
"""Of each changed weight, in standard deviations of a normal one: the pictures differ visibly."""


def add_erased(
    model_id: str,
    base: Manifest,
    registry: ModelRegistry,
    signer: Signer,
    *,
    seed: int,
    changes_weights: bool,
) -> Manifest:
    """Make one, sign it and promote it.

    Args:
        changes_weights: as stage 2 does, so that weights are swapped for it and back; without, it
            has a map of text alone, as stage 1 leaves it, and shares passes with the base.
    """
    generator = torch.Generator().manual_seed(seed)
    erasure = Erasure(
        text_map=torch.eye(WIDTH) + torch.randn(WIDTH, WIDTH, generator=generator),
        tensors=_tensors(base, registry, generator) if changes_weights else {},
    )
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


def _tensors(
    base: Manifest, registry: ModelRegistry, generator: torch.Generator
) -> dict[str, Tensor]:
    """Of the parameters that stage 2 changes, in the dtype that it leaves them in."""
    unet = load_base(registry.path(base.id), None).unet
    return {
        name: (one.detach() + SHIFT * torch.randn(one.shape, generator=generator)).half()
        for name, one in trainable(unet).items()
    }
