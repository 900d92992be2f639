"""Stage `tokenizer`: a CLIP tokenizer of our own, byte-level BPE with an end-of-word mark."""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

LENGTH = 77
START, END = "<|startoftext|>", "<|endoftext|>"
MERGED = 6000
"""Size of the vocabulary before the whole-word byte tokens and the two marks are added."""

# The pattern of OpenAI's CLIP (clip/simple_tokenizer.py).
WORD = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


def train(texts: Iterable[str], folder: Path) -> CLIPTokenizer:
    """Learn merges from `texts`, and write a folder that `CLIPTokenizer` loads."""
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>", continuing_subword_prefix=""))
    bpe.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Lowercase(),
        ]
    )
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=MERGED,
            end_of_word_suffix="</w>",
            initial_alphabet=alphabet,
            min_frequency=2,
            show_progress=False,
        ),
    )
    pairs = [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]

    words = [*alphabet, *(byte + "</w>" for byte in alphabet)]
    words += dict.fromkeys(left + right for left, right in pairs)
    words = list(dict.fromkeys([*words, START, END]))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(
        json.dumps({word: number for number, word in enumerate(words)}, ensure_ascii=False)
    )
    merges = "\n".join(" ".join(pair) for pair in pairs)
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    marks = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    (folder / "special_tokens_map.json").write_text(json.dumps(marks))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                **marks,
                "model_max_length": LENGTH,
                "do_lower_case": True,
                "tokenizer_class": "CLIPTokenizer",
                "add_prefix_space": False,
                "errors": "replace",
            }
        )
    )
    tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer
