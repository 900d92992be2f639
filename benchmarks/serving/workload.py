"""What is asked for: prompts of the shipped model, and step counts as clients mix them."""

import itertools
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


def orders(seed: int, steps: tuple[int, ...] = STEPS) -> Iterator[Order]:
    """Endless; each client has a seed of its own, and every step count comes equally often."""
    random_ = random.Random(seed)  # noqa: S311  (no secret)
    for number in itertools.count():
        if number % len(steps) == 0:
            turn = random_.sample(steps, len(steps))
        prompt = random_.choice(MANNERS).format(random_.choice(NOUNS))
        yield Order(prompt, turn[number % len(steps)], random_.randrange(1 << 31))
