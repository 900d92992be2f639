"""One erasure, start to end: a base model and a spec in, the folder of an erased model out.

    <out>/erasure.safetensors      T, and what stage 2 changed: what a worker needs
          statistics.safetensors   what adds or removes concepts later, exactly
          unet/                    the base's UNet with T folded in, for any other program
          README.md                the model card
          manifest.json            unsigned; whoever registers the model signs it

The folder is made under a temporary name beside `out` and renamed: it is whole or not there. The
same base, spec and code give the same weights, byte for byte, on the CPU of one machine with the
same number of threads.
"""

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

from core.edits import Edit, StageCost
from core.importing import read_family
from core.learning_rate import check_learning_rate
from core.making import describe
from core.manifests import Manifest
from core.merging import completed, concepts_to_erase
from core.progress import Reporter
from core.specs import Concept, ErasureSpec
from core.trajectories import reaching_all
from core.version import CODE_VERSION
from diffusion.erasure import FILENAME as ERASURE
from diffusion.erasure import Erasure, write_unet
from diffusion.loading import check_base, load_prompt_encoder, load_unet
from diffusion.model_concepts import ModelConcepts
from diffusion.prompts import PromptEncoder
from diffusion.weights import find_weights, open_weights
from trainer import model_card
from trainer.company import check_processes, company
from trainer.devices import check_device
from trainer.earlier import Earlier, merged_manifests, read_earlier
from trainer.folders import check_empty, check_writable, new_folder
from trainer.latency import map_seconds, step_seconds
from trainer.memory import cost
from trainer.neighbours import find_neighbours, protecting, taken_over
from trainer.reporting import counter
from trainer.room import check_room
from trainer.sampling import Showing, open_sampler
from trainer.solving import solve
from trainer.steered import StageOne, steer
from trainer.trce.archive import FILENAME as STATISTICS
from trainer.trce.archive import save_statistics
from trainer.trce.texts import Texts
from trainer.vocabulary import check_vocabulary


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
    processes: int = 1,
    showing: Showing | None = None,
) -> Manifest:
    """Make the erased model in `out`, and return its unsigned manifest.

    Args:
        manifest: of the base; None for a folder that was never registered.
        out: does not exist yet, or is an empty folder.
        cache: a folder for what can be used again, see `trainer.preservation`.
        merge: the folders of the models that `spec.merge` names, in that order.
        work: a folder for this run alone, from which a run that was killed is resumed.
        processes: that stage 2 runs in, on a GPU each where `device` is cuda.
        showing: samples on the way, if they are wanted; they change nothing of the model.

    Raises:
        ConceptInvalid, SingularEdit, SteeringDiverged, UntrustedModel, ModelUnsupported,
        NotEnoughRoom.
        Invalid: there is no such device, fewer GPUs than processes, or too little for each
            to do, or the learning rate is one for smaller models; or `out` or `work` is where
            nothing can be written.
        ModelExists: there is something in `out`.
    """
    started = time.monotonic()
    check_empty(out)
    merged = merged_manifests(spec, merge)
    if merged:
        spec = completed(spec, merged)
    concepts = concepts_to_erase(spec, merged)
    spec = reaching_all(spec, concepts)
    _check_running(base, manifest, spec, device, processes, work)
    advance = counter(report, "loading", 1)
    family, drawing = read_family(base)
    described = manifest or describe(
        base,
        model_id=spec.base_model,
        family=family,
        drawing=drawing,
        code_version=CODE_VERSION,
        links=True,
    )
    earlier = read_earlier(spec, merge, merged, described) if merged else None
    known = ModelConcepts.of(base)
    neighbours = taken_over([one.edit for one in merged if one.edit], concepts)
    before = protecting(spec, neighbours, concepts)
    check_room(base, out, before, concepts, device=device, work=work, processes=processes)
    encoder = _reader(base, manifest, before, concepts, earlier, device=device)
    advance(1)

    sampler = open_sampler(
        *(base, manifest, spec, concepts, encoder, known, showing),
        native_px=drawing.native_px,
        device=device,
    )
    costs: dict[str, StageCost] = {}
    with cost(costs, "stage 1", device):
        neighbours |= _found(encoder, spec, concepts, known, earlier)
        told = protecting(spec, neighbours, concepts)
        solution = solve(
            encoder, concepts, told, known=known, report=report, cache=cache, earlier=earlier
        )
    erasure, curve, latency = solution.erasure, None, dict[str, float]()
    if sampler is not None:
        sampler.after_stage_one(erasure)
    if spec.steering is not None:
        assert encoder is not None
        begun = StageOne(
            *(described.content_digest, encoder, known),
            *(drawing.native_px, concepts, erasure),
        )
        texts = Texts.read(encoder, ["", concepts[0].name], size_px=drawing.native_px)
        others = company(
            *(processes, base, manifest, begun, spec, neighbours), device=device, work=work
        )
        with cost(costs, "stage 2", device), others as ranks:
            unet, scheduler = (
                (sampler.unet, sampler.scheduler_config)
                if sampler
                else load_unet(base, manifest, device=device)
            )
            steered = steer(
                *(unet, scheduler, begun, told),
                report=report,
                work=work,
                ranks=ranks,
                sampler=sampler,
                # A sampler reads its prompts anew in every round.
                prompts_read=(lambda: None) if sampler else encoder.release,
            )
        erasure, curve = replace(erasure, tensors=steered.tensors), steered.curve
        latency = _latency(unet, texts, base, erasure)

    advance = counter(report, "writing", 1)
    with new_folder(out) as folder:
        erasure.save(folder / ERASURE, {"base": described.content_digest, "method": spec.method})
        save_statistics(folder / STATISTICS, solution.statistics, solution.kept)
        _write_unet(base, folder, erasure if concepts else None)
        record = Edit(
            base_model=described.id,
            base_digest=described.content_digest,
            method=spec.method,
            concepts=concepts,
            textual=spec.textual,
            steering=spec.steering,
            seed=spec.seed,
            neighbours=neighbours,
            merged=spec.merge,
            seconds=round(time.monotonic() - started, 3),
            costs=costs,
            figures={
                **solution.figures,
                "map_prompt_seconds": map_seconds(erasure, device),
                **latency,
                **({"processes": processes} if spec.steering and processes > 1 else {}),
                **({"samples_seconds": round(sampler.seconds, 3)} if sampler else {}),
                "peak_memory_bytes": max(one.peak_memory_bytes for one in costs.values()),
                **_sizes(base, folder, erasure),
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
    advance(1)
    return made


def _check_running(
    base: Path,
    manifest: Manifest | None,
    spec: ErasureSpec,
    device: torch.device | str,
    processes: int,
    work: Path | None,
) -> None:
    """Raises Invalid, UntrustedModel, see `erase`."""
    check_device(device)
    check_learning_rate(spec, base, manifest)
    if spec.steering is not None:
        check_processes(processes, device, spec.steering)
        if work is not None:
            check_writable(work)


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


def _found(
    encoder: PromptEncoder | None,
    spec: ErasureSpec,
    concepts: Sequence[Concept],
    known: ModelConcepts | None,
    earlier: Earlier | None,
) -> dict[str, tuple[str, ...]]:
    """What is near the concepts that are new; of the others it was found before."""
    if encoder is None:
        return {}
    fresh = [one for one in concepts if not (earlier and one.name in earlier.concepts)]
    return find_neighbours(encoder, fresh, known, erased=concepts, count=spec.textual.neighbours)


def _write_unet(base: Path, folder: Path, erasure: Erasure | None) -> None:
    """None: nothing is left to erase, so the base's own files are the result, bit for bit."""
    if erasure is not None:
        write_unet(base / "unet", erasure, folder / "unet")
    else:
        shutil.copytree(base / "unet", folder / "unet")


def _sizes(base: Path, folder: Path, erasure: Erasure) -> dict[str, float]:
    """Of what was written; parameters changed are trained ones and those with a map folded in."""
    with open_weights(*find_weights(base / "unet").paths) as weights:
        changed = [weights.shape(name) for name in weights.names if erasure.changes(name)]
    return {
        "artifact_bytes": (folder / ERASURE).stat().st_size,
        "unet_bytes": sum(path.stat().st_size for path in find_weights(folder / "unet").paths),
        "parameters_changed": sum(map(prod, changed)),
    }


def _latency(
    unet: UNet2DConditionModel, texts: Texts, base: Path, erasure: Erasure
) -> dict[str, float]:
    """Of a step with the base's tensors and with those that stage 2 made; stage 1 has none.

    A model of stage 1 alone draws with the base's UNet, which is not loaded to erase it.
    """
    with open_weights(*find_weights(base / "unet").paths) as weights:
        before = {name: weights.tensor(name) for name in erasure.tensors}
    plain, erased = step_seconds(unet, texts.through(erasure), before, erasure.tensors)
    return {"base_step_seconds": plain, "erased_step_seconds": erased}
