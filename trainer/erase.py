"""One erasure, start to end: a base model and a spec in, the folder of an erased model out.

    <out>/erasure.safetensors      T: what a worker needs
          statistics.safetensors   what adds or removes concepts later, exactly
          unet/                    the base's UNet with T folded in, for any other program
          README.md                the model card
          manifest.json            unsigned; whoever registers the model signs it

The folder is made under a temporary name beside `out` and renamed: it is whole or not there. The
same base, spec and code give the same weights, byte for byte.
"""

import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from core.errors import ModelExists
from core.files import sync_folder
from core.importing import read_family
from core.manifests import Edit, Manifest
from core.progress import Reporter
from core.registry import describe
from core.specs import Concept, ErasureSpec
from core.version import CODE_VERSION
from diffusion.erasure import FILENAME as ERASURE
from diffusion.erasure import Erasure, save_unet
from diffusion.loading import load_base
from diffusion.model_concepts import ModelConcepts
from diffusion.prompts import PromptEncoder
from trainer import model_card
from trainer.concepts import concepts_to_erase, prompt_pairs
from trainer.memory import peak_memory_bytes
from trainer.preservation import caption_groups, kept_moment
from trainer.reporting import counter
from trainer.trce.gathering import gather_statistics
from trainer.trce.statistics import FILENAME as STATISTICS
from trainer.trce.statistics import Statistics, save_statistics
from trainer.trce.textual import TextualEdit, text_map


@dataclass(frozen=True)
class Solution:
    """Stage 1, and everything it was solved from."""

    edit: TextualEdit
    statistics: Mapping[str, Statistics]
    kept: Tensor

    @property
    def erasure(self) -> Erasure:
        return Erasure(text_map=self.edit.text_map.float().cpu())


def erase(
    base: Path,
    manifest: Manifest | None,
    spec: ErasureSpec,
    out: Path,
    report: Reporter,
    *,
    model_id: str,
    device: torch.device | str = "cpu",
    cache: Path | None = None,
) -> Manifest:
    """Make the erased model in `out`, and return its unsigned manifest.

    Args:
        manifest: of the base; None for a folder that was never registered.
        out: does not exist yet, or is an empty folder.
        cache: a folder for what can be used again, see `trainer.preservation`.

    Raises:
        ConceptInvalid, SingularEdit, UntrustedModel, ModelUnsupported.
        ModelExists: there is something in `out`.
    """
    started = time.monotonic()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ModelExists(f"{out} is not empty; name a folder that does not exist yet")
    concepts = concepts_to_erase(spec)
    advance = counter(report, "loading", 1)
    family, drawing = read_family(base)
    described = manifest or describe(
        base, model_id=spec.base_model, family=family, drawing=drawing, code_version=CODE_VERSION
    )
    components = load_base(base, manifest, device=device)
    advance(1)

    encoder = PromptEncoder(components.tokenizer, components.text_encoder)
    known = ModelConcepts.of(base)
    solution = solve(encoder, concepts, spec, known=known, report=report, cache=cache)

    advance = counter(report, "writing", 1)
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        source = {"base": described.content_digest, "method": spec.method}
        solution.erasure.save(folder / ERASURE, source)
        save_statistics(folder / STATISTICS, solution.statistics, solution.kept)
        save_unet(components.unet, solution.erasure, folder / "unet")
        record = Edit(
            base_model=described.id,
            base_digest=described.content_digest,
            method=spec.method,
            concepts=concepts,
            textual=spec.textual,
            seed=spec.seed,
            seconds=round(time.monotonic() - started, 3),
            figures={
                "condition_number": solution.edit.condition,
                "relative_change": solution.edit.relative_change,
                "words": Statistics.total(solution.statistics.values()).weight,
                "peak_memory_bytes": peak_memory_bytes(device),
                "artifact_bytes": (folder / ERASURE).stat().st_size,
            },
        )
        (folder / "README.md").write_text(model_card.text(model_id, record))
        made = describe(
            folder,
            model_id=model_id,
            family=family,
            drawing=drawing,
            code_version=CODE_VERSION,
            edit=record,
        )
        made.write(folder)
        _make_readable(folder)
        folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sync_folder(out.parent)
    advance(1)
    return made


def _make_readable(folder: Path) -> None:
    """Temporary folders and safetensors files are private at first; other processes serve this."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def solve(
    encoder: PromptEncoder,
    concepts: Sequence[Concept],
    spec: ErasureSpec,
    *,
    known: ModelConcepts | None,
    report: Reporter,
    cache: Path | None,
) -> Solution:
    """Stage 1 in memory.

    Args:
        known: what the base says it can draw; what is not erased of it is preserved.

    Raises:
        SingularEdit
    """
    options = spec.textual
    groups = caption_groups(concepts, known=known, protect=options.protect, seed=spec.seed)
    captions = sum(len(group.captions) for group in groups)
    advance = counter(report, "reading captions", captions)
    kept = kept_moment(encoder, groups, cache=cache, advance=advance)

    pairs = prompt_pairs(concepts)
    advance = counter(report, "reading concepts", sum(map(len, pairs.values())))
    statistics = gather_statistics(encoder, pairs, which=options.eot_tokens, advance=advance)

    advance = counter(report, "solving", 1)
    edit = text_map(
        Statistics.total(statistics.values()), kept, preserve=options.preserve, ridge=options.ridge
    )
    advance(1)
    return Solution(edit=edit, statistics=statistics, kept=kept)
