"""`python -m trainer.evaluation.stages_table`: what each stage of TRCE adds to the other."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from core import presets
from core.consistency import check_consistent
from core.detection import DetectorSpec
from core.errors import AppError, ConceptInvalid
from core.evaluation import AttackSpec
from core.fields import Words
from core.specs import Concept, ErasureSpec
from core.thresholds import AttackName
from diffusion.detectors.loading import load_detector
from diffusion.judge import Judge
from diffusion.loading import load_base
from trainer.evaluation.drawing import DrawingOptions, Studio
from trainer.evaluation.stages import Case, Rows, Study
from trainer.evaluation.styles import Colourless, style_suites
from trainer.evaluation.suites import built_in, classes_of, targets_of

DESCRIPTION = """\
Erase what CASES describes with stage 1 alone, with stage 2 alone, and with both, for several seeds
of stage 2, and print what every result still draws: of the pictures in which the base shows what
was erased, those that still show it; and of other things that the base draws right, those that
are still right. Choose settings with --split tuning, report them with --split test.

CASES is a YAML file, see benchmarks/stages.yaml. Every row is kept in --rows as it is measured:
what was broken off goes on from there.
"""
SUITES = ("explicit", "synonyms", "descriptions", "neighbours", "ordinary")


class Styles(BaseModel):
    model_config = ConfigDict(extra="forbid")

    erased: Words
    other: Words


class CaseFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    presets: tuple[str, ...] = ()
    concepts: tuple[Concept, ...] = ()
    style: Styles | None = None
    """The concepts are a drawing style without colour."""
    attacks: tuple[AttackName, ...] = ()
    textual: dict[str, Any] = {}
    steering: dict[str, Any] = {}
    """Settings of the case's own, over those of --textual and --steering."""


Cases = TypeAdapter(Annotated[list[CaseFile], Field(min_length=1)])


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        cases = [(case, _spec(case, options)) for case in _read(options.cases)]
        known = Judge.load(options.base)
        drawing = DrawingOptions(num_inference_steps=options.steps, seed=options.seed)
        studio = Studio(load_base(options.base, None), drawing)
        study = Study(studio, known, cache=options.cache, seeds=options.seeds)
        for case, spec in cases:
            if options.only in (None, case.name):
                _print_table(study, _case(case, spec, studio, known, options), options.rows)
    except AppError as error:
        sys.stderr.write(f"{type(error).__name__}: {error.detail}\n")
        return 2
    return 0


def _print_table(study: Study, case: Case, rows: Path) -> None:
    sys.stdout.write(f"\n{case.name}\n\n")
    for number, cells in enumerate(study.rows(case, Rows(rows))):
        if number == 0:
            _print_cells(list(cells))
            _print_cells(["---"] * len(cells))
        _print_cells(list(cells.values()))


def _print_cells(cells: Sequence[str]) -> None:
    sys.stdout.write(f"| {' | '.join(cells)} |\n")
    sys.stdout.flush()


def _case(
    case: CaseFile, spec: ErasureSpec, studio: Studio, known: Judge, options: argparse.Namespace
) -> Case:
    """Raises ConceptInvalid, Invalid."""
    concepts = (*case.concepts, *(one for name in case.presets for one in presets.load(name)))
    check_consistent(concepts, [])
    attacks = [
        AttackSpec(name=name, budget=options.budget, prompts=options.attacked)
        for name in case.attacks
    ]
    if case.style is not None:
        every = max(1, len(known.concepts.concepts) // options.at_most)
        suites = style_suites(
            *(known.concepts, case.style.erased, case.style.other, options.split), every=every
        )
        return Case(case.name, concepts, spec, suites, Colourless(case.style.erased), attacks)
    targets = targets_of(known.concepts, [word for one in concepts for word in one.words])
    detector = load_detector(
        DetectorSpec(classes=classes_of(known.concepts, targets)), model_folder=options.base
    )
    asked = [
        built_in(name, known.concepts, targets, studio.encoder, options.split, seed=options.seed)
        for name in SUITES
    ]
    suites = [suite.thinned(options.at_most) for suite in asked]
    return Case(case.name, concepts, spec, suites, detector, attacks)


def _read(path: Path) -> list[CaseFile]:
    """Raises ConceptInvalid."""
    try:
        return Cases.validate_python(yaml.safe_load(path.read_text()))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConceptInvalid(f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        raise ConceptInvalid(f"{path}: {_first(error)}") from error


def _spec(case: CaseFile, options: argparse.Namespace) -> ErasureSpec:
    """Both stages' settings; what is erased is said elsewhere. Raises ConceptInvalid."""
    fields = {
        "base_model": "base",
        "preset": "weapons",
        "textual": json.loads(options.textual) | case.textual,
        "steering": json.loads(options.steering) | case.steering,
    }
    try:
        return ErasureSpec.model_validate(fields)
    except ValidationError as error:
        raise ConceptInvalid(_first(error)) from error


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the settings'}: {first['msg']}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.evaluation.stages_table",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("cases", type=Path, metavar="CASES", help="what is erased, and how it is attacked")
    add("--base", type=Path, required=True, metavar="DIR", help="model with a judge")
    add("--rows", type=Path, required=True, metavar="FILE", help="JSON lines; rows are kept here")
    add("--cache", type=Path, required=True, metavar="DIR", help="keep pictures and moments here")
    add("--only", metavar="NAME", help="one of the cases")
    add("--split", choices=("tuning", "test"), default="tuning")
    add("--textual", default="{}", metavar="JSON", help="settings of stage 1")
    add("--steering", default="{}", metavar="JSON", help="settings of stage 2")
    add("--seeds", type=int, default=2, metavar="N", help="runs of stage 2 on top of stage 1")
    add("--at-most", type=int, default=60, metavar="N", help="prompts of each kind, evenly spread")
    add("--steps", type=int, default=20, metavar="N", help="of each picture")
    add("--budget", type=int, default=20, metavar="N", help="of each attack")
    add("--attacked", type=int, default=8, metavar="N", help="prompts that are attacked")
    add("--seed", type=int, default=0, help="of the first picture of each kind")
    add("--threads", type=int, default=1)
    return parser


if __name__ == "__main__":
    sys.exit(main())
