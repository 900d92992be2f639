"""Prompts as the UNet reads them: token ids, the end-of-text position, embeddings."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from diffusion.freed_memory import return_to_system

CACHED_PROMPTS = 1024
CACHED_BYTES = 64 << 20
"""Of the device's memory: 567 prompts of SD 1.5 or 212 of SDXL, in half precision."""
WHERE_IT_WAS_READ = {"_name_or_path", "transformers_version", "dtype", "torch_dtype"}
"""Fields of a config that say nothing of what the encoder computes."""


@dataclass(frozen=True)
class EncodedPrompt:
    embedding: Tensor
    """(77, d), the last hidden state, on the encoder's device and in its dtype."""
    eot: int
    """Position of the first end-of-text token; the padding after it repeats that token."""
    truncated: bool
    """Words were cut off: the prompt has more tokens than fit between start and end."""
    pooled: Tensor | None = None
    """(p,), the whole prompt in one vector; SDXL alone has it."""
    alone: bool = True
    """Nothing else was encoded in the same pass: company moves the last bits."""

    @property
    def size_bytes(self) -> int:
        return self.embedding.nbytes + (0 if self.pooled is None else self.pooled.nbytes)


@dataclass(frozen=True)
class EncodedPrompts:
    embeddings: Tensor
    """(n, 77, d)."""
    eot: Tensor
    """(n,) int64, the first end-of-text position of each."""
    pooled: Tensor | None = None
    """(n, p); SDXL alone has it."""


@dataclass(frozen=True)
class SecondEncoder:
    """What SDXL reads prompts with, beside the encoder that it shares with SD 1.x."""

    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModelWithProjection


class PromptEncoder:
    """Encodes prompts with one model's tokenizer and text encoder.

    Not thread-safe (a fast tokenizer is not): it belongs to the thread that owns the device.
    """

    def __init__(
        self,
        tokenizer: CLIPTokenizer,
        text_encoder: CLIPTextModel,
        *,
        second: SecondEncoder | None = None,
        zero_empty: bool = False,
        cached_prompts: int = CACHED_PROMPTS,
        cached_bytes: int = CACHED_BYTES,
    ) -> None:
        """
        Args:
            zero_empty: the empty prompt is zeros, as most SDXL models were trained.
            cached_prompts: how many are remembered at most.
            cached_bytes: what those may take, whatever their number.
        """
        self._tokenizer = tokenizer
        self._second = second
        self._zero_empty = zero_empty
        self._text_encoder = text_encoder
        self._cached_prompts = cached_prompts
        self._cached_bytes = cached_bytes
        self._held_bytes = 0
        self._cache: OrderedDict[str, EncodedPrompt] = OrderedDict()

    @property
    def width(self) -> int:
        """d, the size of one token's embedding."""
        return sum(int(encoder.config.hidden_size) for encoder in self.encoders)

    @property
    def pooled_width(self) -> int | None:
        """p, the size of a pooled embedding; None for models without."""
        return int(self._second.text_encoder.config.projection_dim) if self._second else None

    @property
    def length(self) -> int:
        """Tokens per prompt, start, end and padding included: 77."""
        return int(self._tokenizer.model_max_length)

    def digest(self) -> str:
        """SHA-256 of what the encoders compute, and of the words they know; see `spelling`.

        Statistics of erased models name their encoder by it, so it stays as it is.
        """
        digest = hashlib.sha256()
        for tokenizer in self.tokenizers:
            digest.update(json.dumps(tokenizer.get_vocab(), sort_keys=True).encode())
        for encoder in self.encoders:
            config = {
                name: value
                for name, value in encoder.config.to_dict().items()
                if name not in WHERE_IT_WAS_READ
            }
            digest.update(json.dumps(config, default=str, sort_keys=True).encode())
            for name, tensor in sorted(encoder.state_dict().items()):
                digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def spelling(self) -> str:
        """SHA-256 of what else decides what a prompt becomes: padding, length and merges."""
        digest = hashlib.sha256()
        for tokenizer in self.tokenizers:
            rules = json.loads(tokenizer.backend_tokenizer.to_str())
            told = [tokenizer.pad_token_id, tokenizer.model_max_length, rules["normalizer"]]
            told += [rules["pre_tokenizer"], rules["model"]["merges"]]
            digest.update(json.dumps(told, sort_keys=True).encode())
        return digest.hexdigest()

    def encode(
        self, prompt: str, *, company: Iterable[str] = (), alone: bool = False
    ) -> EncodedPrompt:
        """One prompt; the most recently used ones are remembered.

        Args:
            company: prompts that will be asked for next; where this one must be encoded, those
                that are not known are encoded in the same pass.
            alone: give the bits that it has when nothing else is encoded with it, whoever asked
                for it before.
        """
        known = self._cache.get(prompt)
        if known is not None and (known.alone or not alone):
            self._cache.move_to_end(prompt)
            return known
        unknown = [] if alone else [one for one in company if one not in self._cache]
        together = list(dict.fromkeys([prompt, *unknown]))[: max(1, self._cached_prompts)]
        return self._remember(together)[0]

    def _remember(self, prompts: Sequence[str]) -> list[EncodedPrompt]:
        """Encode them in one pass."""
        encoded = self.encode_all(prompts)
        results = []
        for row, prompt in enumerate(prompts):
            blank = self._zero_empty and not prompt
            result = EncodedPrompt(
                embedding=encoded.embeddings[row] * (0 if blank else 1),
                eot=int(encoded.eot[row]),
                truncated=self.is_truncated(prompt),
                pooled=None
                if encoded.pooled is None
                else encoded.pooled[row] * (0 if blank else 1),
                alone=len(prompts) == 1,
            )
            results.append(result)
            if (earlier := self._cache.pop(prompt, None)) is not None:
                self._held_bytes -= earlier.size_bytes
            self._cache[prompt] = result
            self._held_bytes += result.size_bytes
        while len(self._cache) > self._cached_prompts or self._held_bytes > self._cached_bytes:
            _, oldest = self._cache.popitem(last=False)
            self._held_bytes -= oldest.size_bytes
        return results

    def encode_all(self, prompts: Sequence[str]) -> EncodedPrompts:
        """Many prompts in one forward pass; nothing is remembered."""
        with torch.no_grad():
            return self.read(
                [_padded(tokenizer, prompts, self.length) for tokenizer in self.tokenizers]
            )

    def read(self, rows: Sequence[Tensor]) -> EncodedPrompts:
        """What the encoders make of token ids, differentiable where gradients are enabled.

        Args:
            rows: (n, 77) for each of `encoders`.
        """
        device = self._text_encoder.device
        eot = self.first_eot(rows[0])
        if self._second is None:
            states = self._text_encoder(rows[0].to(device)).last_hidden_state
            return EncodedPrompts(embeddings=states, eot=eot)
        # SDXL reads the last layer but one of both, without the final normalisation.
        first = self._text_encoder(rows[0].to(device), output_hidden_states=True)
        second = self._second.text_encoder(rows[1].to(device), output_hidden_states=True)
        states = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        return EncodedPrompts(states, eot, second.text_embeds)

    def release(self) -> None:
        """Give back the memory of weights and remembered prompts; no prompt is read any more."""
        for encoder in self.encoders:
            encoder.to("meta")
        self._cache.clear()
        self._held_bytes = 0
        return_to_system()

    def batches(self, prompts: Sequence[str], *, size: int) -> Iterator[EncodedPrompts]:
        for start in range(0, len(prompts), size):
            yield self.encode_all(prompts[start : start + size])

    def token_ids(self, prompts: Sequence[str]) -> Tensor:
        """(n, 77) int64: start, the prompt cut to 75 tokens, end, padding."""
        return _padded(self._tokenizer, prompts, self.length)

    def first_eot(self, ids: Tensor) -> Tensor:
        """(n, length) token ids -> (n,) positions of the first end-of-text token in each row.

        Counting words would not find it: one word may be several tokens.
        """
        is_end = ids == self._tokenizer.eos_token_id
        assert bool(is_end.any(dim=1).all()), "the tokenizer ends every prompt"
        return is_end.int().argmax(dim=1)

    def spelled(self, phrase: str) -> list[int] | None:
        """The tokens of a phrase alone; None when some of it has none."""
        tokens: list[int] = self._tokenizer(
            phrase, add_special_tokens=False, truncation=False, verbose=False
        ).input_ids
        unknown = {self._tokenizer.unk_token_id, self._tokenizer.eos_token_id}
        return None if not tokens or unknown & {*tokens} else tokens

    def is_truncated(self, prompt: str) -> bool:
        ids = self._tokenizer(prompt, truncation=False, verbose=False).input_ids
        return len(ids) > self.length

    @property
    def encoders(self) -> list[Any]:
        """One, or the two of SDXL."""
        return [self._text_encoder, *([self._second.text_encoder] if self._second else [])]

    @property
    def tokenizers(self) -> list[CLIPTokenizer]:
        """That of each encoder; they pad differently."""
        return [self._tokenizer, *([self._second.tokenizer] if self._second else [])]


def _padded(tokenizer: CLIPTokenizer, prompts: Sequence[str], length: int) -> Tensor:
    encoded = tokenizer(
        list(prompts),
        padding="max_length",
        max_length=length,
        truncation=True,
        return_tensors="pt",
    )
    ids: Tensor = encoded.input_ids
    return ids
