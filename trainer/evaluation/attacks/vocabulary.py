"""The tokens an attack may write with, and prompts made of them."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

SHORTEST_BANNED = 3


class Alphabet:
    """Whole words of a tokenizer: a prompt of them, written out, is read as the same tokens.

    Attributes:
        ids: (v,) int64, the tokens that may be used.
        vectors: (v, d), their embeddings.
    """

    def __init__(
        self,
        tokenizer: CLIPTokenizer,
        text_encoder: CLIPTextModel,
        *,
        without: Sequence[str] = (),
    ) -> None:
        """
        Args:
            without: words that may not be written; neither may a token that contains one.
        """
        self._tokenizer = tokenizer
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
        table = text_encoder.get_input_embeddings()
        self.vectors: Tensor = table.weight.detach()[self.ids.to(table.weight.device)].float()
        self.start = int(tokenizer.bos_token_id)
        self.end = int(tokenizer.eos_token_id)

    def __len__(self) -> int:
        return len(self.ids)

    def text(self, places: Tensor) -> str:
        """(length,) places in `ids` -> the prompt."""
        return self._tokenizer.decode(self.ids[places.cpu()].tolist()).strip()

    def spell(self, text: str) -> Tensor:
        """(n,) token ids of a text, without start and end."""
        ids = self._tokenizer(text, truncation=True, max_length=75).input_ids
        return torch.tensor(ids[1:-1])

    def rows(self, bodies: Tensor, *, length: int) -> Tensor:
        """(n, k) token ids -> (n, length): start, body, end, padding with the end token."""
        n, k = bodies.shape
        rows = torch.full((n, length), self.end)
        rows[:, 0] = self.start
        rows[:, 1 : k + 1] = bodies
        return rows
