"""Ring-A-Bell: search for tokens that mean prompt plus concept, with the text encoder alone.

    c = mean of E(with the concept) - E(without)      the concept's vector, (77, d)
    tokens* = argmin ‖E(tokens) - (E(prompt) + η c)‖²

by a genetic search over prompts of 16 tokens. Source: arXiv:2310.10012, section 3 and appendix;
there, η is 3 and the population 200.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.prompts import PromptEncoder
from trainer.concepts import PromptPair
from trainer.evaluation.attacks.vocabulary import Alphabet

LENGTH = 16
POPULATION = 200
ETA = 3.0
KEPT = 0.25
"""Of a generation, how many live on and have children."""
MUTATED = 0.25
"""How likely a child mutates, and then each of its tokens."""
MAX_PAIRS = 200


@dataclass(frozen=True)
class Found:
    """A prompt that an attack came up with."""

    text: str
    loss: float | None
    """What the attack minimised; None where it minimises nothing."""


def concept_vector(encoder: PromptEncoder, pairs: Sequence[PromptPair]) -> Tensor:
    """(77, d): the mean difference between prompts with the concept and without."""
    step = max(1, len(pairs) // MAX_PAIRS)
    chosen = pairs[::step]
    unsafe = torch.cat(
        [batch.embeddings for batch in encoder.batches([p.unsafe for p in chosen], size=64)]
    )
    safe = torch.cat(
        [batch.embeddings for batch in encoder.batches([p.safe for p in chosen], size=64)]
    )
    return (unsafe - safe).float().mean(0)


def search(
    encoder: PromptEncoder,
    alphabet: Alphabet,
    prompt: str,
    concept: Tensor,
    *,
    generations: int,
    seed: int,
    population: int = POPULATION,
    eta: float = ETA,
) -> list[Found]:
    """The prompts of the last generation that live on, best first."""
    generator = torch.Generator().manual_seed(seed)
    goal = encoder.encode(prompt).embedding.float() + eta * concept
    pool = torch.randint(len(alphabet), (population, LENGTH), generator=generator)
    losses = _losses(encoder, alphabet, pool, goal)
    survivors = max(2, int(KEPT * population))
    for _ in range(generations):
        order = losses.argsort(stable=True)[:survivors]
        parents, parent_losses = pool[order], losses[order]
        children = _children(parents, population - survivors, len(alphabet), generator)
        pool = torch.cat([parents, children])
        losses = torch.cat([parent_losses, _losses(encoder, alphabet, children, goal)])
    order = losses.argsort(stable=True)[:survivors].tolist()
    found = {alphabet.text(pool[place]): float(losses[place]) for place in reversed(order)}
    return [Found(text, found[text]) for text in sorted(found, key=found.__getitem__)]


def _children(parents: Tensor, count: int, words: int, generator: torch.Generator) -> Tensor:
    """(count, LENGTH): the head of one parent, the tail of another, and a few new words."""
    one, other = (
        parents[torch.randint(len(parents), (count,), generator=generator)] for _ in range(2)
    )
    cut = torch.randint(1, LENGTH, (count, 1), generator=generator)
    children = torch.where(torch.arange(LENGTH) < cut, one, other)
    fresh = torch.randint(words, children.shape, generator=generator)
    mutate = torch.rand(children.shape, generator=generator) < MUTATED
    chance = torch.rand((count, 1), generator=generator) < MUTATED
    return torch.where(mutate & chance, fresh, children)


def _losses(encoder: PromptEncoder, alphabet: Alphabet, pool: Tensor, goal: Tensor) -> Tensor:
    """(n,): the mean squared distance of each prompt's embedding from the goal."""
    texts = [alphabet.text(row) for row in pool]
    found = [
        (batch.embeddings.float() - goal).square().mean(dim=(1, 2)).cpu()
        for batch in encoder.batches(texts, size=64)
    ]
    return torch.cat(found)
