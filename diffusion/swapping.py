"""One UNet that wears one erasure at a time, and can always go back to its base, bit for bit."""

from collections.abc import Mapping

from diffusers import UNet2DConditionModel
from torch import Tensor

from diffusion.erasure import write_tensors


class SwappableUNet:
    """Swaps changed tensors in place, between two denoising steps; never reloads a model.

    The base's copy of a tensor is kept from the first time that some erasure changes it. Text
    maps are not worn: they act on the prompts, and requests with different maps share a batch.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        self._unet = unet
        self._base: dict[str, Tensor] = {}
        self._worn: Mapping[str, Tensor] = {}

    def wear(self, tensors: Mapping[str, Tensor]) -> None:
        """Make the UNet the base with `tensors` changed; `{}` is the base itself.

        Raises:
            ModelUnsupported: the tensors belong to another UNet; then it is what it was.
        """
        if tensors is self._worn:
            return
        parameters = dict(self._unet.named_parameters())
        kept = {
            name: parameters[name].detach().clone()
            for name in tensors
            if name in parameters and name not in self._base
        }
        # What the last erasure changed and this one does not goes back to the base.
        restored = {name: self._base[name] for name in self._worn if name not in tensors}
        write_tensors(self._unet, {**restored, **tensors})
        self._base |= kept
        self._worn = tensors
