"""An erased model as a technique of the benchmark `eval-unlearn`, by its entry point `trce`.

    eval-unlearn ... --technique trce   with model and base: two folders

The benchmark asks for `generate(prompts, seed)` and sees pictures; whichever method erased the
model is in its manifest.
"""

import secrets
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from core.errors import Invalid
from core.importing import read_family
from core.making import describe
from core.manifests import Manifest
from core.model_folder import MANIFEST
from core.version import CODE_VERSION
from diffusion.erasure import FILENAME as ERASURE
from diffusion.erasure import Erasure
from diffusion.loading import load_base
from trainer.evaluation.drawing import DrawingOptions, Order, Studio
from trainer.evaluation.evaluate import check_belong_together

SEEDS = 2**32


class ErasedModel:
    def __init__(
        self,
        *,
        model: str,
        base: str,
        erase_concept: str | None = None,
        device: str | None = None,
        num_inference_steps: int = 20,
        guidance_scale: float = 5.0,
    ) -> None:
        """
        Args:
            model: folder of an erased model.
            base: folder of the model it was made from.
            erase_concept: for the benchmark's records; what was erased stands in the manifest.

        Raises:
            Invalid: the two do not belong together.
            UntrustedModel, ModelUnsupported.
        """
        manifest = Manifest.read(Path(model))
        manifest.check_files(Path(model))
        if manifest.edit is None:
            raise Invalid(f"{manifest.id} is a base model; name an erased one")
        described = _base(Path(base), manifest.edit.base_model)
        check_belong_together(described, manifest)
        wanted = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.erase_concept = erase_concept
        self._erasure = Erasure.load(Path(model) / ERASURE)
        self._studio = Studio(
            load_base(Path(base), described, device=wanted),
            DrawingOptions(num_inference_steps, guidance_scale),
        )

    def generate(
        self, prompts: Sequence[str], seed: int | None = None, **options: object
    ) -> list[Image.Image]:
        """A picture for each prompt, number i from seed + i, or from seeds of its own.

        Raises:
            Invalid: options that this technique does not take.
            PictureNotFinite.
        """
        if options:
            raise Invalid(
                f"{', '.join(sorted(options))}: steps and guidance are the technique's, not each "
                "call's"
            )
        first = secrets.randbelow(SEEDS) if seed is None else seed
        guidance = self._studio.options.guidance_scale
        orders = [Order(prompt, first + place, guidance) for place, prompt in enumerate(prompts)]
        return self._studio.draw_orders(orders, self._erasure)


def _base(folder: Path, model_id: str) -> Manifest:
    """A registered base's own manifest, or one made of the files that are there."""
    if (folder / MANIFEST).is_file():
        return Manifest.read(folder)
    family, drawing = read_family(folder)
    return describe(
        folder, model_id=model_id, family=family, drawing=drawing, code_version=CODE_VERSION
    )
