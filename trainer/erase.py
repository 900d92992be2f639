"""One erasure, start to end: a base model and a spec in, the folder of an erased model out.

    <out>/erasure.safetensors      T, and what stage 2 changed: what a worker needs
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
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import torch

from core.errors import ConceptInvalid, ModelExists, ModelUnsupported
from core.files import sync_folder
from core.importing import read_family
from core.manifests import Edit, Manifest, StageCost
from core.merging import completed, concepts_to_erase, taken_over
from core.progress import Reporter
from core.registry import describe
from core.specs import Concept, ErasureSpec, TextualOptions
from core.version import CODE_VERSION
from diffusion.erasure import FILENAME as ERASURE
from diffusion.erasure import Erasure, write_unet
from diffusion.loading import check_base, load_prompt_encoder, load_unet
from diffusion.model_concepts import ModelConcepts
from diffusion.prompts import PromptEncoder
from diffusion.weights import find_weights, open_weights
from trainer import model_card
from trainer.concepts import prompt_pairs
from trainer.memory import cost
from trainer.preservation import NEIGHBOUR, Kept, caption_groups, read_groups
from trainer.reporting import counter
from trainer.room import check_room
from trainer.steered import StageOne, steer
from trainer.trce.archive import FILENAME as STATISTICS
from trainer.trce.archive import load_statistics, save_statistics
from trainer.trce.gathering import gather_statistics
from trainer.trce.statistics import Statistics
from trainer.trce.textual import TextualEdit, text_map
from trainer.vocabulary import check_vocabulary


@dataclass(frozen=True)
class Earlier:
    """What the models to merge were solved from."""

    concepts: frozenset[str]
    """Names; one whose words all stand under another has no statistics of its own."""
    statistics: Mapping[str, Statistics]
    kept: Kept

    def suffices(self, concepts: Sequence[Concept], options: TextualOptions) -> bool:
        """Nothing is to be read: no concept and no neighbour is new."""
        groups = {group.name for group in self.kept.groups}
        return {concept.name for concept in concepts} <= self.concepts and all(
            f"{NEIGHBOUR}{neighbour.name}" in groups for neighbour in options.protect
        )


@dataclass(frozen=True)
class Solution:
    """Stage 1, and everything it was solved from."""

    edit: TextualEdit | None
    """None when no concept is left to erase."""
    pooled_edit: TextualEdit | None
    """Of pooled embeddings; SDXL alone has them."""
    strength: float
    statistics: Mapping[str, Statistics]
    kept: Kept

    @property
    def erasure(self) -> Erasure:
        maps = [
            None if edit is None else edit.at_strength(self.strength).float()
            for edit in (self.edit, self.pooled_edit)
        ]
        return Erasure(text_map=maps[0], pooled_map=maps[1])

    @property
    def relative_change(self) -> float:
        """||T - I|| / ||I||, at full strength."""
        return self.edit.relative_change if self.edit else 0.0


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
    merge: Sequence[Path] = (),
    work: Path | None = None,
) -> Manifest:
    """Make the erased model in `out`, and return its unsigned manifest.

    Args:
        manifest: of the base; None for a folder that was never registered.
        out: does not exist yet, or is an empty folder.
        cache: a folder for what can be used again, see `trainer.preservation`.
        merge: the folders of the models that `spec.merge` names, in that order.
        work: a folder for this run alone, from which a run that was killed is resumed.

    Raises:
        ConceptInvalid, SingularEdit, SteeringDiverged, UntrustedModel, ModelUnsupported,
        NotEnoughRoom.
        ModelExists: there is something in `out`.
    """
    started = time.monotonic()
    _check_empty(out)
    merged = _merged_manifests(spec, merge)
    if merged:
        spec = completed(spec, merged)
    concepts = concepts_to_erase(spec, merged)
    if spec.steering is not None and not concepts:
        raise ConceptInvalid("steering: no concept is left to erase; leave it out")
    advance = counter(report, "loading", 1)
    family, drawing = read_family(base)
    described = manifest or describe(
        base, model_id=spec.base_model, family=family, drawing=drawing, code_version=CODE_VERSION
    )
    earlier = _earlier(spec, merge, merged, described) if merged else None
    check_room(base, out, spec, concepts, device=device)
    encoder = _reader(base, manifest, spec, concepts, earlier, device=device)
    advance(1)

    known = ModelConcepts.of(base)
    costs: dict[str, StageCost] = {}
    with cost(costs, "stage 1", device):
        solution = solve(
            encoder, concepts, spec, known=known, report=report, cache=cache, earlier=earlier
        )
    erasure, curve = solution.erasure, None
    if spec.steering is not None:
        assert encoder is not None
        begun = StageOne(
            *(described.content_digest, encoder, known),
            *(drawing.native_px, concepts, erasure),
        )
        with cost(costs, "stage 2", device):
            steered = steer(
                *load_unet(base, manifest, device=device), begun, spec, report=report, work=work
            )
        erasure, curve = replace(erasure, tensors=steered.tensors), steered.curve

    advance = counter(report, "writing", 1)
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        source = {"base": described.content_digest, "method": spec.method}
        erasure.save(folder / ERASURE, source)
        save_statistics(folder / STATISTICS, solution.statistics, solution.kept)
        if concepts:
            write_unet(base / "unet", erasure, folder / "unet")
        else:
            # Nothing is left to erase, so the base's own files are the result, bit for bit.
            shutil.copytree(base / "unet", folder / "unet")
        record = Edit(
            base_model=described.id,
            base_digest=described.content_digest,
            method=spec.method,
            concepts=concepts,
            textual=spec.textual,
            steering=spec.steering,
            seed=spec.seed,
            merged=spec.merge,
            seconds=round(time.monotonic() - started, 3),
            costs=costs,
            figures={
                **_figures(solution),
                "peak_memory_bytes": max(one.peak_memory_bytes for one in costs.values()),
                "artifact_bytes": (folder / ERASURE).stat().st_size,
                "unet_bytes": sum(
                    path.stat().st_size for path in find_weights(folder / "unet").paths
                ),
                "parameters_changed": _parameters_changed(base / "unet", erasure),
            },
            loss_curve=curve,
        )
        (folder / "README.md").write_text(model_card.text(model_id, record))
        made = describe(
            folder,
            model_id=model_id,
            family=family,
            drawing=drawing,
            code_version=CODE_VERSION,
            edit=record,
            promote_if=spec.promote_if,
        )
        made.write(folder)
        _make_readable(folder)
        folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sync_folder(out.parent)
    advance(1)
    return made


def _check_empty(out: Path) -> None:
    """Raises ModelExists."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ModelExists(f"{out} is not empty; name a folder that does not exist yet")


def _reader(
    base: Path,
    manifest: Manifest | None,
    spec: ErasureSpec,
    concepts: Sequence[Concept],
    earlier: Earlier | None,
    *,
    device: torch.device | str,
) -> PromptEncoder | None:
    """What reads prompts, checked with the base; None when there is nothing to read.

    Raises:
        ConceptInvalid, UntrustedModel, ModelUnsupported.
    """
    if earlier is not None and spec.steering is None and earlier.suffices(concepts, spec.textual):
        check_base(base, manifest)
        return None
    encoder = load_prompt_encoder(base, manifest, device=device)
    check_vocabulary(encoder, concepts, spec.textual.protect)
    return encoder


def _parameters_changed(unet: Path, erasure: Erasure) -> int:
    """In the erased `unet/`: trained ones, and those that the text maps are folded into."""
    with open_weights(*find_weights(unet).paths) as weights:
        return sum(prod(weights.shape(name)) for name in weights.names if erasure.changes(name))


def _make_readable(folder: Path) -> None:
    """Temporary folders and safetensors files are private at first; other processes serve this."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def solve(
    encoder: PromptEncoder | None,
    concepts: Sequence[Concept],
    spec: ErasureSpec,
    *,
    known: ModelConcepts | None,
    report: Reporter,
    cache: Path | None,
    earlier: Earlier | None = None,
) -> Solution:
    """Stage 1 in memory.

    Args:
        encoder: None when what is known from `earlier` suffices.
        known: what the base says it can draw; what is not erased of it is preserved.
        earlier: what is known already of some of the concepts, and of what is preserved.

    Raises:
        SingularEdit
    """
    options = spec.textual
    if encoder is None:
        assert earlier is not None
        advance = counter(report, "solving", 1)
        kept = earlier.kept.reweighted(options.protect)
        solution = solve_again(earlier.statistics, kept, concepts, options)
        advance(1)
        return solution
    groups = caption_groups(
        known=known, protect=options.protect, seed=spec.seed, own=options.captions
    )
    advance = counter(report, "reading captions", sum(len(group.captions) for group in groups))
    kept = read_groups(
        encoder,
        groups,
        erased=words_of(concepts),
        cache=cache,
        advance=advance,
        known=earlier.kept if earlier else None,
    )
    taken = earlier or Earlier(frozenset(), {}, kept)
    pairs = prompt_pairs([one for one in concepts if one.name not in taken.concepts])
    advance = counter(report, "reading concepts", sum(map(len, pairs.values())))
    fresh = gather_statistics(encoder, pairs, which=options.eot_tokens, advance=advance)

    advance = counter(report, "solving", 1)
    solution = solve_again({**taken.statistics, **fresh}, kept, concepts, options)
    advance(1)
    return solution


def solve_again(
    statistics: Mapping[str, Statistics],
    kept: Kept,
    concepts: Sequence[Concept],
    options: TextualOptions,
) -> Solution:
    """Stage 1 from what was summed up before: no prompt is read, so it takes milliseconds.

    Raises:
        SingularEdit
    """
    words = words_of(concepts)
    # In one order, so that the order of merging makes no bit of a difference.
    total = (
        Statistics.total(statistics[name] for name in sorted(statistics)) if statistics else None
    )
    pooled = total.pooled if total else None
    return Solution(
        edit=_solved(total, kept, words, options),
        pooled_edit=_solved(pooled, kept.pooled, words, options),
        strength=options.strength,
        statistics=statistics,
        kept=kept,
    )


def _solved(
    total: Statistics | None, kept: Kept | None, words: Sequence[str], options: TextualOptions
) -> TextualEdit | None:
    if total is None or kept is None:
        return None
    K = kept.moment(words)  # noqa: N806  (the paper's letter)
    return text_map(total, K, preserve=options.preserve, ridge=options.ridge)


def words_of(concepts: Sequence[Concept]) -> list[str]:
    return [word for concept in concepts for word in concept.words]


def _merged_manifests(spec: ErasureSpec, folders: Sequence[Path]) -> list[Manifest]:
    """Raises ConceptInvalid, UntrustedModel."""
    try:
        manifests = [Manifest.read(folder) for folder in folders]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConceptInvalid(f"merge: {error.filename} is not there") from error
    if [manifest.id for manifest in manifests] != list(spec.merge):
        raise ConceptInvalid(
            f"merge: the spec names {', '.join(spec.merge) or 'no models'}, and the folders given "
            f"hold {', '.join(manifest.id for manifest in manifests) or 'none'}"
        )
    return manifests


def _earlier(
    spec: ErasureSpec, folders: Sequence[Path], merged: Sequence[Manifest], base: Manifest
) -> Earlier:
    """Raises ConceptInvalid, UntrustedModel, ModelUnsupported."""
    statistics: dict[str, Statistics] = {}
    kept: Kept | None = None
    concepts, _ = taken_over(spec, merged)
    for folder, manifest in zip(folders, merged, strict=True):
        manifest.check_files(folder)
        assert manifest.edit is not None  # `completed` refuses others
        if manifest.edit.base_digest != base.content_digest:
            raise ConceptInvalid(
                f"merge: {manifest.id} was made from another {base.id} than the one here"
            )
        changed = len(Erasure.load(folder / ERASURE).tensors)
        if changed and spec.steering is None:
            raise ModelUnsupported(
                f"merge: stage 2 changed {changed} tensors of {manifest.id}, trained for exactly "
                "its concepts; give `steering` to train anew for the concepts of all"
            )
        of_model, kept_there = load_statistics(folder / STATISTICS)
        statistics |= {name: one for name, one in of_model.items() if name in concepts}
        kept = kept_there if kept is None else kept | kept_there
    assert kept is not None
    return Earlier(frozenset(concepts), statistics, kept)


def _figures(solution: Solution) -> dict[str, float]:
    if solution.edit is None:
        return {}
    return {
        "condition_number": solution.edit.condition,
        "relative_change": solution.edit.relative_change,
        "words": Statistics.total(solution.statistics.values()).weight,
    }
