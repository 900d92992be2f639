"""Keys and values of cross-attention, computed once for each prompt that is being drawn.

They depend on the text alone, which stays the same from step to step. Computing them takes 4 % of
a UNet pass of two rows of the shipped model and 8 % of one of sixteen; 0.4 % at the size of SD
1.5. In a busy batch somebody joins or leaves at nearly every step: then only the texts that are
new are projected, and the others' keys and values are copied from the batch before.
"""

from collections.abc import Callable, Sequence

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from diffusion.attention import reads_text


class _Text:
    """The texts of one pass, and what each projection has made of them."""

    def __init__(self, embeddings: Sequence[Tensor], before: "Sequence[_Text]") -> None:
        """
        Args:
            before: what may hold projections of some of the texts already.
        """
        self.embeddings = tuple(embeddings)
        self._before = tuple(before)
        self._made: dict[nn.Module, tuple[int, Tensor]] = {}

    def projected(
        self, projection: nn.Linear, text: Tensor, project: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """`text` (n, tokens, d), these texts stacked -> (n, tokens, inner)."""
        version = projection.weight._version  # noqa: SLF001  (there is no other name for it)
        made = self._made.get(projection)
        if made is None or made[0] != version:
            made = version, self._from_before(projection, version, text, project)
            self._made[projection] = made
        return made[1]

    def settle(self) -> None:
        """The pass is over: whatever it could take from earlier ones, it has."""
        self._before = ()

    def _from_before(
        self,
        projection: nn.Linear,
        version: int,
        text: Tensor,
        project: Callable[[Tensor], Tensor],
    ) -> Tensor:
        found: dict[int, Tensor] = {}
        for earlier in self._before:
            at, made = earlier._made.get(projection, (None, None))  # noqa: SLF001  (its own kind)
            if at == version and made is not None:
                found |= {id(one): row for one, row in zip(earlier.embeddings, made, strict=True)}
        new = [place for place, one in enumerate(self.embeddings) if id(one) not in found]
        if len(new) == len(text):
            return project(text)
        fresh = iter(project(text[new]) if new else ())
        return torch.stack(
            [found[id(one)] if id(one) in found else next(fresh) for one in self.embeddings]
        )


# A stacked text -> what is known of it; goes with the tensor.
_known: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


class RememberingLinear(nn.Linear):
    """Does not project again a text that is remembered, until its weight is written."""

    def forward(self, text: Tensor) -> Tensor:
        # Part of a compiled graph, which has no place for what was made before.
        if torch.compiler.is_compiling() or text not in _known:
            return super().forward(text)
        known: _Text = _known[text]
        return known.projected(self, text, super().forward)


class TextMemory:
    """The texts of one batch's passes, from step to step."""

    def __init__(self, device: torch.device | str, dtype: torch.dtype) -> None:
        """
        Args:
            device: the UNet's, as is `dtype`.
        """
        self._as_read = {"device": torch.device(device), "dtype": dtype}
        # By whether they are alone, and the embeddings' identities, which each text keeps alive.
        self._texts: dict[tuple[int, ...], tuple[Tensor, _Text]] = {}
        self._read: list[tuple[int, ...]] = []

    def stacked(self, embeddings: Sequence[Tensor], *, alone: bool) -> Tensor:
        """(n, tokens, d), the same tensor as in the last step where the embeddings are the same.

        Args:
            alone: nothing is taken from other passes, whose bits depend on their company.
        """
        key = (alone, *map(id, embeddings))
        if key not in self._texts:
            before = () if alone else [text for _, text in self._texts.values()]
            stacked = torch.stack([one.to(**self._as_read) for one in embeddings])
            self._texts[key] = stacked, _Text(embeddings, before)
            _known[stacked] = self._texts[key][1]
        self._read.append(key)
        return self._texts[key][0]

    def end_step(self) -> None:
        """Forget what no pass of this step has read."""
        self._texts = {key: self._texts[key] for key in self._read}
        for _, text in self._texts.values():
            text.settle()
        self._read.clear()

    def clear(self) -> None:
        """Forget everything: its memory is needed."""
        self._texts.clear()
        self._read.clear()


def remember_projections(unet: UNet2DConditionModel) -> None:
    """Let a UNet remember texts; its parameters and their names stay as they are."""
    for name, module in unet.named_modules():
        if type(module) is nn.Linear and reads_text(f"{name}.weight"):
            module.__class__ = RememberingLinear
