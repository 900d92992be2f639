"""Draws all prompts with one model of a running service, many at a time."""

import io
from collections.abc import Sequence

from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cli.client import Client
from cli.demo.prompts import DemoPrompt
from core.specs import GenerationSpec


def draw(
    client: Client, prompts: Sequence[DemoPrompt], model: str, console: Console
) -> list[Image.Image]:
    """One picture per prompt, in order.

    Raises:
        JobFailed.
    """
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bars:
        bar = bars.add_task(f"drawing with {model[:24]}", total=len(prompts))
        accepted = [
            client.generate(GenerationSpec(model=model, prompt=prompt.text, seed=prompt.seed))
            for prompt in prompts
        ]
        pictures = []
        for generation in accepted:
            done = client.wait(f"/v1/generations/{generation['id']}")
            pictures.append(Image.open(io.BytesIO(client.image(done, 0))).convert("RGB"))
            bars.advance(bar)
    return pictures
