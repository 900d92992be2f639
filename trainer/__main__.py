"""`python -m trainer`: one erasure as a process of its own, offline."""

import argparse
import os
import sys
from pathlib import Path

import yaml
from pydantic import ValidationError
from rich.console import Console

from core import erasure_flags as flags
from core.consistency import check_filled_in
from core.errors import AppError, ConceptInvalid, ModelUnsupported
from core.manifests import Manifest
from core.model_folder import MANIFEST
from core.progress import Reporter
from core.samples import MAX_SAMPLES
from core.specs import ErasureSpec
from core.terminating import TERMINATED, cleaned_up
from core.user_cache import user_cache
from trainer.full_disk import full_disk_named
from trainer.inputs import base_folder, checked_model_id, model_id_of, with_captions
from trainer.reporting import (
    bars,
    print_json,
    print_json_error,
    print_json_samples,
    quieten_libraries,
)

FAILED = 2
DESCRIPTION = """\
Erase concepts from a Stable Diffusion model, and write the erased model as a folder.

SPEC is a YAML or JSON file with the fields of POST /v1/erasures, for example

    base_model: emoji
    preset: weapons              # or several: [weapons, drugs]

or, with concepts of your own,

    base_model: emoji
    concepts:
      - name: axe
        synonyms: [hatchet]
        replacement: flower
        kind: object             # or style, identity, unsafe
    textual:
      protect: [hammer, {name: saw, weight: 3}]
    steering: {}                 # stage 2, with its defaults; leave it out for stage 1 alone

or take over what earlier models erased, exactly, without reading a prompt again:

    base_model: emoji
    merge: [no-axes, no-guns]    # with --merge DIR for each
    remove: [axe]
"""
EPILOG = f"""\
Exit codes: 0 made; {FAILED} the erasure cannot be made as asked (the reason is on stderr, or with
--progress json in the last line of stdout); {TERMINATED} stopped by SIGTERM. Whatever happens, \
--out is
whole or not there. Nothing is looked up on the network.
"""


def main(arguments: list[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.samples and options.progress != "json":
        parser.error("--samples: they are printed as JSON; add --progress json")
    # Libraries look at these when they are imported, which happens only below.
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    options.cache = options.cache or user_cache()
    try:
        with cleaned_up(), full_disk_named(options.out, options.work, options.cache):
            manifest = _erase(options)
    except AppError as error:
        if options.progress == "json":
            print_json_error(error)
        Console(stderr=True).print(f"{type(error).__name__}: {error.detail}", style="red")
        return FAILED
    Console(stderr=True).print(f"{manifest.id} is in {options.out}")
    return 0


def _erase(options: argparse.Namespace) -> Manifest:
    given: str | None = options.model_id
    model_id = model_id_of(options.out) if given is None else checked_model_id(given)
    spec = _read_spec(options.spec)
    if options.captions is not None:
        spec = with_captions(spec, options.captions)
    manifest = _manifest(options)
    if options.progress == "json":
        return _run(options, spec, manifest, model_id, print_json)
    with bars() as report:
        return _run(options, spec, manifest, model_id, report)


def _run(
    options: argparse.Namespace,
    spec: ErasureSpec,
    manifest: Manifest | None,
    model_id: str,
    report: Reporter,
) -> Manifest:
    # Imported here: --help and a wrong spec answer at once, without loading torch.
    import torch  # noqa: PLC0415

    from trainer.erase import erase  # noqa: PLC0415
    from trainer.sampling import Showing  # noqa: PLC0415

    quieten_libraries()
    if options.threads:
        torch.set_num_threads(options.threads)
    with base_folder(options.base, options.like, options.out) as base:
        return erase(
            base,
            manifest,
            spec,
            options.out,
            report,
            model_id=model_id,
            device=options.device,
            cache=options.cache,
            merge=options.merge,
            work=options.work,
            processes=options.processes,
            showing=Showing(options.samples, print_json_samples) if options.samples else None,
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("spec", type=Path, metavar="SPEC", help="what to erase, see above")
    parser.add_argument(
        "--base",
        type=Path,
        required=True,
        metavar="DIR",
        help="the base model: a diffusers folder, or one .safetensors file",
    )
    parser.add_argument(
        "--like",
        type=Path,
        metavar="DIR",
        help=flags.LIKE,
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="the erased model; must not exist yet",
    )
    parser.add_argument(
        "--model-id", metavar="ID", help="id of the erased model (default: the name of --out)"
    )
    parser.add_argument(
        "--base-manifest",
        type=Path,
        metavar="FILE",
        help="manifest of the base, held against its files (default: that in --base, if any)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help=flags.CACHE,
    )
    parser.add_argument(
        "--merge",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help=flags.MERGE,
    )
    parser.add_argument(
        "--captions",
        type=Path,
        metavar="FILE",
        help=flags.CAPTIONS,
    )
    parser.add_argument(
        "--work",
        type=Path,
        metavar="DIR",
        help=flags.WORK,
    )
    parser.add_argument("--device", default="cpu", help=f"{flags.DEVICE} (default: %(default)s)")
    parser.add_argument(
        "--processes",
        type=int,
        default=1,
        metavar="N",
        help=f"{flags.PROCESSES} (default: %(default)s)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help=flags.THREADS)
    parser.add_argument(
        "--progress",
        choices=("bar", "json"),
        default="bar",
        help="bars on stderr, or one JSON object per line on stdout (default: %(default)s)",
    )
    parser.add_argument(
        "--samples",
        type=int,
        choices=range(MAX_SAMPLES + 1),
        default=0,
        metavar="N",
        help=f"with --progress json: draw N pictures, at most {MAX_SAMPLES}, with the base, after "
        "stage 1 and now and then in stage 2, and print them; the model is the same without",
    )
    return parser


def _read_spec(path: Path) -> ErasureSpec:
    """YAML contains JSON, so one parser reads both."""
    try:
        spec = ErasureSpec.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConceptInvalid(f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the start"
        raise ConceptInvalid(f"{path} is wrong at {place}: {first['msg']}") from error
    check_filled_in(spec)
    return spec


def _manifest(options: argparse.Namespace) -> Manifest | None:
    path: Path = options.base_manifest or options.base / MANIFEST
    if options.base_manifest is None and not path.exists():
        return None
    try:
        return Manifest.parse(path.read_bytes(), path.parent.name)
    except OSError as error:
        raise ModelUnsupported(f"{path} cannot be read: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
