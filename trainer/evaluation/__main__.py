"""`python -m trainer.evaluation`: one evaluation as a process of its own, offline."""

import argparse
import os
import sys
from pathlib import Path

import yaml
from pydantic import ValidationError
from rich.console import Console

from core.errors import AppError, Invalid, ModelUnsupported
from core.evaluation import EvaluationSpec
from core.files import write_atomically
from core.importing import read_family
from core.making import describe
from core.manifests import Manifest
from core.model_folder import MANIFEST
from core.progress import Reporter
from core.reports import FILENAME as REPORT
from core.reports import PAGE, Report
from core.terminating import cleaned_up
from core.version import CODE_VERSION
from trainer.full_disk import full_disk_named
from trainer.reporting import bars, print_json, print_json_error

FAILED = 2
DESCRIPTION = """\
Let an erased model and its base draw the same prompts from the same seeds, judge the pictures,
attack the erased model, and write report.json and report.html.

SPEC is a YAML or JSON file with the fields of POST /v1/evaluations, for example

    model: emoji-weapons
    suites: [explicit, descriptions, ordinary]
    attacks: [{name: ring-a-bell, budget: 20}]

or a report.json: then the evaluation it tells of is done again.
"""


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    # Libraries look at these when they are imported, which happens only below.
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    try:
        # Pictures that are drawn stay in the cache.
        with cleaned_up(), full_disk_named(options.out, options.cache):
            if options.progress == "json":
                report = _run(options, print_json)
            else:
                with bars() as shown:
                    report = _run(options, shown)
    except AppError as error:
        if options.progress == "json":
            print_json_error(error)
        Console(stderr=True).print(f"{type(error).__name__}: {error.detail}", style="red")
        return FAILED
    for suite in report.suites:
        figure = f"ASR {suite.asr}" if suite.kind == "erased" else f"kept {suite.kept}"
        Console(stderr=True).print(f"{suite.name:<14} {figure}", highlight=False)
    Console(stderr=True).print(f"{options.out / PAGE}")
    return 0


def _run(options: argparse.Namespace, report: Reporter) -> Report:
    spec = _read_spec(options.spec)
    model = _manifest(options.model or options.base, options.model_manifest, spec.model)
    base_id = model.edit.base_model if model.edit else spec.model
    base = _manifest(options.base, options.base_manifest, base_id)
    # Imported here: --help and a wrong spec answer at once, without loading torch.
    import torch  # noqa: PLC0415
    from diffusers.utils import logging as diffusers_logging  # noqa: PLC0415
    from transformers.utils import logging as transformers_logging  # noqa: PLC0415

    from trainer.evaluation.evaluate import evaluate  # noqa: PLC0415
    from trainer.evaluation.page import page  # noqa: PLC0415

    transformers_logging.disable_progress_bar()
    diffusers_logging.disable_progress_bar()
    if options.threads:
        torch.set_num_threads(options.threads)
    evaluation = evaluate(
        *(options.base, base, options.model or options.base, model, spec, report),
        cache=options.cache,
        prompt_sets=options.prompt_sets,
        device=options.device,
    )
    write_atomically(options.out / PAGE, page(evaluation).encode())
    write_atomically(options.out / REPORT, evaluation.report.to_bytes())
    return evaluation.report


def _read_spec(path: Path) -> EvaluationSpec:
    """YAML contains JSON, so one parser reads both. Raises Invalid."""
    try:
        document = yaml.safe_load(path.read_text())
        if isinstance(document, dict) and "request" in document:
            document = document["request"]
        return EvaluationSpec.model_validate(document)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Invalid(f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the start"
        raise Invalid(f"{path} is wrong at {place}: {first['msg']}") from error


def _manifest(folder: Path, given: Path | None, model_id: str) -> Manifest:
    """What a folder says of itself; a base that was never registered is described as it is.

    Args:
        given: a file with the manifest that is to be believed instead.

    Raises:
        UntrustedModel, ModelUnsupported.
    """
    if given is not None or (folder / MANIFEST).is_file():
        try:
            data = Manifest.read_bytes(folder) if given is None else given.read_bytes()
        except OSError as error:
            raise ModelUnsupported(
                f"{given or folder / MANIFEST} cannot be read: {error}"
            ) from error
        manifest = Manifest.parse(data, folder.name)
        manifest.check_files(folder)
        return manifest
    if not folder.is_dir():
        raise ModelUnsupported(f"there is no model folder {folder}")
    family, drawing = read_family(folder)
    return describe(
        folder, model_id=model_id, family=family, drawing=drawing, code_version=CODE_VERSION
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.evaluation",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("spec", type=Path, metavar="SPEC", help="what to measure, see above; or a report.json")
    add("--base", type=Path, required=True, metavar="DIR", help="the base model")
    add("--model", type=Path, metavar="DIR", help="the erased model (default: the base itself)")
    held = "held against its files (default: that in its folder, if any)"
    add("--base-manifest", type=Path, metavar="FILE", help=f"manifest of the base, {held}")
    add("--model-manifest", type=Path, metavar="FILE", help=f"manifest of the model, {held}")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the report")
    add("--cache", type=Path, required=True, metavar="DIR", help="keep pictures here")
    add("--prompt-sets", type=Path, default=Path(), metavar="DIR", help="folder of prompt files")
    add("--device", default="cpu", help="cpu, cuda, cuda:1 ... (default: %(default)s)")
    add("--threads", type=int, metavar="N", help="on the CPU (default: PyTorch's choice)")
    add(
        "--progress",
        choices=("bar", "json"),
        default="bar",
        help="bars, or one JSON object a line",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
