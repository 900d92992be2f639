"""`python -m trainer.evaluation.erasure_table`: settings of stage 1 and what is still drawn."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import ValidationError

from core.errors import AppError, ConceptInvalid
from core.merging import concepts_to_erase
from core.rates import Rate
from core.specs import ErasureSpec
from diffusion.erasure import Erasure
from diffusion.judge import Judge
from diffusion.loading import load_base
from trainer.evaluation.drawing import DrawingOptions, Studio
from trainer.evaluation.examiner import Examiner
from trainer.evaluation.prompt_sets import erased_sets, other_set
from trainer.neighbours import find_neighbours, protecting
from trainer.solving import solve

DESCRIPTION = """\
Erase a preset from a model with several settings, let every result draw the same prompts, and
print a table: how often the judge that comes with the model sees something of the erased group,
and how often it recognises everything else. The base model is the first row.

Each --settings is a JSON object with the fields of `textual` of POST /v1/erasures; {} means the
defaults. Choose settings with --split tuning, report them once with --split test.
"""


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        _print_table(options)
    except AppError as error:
        sys.stderr.write(f"{type(error).__name__}: {error.detail}\n")
        return 2
    return 0


def _print_table(options: argparse.Namespace) -> None:
    specs = [_spec(options, settings) for settings in options.settings]
    concepts = concepts_to_erase(specs[0])
    judge = Judge.load(options.base)
    studio = Studio(load_base(options.base, None), DrawingOptions(seed=options.seed))
    told = [word for concept in concepts for word in concept.words]
    erased = erased_sets(judge.concepts, options.group, options.split, told=told)
    others = other_set(judge.concepts, options.group)
    examiner = Examiner(
        *(studio, judge, options.group),
        erased=[prompts.thinned(options.at_most) for prompts in erased],
        others=others.thinned(options.at_most),
    )
    base = examiner.examine(Erasure())
    print_cells(["setting", *base, "kept", "change"])
    print_cells(["---"] * (len(base) + 3))
    print_row("base", base, base[others.name], 0.0)
    for spec, settings in zip(specs, options.settings, strict=True):
        found = find_neighbours(
            *(studio.encoder, concepts, judge.concepts),
            erased=concepts,
            count=spec.textual.neighbours,
        )
        solution = solve(
            *(studio.encoder, concepts, protecting(spec, found, concepts)),
            known=judge.concepts,
            report=lambda _: None,
            cache=options.cache,
        )
        rates = examiner.examine(solution.erasure)
        print_row(settings, rates, base[others.name], solution.relative_change)


def _spec(options: argparse.Namespace, settings: str) -> ErasureSpec:
    document = {"base_model": "base", "preset": options.preset, "textual": json.loads(settings)}
    try:
        return ErasureSpec.model_validate(document)
    except ValidationError as error:
        raise ConceptInvalid(f"{settings}: {error.errors()[0]['msg']}") from error


def print_row(name: str, rates: dict[str, Rate], base: Rate, change: float) -> None:
    *_, others = rates.values()
    kept = others.value / base.value if base.value else 0.0
    print_cells([f"`{name}`", *map(str, rates.values()), f"{kept:.3f}", f"{change:.2f}"])


def print_cells(cells: Sequence[str]) -> None:
    sys.stdout.write(f"| {' | '.join(cells)} |\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.evaluation.erasure_table",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--base", type=Path, required=True, metavar="DIR", help="model with a judge"
    )
    parser.add_argument("--preset", required=True, help="what is erased")
    parser.add_argument("--group", required=True, help="the group of concepts.json to look for")
    parser.add_argument("--split", choices=("tuning", "test"), default="tuning")
    parser.add_argument("--settings", action="append", required=True, metavar="JSON")
    parser.add_argument(
        "--at-most", type=int, metavar="N", help="ask N prompts of each kind, evenly spread"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the first picture of each set")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep moments of captions here")
    parser.add_argument("--threads", type=int, default=1)
    return parser


if __name__ == "__main__":
    sys.exit(main())
