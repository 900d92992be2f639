"""`trce generate`: pictures from a running service."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from cli.answers import Json, answer
from cli.client import Client
from cli.commands.options import Url
from cli.completing import model_ids
from core.specs import GenerationSpec

Format = Literal["png", "jpeg", "webp"]


def generate(
    prompt: Annotated[str, typer.Argument(help='What to draw, as in "a cat on a sofa".')],
    model: Annotated[
        str, typer.Option(help="A model's id.", autocompletion=model_ids)
    ] = "default",
    seed: Annotated[int | None, typer.Option(help="The same seed draws the same picture.")] = None,
    n: Annotated[int, typer.Option("--count", "-n", help="Pictures, seeds counting up.")] = 1,
    steps: Annotated[int, typer.Option(help="Denoising steps.")] = 20,
    guidance_scale: Annotated[
        float, typer.Option(help="How strictly to follow the prompt.")
    ] = 5.0,
    width: Annotated[
        int | None, typer.Option(help="In pixels; the model's own if left out.")
    ] = None,
    height: Annotated[int | None, typer.Option(help="Likewise.")] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Another than the model's own, as euler_a.")
    ] = None,
    output_format: Annotated[Format, typer.Option("--format", help="Of the files.")] = "png",
    quality: Annotated[int, typer.Option(help="Of JPEG and WebP, 1 to 100.")] = 90,
    strict: Annotated[
        bool, typer.Option("--strict", help="The same bits whatever else is drawn meanwhile.")
    ] = False,
    negative_prompt: Annotated[str, typer.Option(help="What to keep away from.")] = "",
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path(),
    as_json: Json = False,
    url: Url = "http://127.0.0.1:8000",
) -> None:
    """Draw a prompt and save the pictures as files."""
    spec = GenerationSpec(
        model=model,
        prompt=prompt,
        negative_prompt=negative_prompt,
        width=width,
        height=height,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        seed=seed,
        scheduler=scheduler,
        n=n,
        output_format=output_format,
        quality=quality,
        strict=strict,
    )
    console = Console(stderr=True)
    with Client(url) as client, console.status("queued") as status:
        accepted = client.generate(spec)
        generation = client.wait(
            f"/v1/generations/{accepted['id']}",
            on_change=lambda job: status.update(_state(job)),
        )
        out.mkdir(parents=True, exist_ok=True)
        paths = []
        for index, image in enumerate(generation["images"]):
            if image["url"] is None:
                console.print(f"picture {index}: {image['finish_reason']}{_why(image)}")
                continue
            path = out / f"{generation['id'][:8]}-{image['seed']}.{output_format}"
            path.write_bytes(client.image(generation, index))
            paths.append(str(path))
    answer(paths, generation | {"files": paths}, as_json=as_json)


def _why(image: dict[str, Any]) -> str:
    finding = image["finding"]
    if finding and finding["category"]:
        return f" ({finding['detector']} sees {finding['category']}, {finding['policy']})"
    return f" ({image['reason']})" if image["reason"] else ""


def _state(job: dict[str, object]) -> str:
    progress = job.get("progress")
    if isinstance(progress, dict) and job["state"] == "running":
        return f"{progress['stage']} {progress['done']}/{progress['total']}"
    return str(job["state"])
