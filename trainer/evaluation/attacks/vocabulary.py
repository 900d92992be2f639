"""The tokens an attack may write with, and prompts made of them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from core.errors import ModelUnsupported
from diffusion.prompts import PromptEncoder

SHORTEST_BANNED = 3


class Alphabet:
    """Whole words of a tokenizer: a prompt of them, written out, is read as the same tokens.

    Attributes:
        ids: (v,) int64, the tokens that may be used.
        vectors: (v, d), their embeddings; of SDXL, those of both text encoders side by side.
    """

    def __init__(self, encoder: PromptEncoder, *, without: Sequence[str] = ()) -> None:
        """
        Args:
            without: words that may not be written; neither may a token that contains one.

        Raises:
            ModelUnsupported: the tokenizers of SDXL disagree on what a token is.
        """
        tokenizer, *others = self._tokenizers = encoder.tokenizers
        if any(other.get_vocab() != tokenizer.get_vocab() for other in others):
            raise ModelUnsupported(
                "attacks on tokens need one vocabulary, and this model's two tokenizers differ"
            )
        banned = [
            word.casefold()
            for phrase in without
            for word in phrase.split()
            if len(word) >= SHORTEST_BANNED
        ]
        words = {
            number: token.removesuffix("</w>")
            for token, number in tokenizer.get_vocab().items()
            if token.endswith("</w>")
        }
        usable = sorted(
            number
            for number, word in words.items()
            if word.isascii() and word.isalpha() and not any(one in word for one in banned)
        )
        self.ids = torch.tensor(usable)
        tables = [one.get_input_embeddings().weight.detach() for one in encoder.encoders]
        self.vectors: Tensor = torch.cat(
            [table[self.ids.to(table.device)].float() for table in tables], dim=-1
        )
        self._length = encoder.length
        self.start = int(tokenizer.bos_token_id)
        self.end = int(tokenizer.eos_token_id)

    def __len__(self) -> int:
        return len(self.ids)

    def text(self, places: Tensor) -> str:
        """(length,) places in `ids` -> the prompt."""
        return self._tokenizers[0].decode(self.ids[places.cpu()].tolist()).strip()

    def spell(self, text: str) -> Tensor:
        """(n,) token ids of a text, without start and end."""
        ids = self._tokenizers[0](text, truncation=True, max_length=75).input_ids
        return torch.tensor(ids[1:-1])

    def rows(self, bodies: Tensor) -> list[Tensor]:
        """(n, k) token ids -> (n, 77) for each tokenizer: start, body, end, its own padding."""
        n, k = bodies.shape
        found = []
        for tokenizer in self._tokenizers:
            rows = torch.full((n, self._length), int(tokenizer.pad_token_id))
            rows[:, 0] = self.start
            rows[:, 1 : k + 1] = bodies
            rows[:, k + 1] = self.end
            found.append(rows)
        return found
