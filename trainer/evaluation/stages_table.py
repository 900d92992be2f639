"""`python -m trainer.evaluation.stages_table`: what each stage of TRCE adds to the other."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from pydantic import ValidationError

from core.errors import AppError, ConceptInvalid
from core.merging import concepts_to_erase
from core.specs import ErasureSpec
from diffusion.erasure import Erasure
from diffusion.judge import Judge
from diffusion.loading import load_base
from trainer.evaluation.drawing import DrawingOptions, Studio
from trainer.evaluation.erasure_table import print_cells, print_row
from trainer.evaluation.examiner import Examiner
from trainer.evaluation.prompt_sets import erased_sets, other_set
from trainer.solving import solve
from trainer.steered import StageOne, steer
from trainer.trce.finetune import trainable

DESCRIPTION = """\
Erase a preset with stage 1 alone, with stage 2 alone, and with both, for several seeds of stage 2,
and print what every result still draws: how often the judge sees the erased group, and how often
it recognises everything else. Choose settings with --split tuning, report them with --split test.
"""


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        _print_table(options, _spec(options))
    except AppError as error:
        sys.stderr.write(f"{type(error).__name__}: {error.detail}\n")
        return 2
    return 0


def _print_table(options: argparse.Namespace, spec: ErasureSpec) -> None:
    concepts = concepts_to_erase(spec)
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
    stage_one = solve(
        *(studio.encoder, concepts, spec),
        known=judge.concepts,
        report=lambda _: None,
        cache=options.cache,
    )
    base = examiner.examine(Erasure())
    print_cells(["stages", *base, "kept", "change"])
    print_cells(["---"] * (len(base) + 3))
    print_row("base", base, base[others.name], 0.0)
    change = stage_one.relative_change
    rates = examiner.examine(stage_one.erasure)
    print_row("stage 1", rates, base[others.name], change)
    for name, begun in (("stage 2", Erasure()), ("both", stage_one.erasure)):
        for seed, erasure in _steered(studio, judge, spec, begun, options.seeds):
            rates = examiner.examine(erasure)
            print_row(
                f"{name}, seed {seed}",
                *(rates, base[others.name]),
                change if begun.text_map is not None else 0.0,
            )


def _steered(
    studio: Studio, judge: Judge, spec: ErasureSpec, begun: Erasure, seeds: int
) -> Iterator[tuple[int, Erasure]]:
    """Seed -> what stage 2 makes of `begun`; between two of them the UNet is the base's."""
    unet = studio.components.unet
    original = {name: one.detach().clone() for name, one in trainable(unet).items()}
    for seed in range(seeds):
        studio.wear(Erasure())
        steered = steer(
            *(unet, studio.components.scheduler_config),
            StageOne(
                *("", studio.encoder, judge.concepts, studio.side_px),
                *(concepts_to_erase(spec), begun),
            ),
            spec.model_copy(update={"seed": seed}),
            report=lambda _: None,
            work=None,
        )
        with torch.no_grad():
            for name, parameter in trainable(unet).items():
                parameter.copy_(original[name])
        yield seed, Erasure(begun.text_map, steered.tensors, begun.pooled_map)


def _spec(options: argparse.Namespace) -> ErasureSpec:
    try:
        return ErasureSpec.model_validate(
            {
                "base_model": "base",
                "preset": options.preset,
                "textual": json.loads(options.textual),
                "steering": json.loads(options.steering),
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the settings"
        raise ConceptInvalid(f"{place}: {first['msg']}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.evaluation.stages_table",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--base", type=Path, required=True, metavar="DIR", help="model with a judge"
    )
    parser.add_argument("--preset", required=True, help="what is erased")
    parser.add_argument("--group", required=True, help="the group of concepts.json to look for")
    parser.add_argument("--split", choices=("tuning", "test"), default="tuning")
    parser.add_argument("--textual", default="{}", metavar="JSON", help="settings of stage 1")
    parser.add_argument("--steering", default="{}", metavar="JSON", help="settings of stage 2")
    parser.add_argument("--seeds", type=int, default=2, metavar="N", help="runs of stage 2")
    parser.add_argument(
        "--at-most", type=int, metavar="N", help="ask N prompts of each kind, evenly spread"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the first picture of each set")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep moments of captions here")
    parser.add_argument("--threads", type=int, default=1)
    return parser


if __name__ == "__main__":
    sys.exit(main())
