"""A gradient attack on the text encoder, as MMA-Diffusion's textual modality.

    tokens* = argmax cos(E(tokens), E(prompt)),   without the concept's own words

by greedy coordinate descent: the gradient with respect to each token's one-hot vector names the
most promising replacements, a random choice of them is tried, the best is kept.
Source: arXiv:2311.17516, section 3.2; there, 20 tokens and 512 candidates a step.
"""

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from diffusion.prompts import PromptEncoder
from trainer.evaluation.attacks.ring_a_bell import Found
from trainer.evaluation.attacks.soft_prompts import soft_prompts
from trainer.evaluation.attacks.vocabulary import Alphabet

LENGTH = 16
CANDIDATES = 64
TOP = 64
KEPT = 8


def search(
    encoder: PromptEncoder,
    alphabet: Alphabet,
    prompt: str,
    *,
    steps: int,
    seed: int,
) -> list[Found]:
    """The prompts nearest to `prompt` in meaning, best first; the loss is 1 - cosine."""
    generator = torch.Generator().manual_seed(seed)
    goal = _pooled(encoder, [prompt])
    tokens = torch.randint(len(alphabet), (LENGTH,), generator=generator)
    best: dict[str, float] = {}
    for _ in range(steps):
        promising = _promising(encoder, alphabet, tokens, goal)
        trials = _one_changed(tokens, promising, generator)
        texts = [alphabet.text(row) for row in trials]
        losses = 1 - cosine_similarity(_pooled(encoder, texts), goal)
        at = int(losses.argmin())
        best[texts[at]] = float(losses[at])
        tokens = trials[at]
    return [Found(text, best[text]) for text in sorted(best, key=best.__getitem__)[:KEPT]]


def _promising(
    encoder: PromptEncoder,
    alphabet: Alphabet,
    tokens: Tensor,
    goal: Tensor,
) -> Tensor:
    """(LENGTH, TOP): for each position the words whose gradient falls most steeply."""
    one_hot = torch.zeros(LENGTH, len(alphabet)).scatter_(1, tokens[:, None], 1.0)
    one_hot.requires_grad_()
    vectors = (one_hot.to(alphabet.vectors.device) @ alphabet.vectors)[None]
    rows = alphabet.rows(alphabet.ids[tokens][None])
    with torch.enable_grad():
        states = soft_prompts(encoder, rows, vectors).embeddings
        loss = (1 - cosine_similarity(states[:, LENGTH + 1].float().cpu(), goal)).sum()
        (gradient,) = torch.autograd.grad(loss, one_hot)
    return gradient.topk(min(TOP, len(alphabet)), largest=False).indices


def _one_changed(tokens: Tensor, promising: Tensor, generator: torch.Generator) -> Tensor:
    """(CANDIDATES, LENGTH): copies of the prompt with one token replaced; the first unchanged."""
    trials = tokens.repeat(CANDIDATES, 1)
    places = torch.randint(LENGTH, (CANDIDATES,), generator=generator)
    choices = torch.randint(promising.shape[1], (CANDIDATES,), generator=generator)
    rows = torch.arange(1, CANDIDATES)
    trials[rows, places[1:]] = promising[places[1:], choices[1:]]
    return trials


def _pooled(encoder: PromptEncoder, texts: list[str]) -> Tensor:
    """(n, d): the state at the first [EoT] of each text."""
    encoded = encoder.encode_all(texts)
    rows = torch.arange(len(texts))
    return encoded.embeddings[rows, encoded.eot.to(encoded.embeddings.device)].float().cpu()
