"""Keys and values of cross-attention, computed once for each prompt that is being drawn.

They depend on the text alone, which stays the same from step to step. Computing them takes 4 % of
a UNet pass of two rows of the shipped model and 8 % of one of sixteen; 0.4 % at the size of SD
1.5. In a busy batch somebody joins or leaves at nearly every step: then only the texts that are
new are projected, and the others' keys and values are copied from the batch before.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from diffusion.attention import reads_text
from diffusion.rehearsing import TEXT_TOKENS

VECTOR = 16
"""Float32 numbers of an AVX-512 register. A CPU's attention to 77 keys takes 1.8 times as long as
to 80 (`python -m benchmarks.serving --only blocks`)."""


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
        self._plans: dict[tuple[int, ...], _Plan] = {}

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
        self._plans.clear()

    def _from_before(
        self,
        projection: nn.Linear,
        version: int,
        text: Tensor,
        project: Callable[[Tensor], Tensor],
    ) -> Tensor:
        earlier = [
            (number, made)
            for number, text_ in enumerate(self._before)
            for at, made in [text_._made.get(projection, (None, None))]  # noqa: SLF001  (its own)
            if at == version and made is not None
        ]
        numbers = tuple(number for number, _ in earlier)
        if numbers not in self._plans:
            self._plans[numbers] = self._plan(numbers, text.device)
        plan = self._plans[numbers]
        if plan.first is None:
            return project(text)
        made_of = dict(earlier)
        number, rows = plan.first
        projected = made_of[number].index_select(0, rows)
        for number, rows, places in plan.others:
            projected.index_copy_(0, places, made_of[number].index_select(0, rows))
        if plan.new is not None:
            projected.index_copy_(0, plan.new, project(text.index_select(0, plan.new)))
        return projected

    def _plan(self, numbers: tuple[int, ...], device: torch.device) -> "_Plan":
        """Where these texts are in earlier ones: the same for nearly all projections."""
        found = {
            id(one): (number, row)
            for number in numbers
            for row, one in enumerate(self._before[number].embeddings)
        }
        origins = [found.get(id(one)) for one in self.embeddings]

        def indices(of: Iterable[int]) -> Tensor:
            return torch.tensor(list(of), device=device)

        new = [place for place, origin in enumerate(origins) if origin is None]
        used = sorted({origin[0] for origin in origins if origin is not None})
        if not used:
            return _Plan(None, (), None)
        first = used[0]
        # Rows that are not in the first are written over.
        rows = (origin[1] if origin and origin[0] == first else 0 for origin in origins)
        others = []
        for number in used[1:]:
            pairs = [(at, one[1]) for at, one in enumerate(origins) if one and one[0] == number]
            others.append(
                (number, indices(row for _, row in pairs), indices(at for at, _ in pairs))
            )
        return _Plan((first, indices(rows)), tuple(others), indices(new) if new else None)


@dataclass(frozen=True)
class _Plan:
    """How what earlier texts were projected to makes up that of others, without a look at each."""

    first: tuple[int, Tensor] | None
    """The number of an earlier text, and its row for each place; None: everything is new."""
    others: tuple[tuple[int, Tensor, Tensor], ...]
    """Further ones: their rows, and the places for them."""
    new: Tensor | None
    """Places of what is to be projected."""


# A stacked text -> what is known of it; goes with the tensor.
_known: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


class RememberingLinear(nn.Linear):
    """Does not project again a text that is remembered, until its weight is written."""

    pads = False
    """With zeros, to a multiple of `VECTOR` tokens; whoever reads them masks those."""

    def forward(self, text: Tensor) -> Tensor:
        # Part of a compiled graph, which has no place for what was made before.
        if torch.compiler.is_compiling() or text not in _known:
            return self._project(text)
        known: _Text = _known[text]
        return known.projected(self, text, self._project)

    def _project(self, text: Tensor) -> Tensor:
        projected = super().forward(text)
        missing = -text.shape[1] % VECTOR if self.pads else 0
        return F.pad(projected, (0, 0, 0, missing)) if missing else projected


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


def remembered_bytes(unet: UNet2DConditionModel) -> int:
    """What a UNet that remembers holds at most for each row of a pass.

    Where somebody has joined or left, the keys and values of the pass before are there as well:
    the others' are copied from them.
    """
    kept = sum(
        module.out_features * module.weight.itemsize
        for module in unet.modules()
        if isinstance(module, RememberingLinear)
    )
    # A CPU's are padded.
    return 2 * math.ceil(TEXT_TOKENS / VECTOR) * VECTOR * kept
