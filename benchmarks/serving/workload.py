"""What is asked for: prompts of the shipped model, and step counts as clients mix them."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from core.settings import SHIPPED_MODELS

MODEL = SHIPPED_MODELS / "emoji"
STEPS = (20, 30, 50)
"""The default of A1111, a usual choice, and the default of diffusers, in equal parts."""
MEAN_STEPS = sum(STEPS) / len(STEPS)
GUIDANCE = 5.0
ROWS_PER_STEP = 2
"""Of the UNet's batch: a guided picture has one with its prompt and one without."""
NOUNS = (
    *("apple", "lighthouse", "cat", "rocket", "guitar", "umbrella", "pizza", "bicycle"),
    *("tree", "owl", "castle", "book", "key", "balloon", "whale", "mushroom"),
)
MANNERS = ("a picture of a red {}", "a small {} on white", "one blue {}", "a shiny {}")


@dataclass(frozen=True)
class Order:
    """One request of one client."""

    prompt: str
    steps: int
    seed: int

    @property
    def body(self) -> dict[str, Any]:
        """As `huggingface_hub` sends it; both servers understand it."""
        return {
            "inputs": self.prompt,
            "parameters": {
                "num_inference_steps": self.steps,
                "guidance_scale": GUIDANCE,
                "seed": self.seed,
            },
        }


def orders(seed: int, steps: tuple[int, ...] = STEPS, *, behind: float = 0.0) -> Iterator[Order]:
    """Endless; each client has a seed of its own, and every step count comes equally often.

    Args:
        behind: the share below 1 of its first turn of step counts that a client has behind it. Its
            first picture is what is left of one that it would be waiting for.
    """
    random_ = random.Random(seed)  # noqa: S311  (no secret)
    turn = random_.sample(steps, len(steps))
    done = int(behind * sum(turn))
    while done >= turn[0]:
        done -= turn.pop(0)
    turn[0] -= done
    while True:
        for count in turn:
            prompt = random_.choice(MANNERS).format(random_.choice(NOUNS))
            yield Order(prompt, count, random_.randrange(1 << 31))
        turn = random_.sample(steps, len(steps))
