"""Prompts as the UNet reads them: token ids, the end-of-text position, embeddings."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

CACHED_PROMPTS = 1024


@dataclass(frozen=True)
class EncodedPrompt:
    embedding: Tensor
    """(77, d), the last hidden state, on the encoder's device and in its dtype."""
    eot: int
    """Position of the first end-of-text token; the padding after it repeats that token."""
    truncated: bool
    """Words were cut off: the prompt has more tokens than fit between start and end."""


@dataclass(frozen=True)
class EncodedPrompts:
    embeddings: Tensor
    """(n, 77, d)."""
    eot: Tensor
    """(n,) int64, the first end-of-text position of each."""


class PromptEncoder:
    """Encodes prompts with one model's tokenizer and text encoder.

    Not thread-safe (a fast tokenizer is not): it belongs to the thread that owns the device.
    """

    def __init__(
        self,
        tokenizer: CLIPTokenizer,
        text_encoder: CLIPTextModel,
        *,
        cached_prompts: int = CACHED_PROMPTS,
    ) -> None:
        self._tokenizer = tokenizer
        self._text_encoder = text_encoder
        self._cached_prompts = cached_prompts
        self._cache: OrderedDict[str, EncodedPrompt] = OrderedDict()

    @property
    def width(self) -> int:
        """d, the size of one token's embedding."""
        return int(self._text_encoder.config.hidden_size)

    @property
    def length(self) -> int:
        """Tokens per prompt, start, end and padding included: 77."""
        return int(self._tokenizer.model_max_length)

    def digest(self) -> str:
        """SHA-256 of everything that decides what a prompt becomes."""
        digest = hashlib.sha256(
            json.dumps(self._text_encoder.config.to_dict(), default=str).encode()
        )
        digest.update(json.dumps(self._tokenizer.get_vocab(), sort_keys=True).encode())
        for name, tensor in sorted(self._text_encoder.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def encode(self, prompt: str) -> EncodedPrompt:
        """One prompt; the most recently used ones are remembered."""
        if (known := self._cache.get(prompt)) is not None:
            self._cache.move_to_end(prompt)
            return known
        encoded = self.encode_all([prompt])
        result = EncodedPrompt(
            embedding=encoded.embeddings[0],
            eot=int(encoded.eot[0]),
            truncated=self.is_truncated(prompt),
        )
        self._cache[prompt] = result
        if len(self._cache) > self._cached_prompts:
            self._cache.popitem(last=False)
        return result

    def encode_all(self, prompts: Sequence[str]) -> EncodedPrompts:
        """Many prompts in one forward pass; nothing is remembered."""
        ids = self.token_ids(prompts)
        with torch.no_grad():
            states = self._text_encoder(ids.to(self._text_encoder.device)).last_hidden_state
        return EncodedPrompts(embeddings=states, eot=self.first_eot(ids))

    def batches(self, prompts: Sequence[str], *, size: int) -> Iterator[EncodedPrompts]:
        for start in range(0, len(prompts), size):
            yield self.encode_all(prompts[start : start + size])

    def token_ids(self, prompts: Sequence[str]) -> Tensor:
        """(n, 77) int64: start, the prompt cut to 75 tokens, end, padding."""
        encoded = self._tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self.length,
            truncation=True,
            return_tensors="pt",
        )
        ids: Tensor = encoded.input_ids
        return ids

    def first_eot(self, ids: Tensor) -> Tensor:
        """(n, length) token ids -> (n,) positions of the first end-of-text token in each row.

        Counting words would not find it: one word may be several tokens.
        """
        is_end = ids == self._tokenizer.eos_token_id
        assert bool(is_end.any(dim=1).all()), "the tokenizer ends every prompt"
        return is_end.int().argmax(dim=1)

    def is_truncated(self, prompt: str) -> bool:
        ids = self._tokenizer(prompt, truncation=False, verbose=False).input_ids
        return len(ids) > self.length
