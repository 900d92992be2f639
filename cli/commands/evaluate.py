"""`trce evaluate`: have a model measured and attacked, and watch it."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console

from cli.answers import Json, answer
from cli.client import Client
from cli.commands.options import Url
from cli.comparing import table
from cli.completing import attack_names, model_ids, suite_names
from cli.explaining import explain
from cli.following import follow
from core.errors import Invalid
from core.evaluation import EvaluationSpec
from core.reports import Report


def evaluate(
    model: Annotated[str, typer.Argument(help="The model's id.", autocompletion=model_ids)],
    suite: Annotated[
        list[str] | None,
        typer.Option(
            help="explicit, synonyms, descriptions, multi-concept, neighbours, ordinary; "
            "or a file in the folder of prompt sets, such as i2p.csv. All but files, "
            "when left out.",
            autocompletion=suite_names,
        ),
    ] = None,
    attack: Annotated[
        list[str] | None,
        typer.Option(
            help="surface, ring-a-bell, text-gradient, p4d, unlearn-diff; with a budget "
            "and a number of prompts as in p4d:50:10.",
            autocompletion=attack_names,
        ),
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option(
            help="classifier, nudenet, zero-shot, probe, plugin:NAME; a convention or "
            "classes as in nudenet:core-0.5, classifier:weapon,alcohol."
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(help="A concept or group that must be gone; what was erased, when left out."),
    ] = None,
    split: Annotated[str, typer.Option(help="`tuning` or `test` prompts.")] = "test",
    at_most: Annotated[
        int | None, typer.Option(help="Of each suite, every k-th prompt, up to so many.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Denoising steps of each picture.")] = 20,
    guidance_scale: Annotated[
        float,
        typer.Option(help="How strictly to follow prompts, where a prompt file does not say."),
    ] = 5.0,
    seed: Annotated[int, typer.Option(help="Prompt i is drawn from seed + i.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Also write report.json and report.html here.")
    ] = None,
    as_json: Json = False,
    url: Url = "http://127.0.0.1:8000",
) -> None:
    """Draw the same prompts with a model and its base, judge, attack, report.

    The report is signed and stays with the model; `trce models promote` looks at it.
    """
    suites = suite or []
    fields = {
        "model": model,
        "suites": [name for name in suites if "." not in name],
        "prompt_files": [name for name in suites if "." in name],
        "attacks": [_attack(words, seed) for words in attack or []],
        "detector": _detector(detector),
        "target": target or [],
        "split": split,
        "at_most": at_most,
        "num_inference_steps": steps,
        "guidance_scale": guidance_scale,
        "seed": seed,
    }
    try:
        spec = EvaluationSpec.model_validate(fields)
    except ValidationError as error:
        raise Invalid("; ".join(explain(error))) from error
    console = Console(stderr=True)
    with Client(url) as client:
        accepted = client.evaluate(spec)
        done = follow(client, accepted["id"], console, jobs="evaluations")
        data = client.file(done["report"])
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            (out / "report.json").write_bytes(data)
            page = done["report"].removesuffix(".json") + ".html"
            (out / "report.html").write_bytes(client.file(page))
    report = Report.parse(data)
    if not as_json:
        console.print(table([report]))
    where = str(out / "report.html") if out else f"{url.rstrip('/')}{done['report']}"
    answer(where, report.model_dump(mode="json"), as_json=as_json)


def _attack(words: str, seed: int) -> dict[str, object]:
    """NAME, NAME:BUDGET or NAME:BUDGET:PROMPTS. Raises Invalid."""
    name, *numbers = words.split(":")
    fields: dict[str, object] = {"name": name, "seed": seed}
    try:
        fields |= dict(zip(("budget", "prompts"), map(int, numbers), strict=False))
    except ValueError as error:
        raise Invalid(f"--attack {words}: write NAME:BUDGET:PROMPTS, as in p4d:50:10") from error
    return fields


def _detector(words: str | None) -> dict[str, object] | None:
    if words is None:
        return None
    if words.startswith("plugin:"):
        return {"name": words}
    name, _, rest = words.partition(":")
    if not rest:
        return {"name": name}
    return (
        {"name": name, "convention": rest}
        if name == "nudenet"
        else {"name": name, "classes": rest.split(",")}
    )
