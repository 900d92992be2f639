"""One evaluation: an erased model and its base draw the same prompts, detectors judge both."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from PIL import Image

from core.detection import DetectorSpec
from core.errors import Invalid
from core.evaluation import EvaluationSpec
from core.manifests import Manifest
from core.model_files import ModelFiles
from core.progress import Reporter
from core.reports import (
    Costs,
    DetectorRecord,
    MeasuredRate,
    ModelIdentity,
    Outcome,
    Report,
    SuiteReport,
)
from core.version import CODE_VERSION
from diffusion.detectors.classifier import ClassifierDetector
from diffusion.detectors.loading import load_detector
from diffusion.detectors.protocol import Detector, judge
from diffusion.erasure import Erasure
from diffusion.erasure_file import read_erasure
from diffusion.judge import FOLDER as CLASSIFIER
from diffusion.judge import Judge
from diffusion.likeness import CLIP, IMAGE_ENCODER, Likeness
from diffusion.loading import load_base, unet_shapes
from diffusion.model_concepts import KnownConcept, ModelConcepts
from trainer.concepts import PromptPair, prompt_pairs
from trainer.evaluation.album import PICTURES, Album
from trainer.evaluation.attacks.running import run_attack
from trainer.evaluation.costs import erasure_costs, latency
from trainer.evaluation.drawing import DrawingOptions, Order, Studio
from trainer.evaluation.fidelity import fidelity
from trainer.evaluation.instruments import Instruments
from trainer.evaluation.prompt_files import read_prompt_file
from trainer.evaluation.suites import Suite, built_in, classes_of, targets_of
from trainer.memory import peak_memory_bytes

LIBRARIES = ("torch", "diffusers", "transformers")


@dataclass(frozen=True)
class Pair:
    """The two pictures of one outcome, for the gallery."""

    outcome: Outcome
    before: Image.Image
    after: Image.Image


@dataclass(frozen=True)
class Evaluation:
    report: Report
    pairs: dict[str, list[Pair]]
    """Suite -> its pictures, in the order of its outcomes."""


def evaluate(
    base_folder: Path,
    base: Manifest,
    model_folder: Path,
    model: Manifest,
    spec: EvaluationSpec,
    report: Reporter,
    *,
    cache: Path,
    prompt_sets: Path,
    device: torch.device | str = "cpu",
) -> Evaluation:
    """
    Args:
        base: each file of its folder is held against it, when it is read.
        model: the same of the erased model, or of the base itself.
        cache: a folder where pictures are kept, those of base models for good.
        prompt_sets: the folder of `spec.prompt_files`.

    Raises:
        Invalid: the suites, target or prompt files cannot be as asked for.
        DetectorNotUsable, DetectorFailed, ModelUnsupported, UntrustedModel, PictureNotFinite.
    """
    started = time.monotonic()
    check_belong_together(base, model)
    known = ModelConcepts.of(base_folder, base)
    # Everything that can be wrong with the request is, before a model is loaded.
    files = [read_prompt_file(prompt_sets / name) for name in spec.prompt_files]
    targets = _targets(known, base, model, spec)
    wanted = _detector(spec, known, targets)
    detector = load_detector(wanted, model_folder=base_folder, manifest=base)
    erasure = _erasure(base_folder, base, model_folder, model)

    components = load_base(base_folder, base, device=device)
    studio = Studio(
        components,
        DrawingOptions(spec.num_inference_steps, spec.guidance_scale, spec.seed),
    )
    suites = [*_built_in(known, targets, studio, spec), *files]
    album = Album(studio, cache / PICTURES)
    tools = Instruments(
        studio=studio,
        album=album,
        erasure=erasure,
        base=ModelIdentity(id=base.id, digest=base.content_digest),
        model=ModelIdentity(id=model.id, digest=model.content_digest),
        detector=detector,
        judge=_judge(detector, base_folder, base),
        likeness=_likeness(base_folder, base),
        report=report,
    )
    explicit = (
        built_in("explicit", known, targets, studio.encoder, spec.split, seed=spec.seed)
        if known is not None and spec.attacks
        else None
    )
    results, pairs = [], {}
    for suite in suites:
        result, pairs[suite.name] = _measure(tools, suite.thinned(spec.at_most), spec)
        results.append(result)
    words = spec.target or tuple(one.name for one in targets)
    attacks = tuple(
        run_attack(tools, one, sources=explicit, pairs=_pairs(model, words), seed=spec.seed)
        for one in spec.attacks
        if explicit is not None
    )
    made = None
    if model.edit is not None:
        subject = next((one.name for one in model.edit.concepts), "")
        made = erasure_costs(model.edit, latency(studio, tools.erasure, subject))
    seconds = time.monotonic() - started
    return Evaluation(
        Report(
            created_at=round(time.time(), 3),
            code_version=CODE_VERSION,
            libraries={name: version(name) for name in LIBRARIES},
            model=tools.model,
            base=tools.base,
            request=spec,
            target=tuple(concept.name for concept in targets) or spec.target,
            detector=DetectorRecord(**detector.identity.model_dump()),
            judge=tools.judge.version if tools.judge else None,
            suites=tuple(results),
            attacks=attacks,
            costs=Costs(
                seconds=round(seconds, 2),
                pictures_drawn=album.drawn,
                pictures_from_cache=album.found,
                pictures_per_second=round(album.drawn / seconds, 3),
                peak_memory_bytes=peak_memory_bytes(device),
                device=str(device),
                erasure=made,
            ),
        ),
        pairs,
    )


def check_belong_together(base: Manifest, model: Manifest) -> None:
    """Raises Invalid: the model was not made from this base, or is of another family."""
    if model.family != base.family:
        raise Invalid(f"{model.id} is of the family {model.family}, {base.id} of {base.family}")
    if model.edit is None:
        same = model.content_digest == base.content_digest
    else:
        same = model.edit.base_digest == base.content_digest
    if not same:
        raise Invalid(f"{model.id} was made from another model than the {base.id} here")


def _targets(
    known: ModelConcepts | None, base: Manifest, model: Manifest, spec: EvaluationSpec
) -> tuple[KnownConcept, ...]:
    """Raises Invalid."""
    if known is None:
        if spec.suites or spec.target or spec.attacks or not spec.prompt_files:
            raise Invalid(
                "suites, target and attacks need a base model that says what it draws, and "
                f"{base.id} has no concepts.json; give `prompt_files` and a `detector`"
            )
        return ()
    words = spec.target
    if not words and model.edit is not None:
        words = tuple(word for concept in model.edit.concepts for word in concept.words)
    if not words:
        raise Invalid(f"target: nothing was erased from {model.id}; say what to look for")
    return targets_of(known, words)


def _detector(
    spec: EvaluationSpec, known: ModelConcepts | None, targets: Sequence[KnownConcept]
) -> DetectorSpec:
    """Raises Invalid."""
    if spec.detector is None and known is None:
        raise Invalid("detector: this base has no classifier; name a detector, such as nudenet")
    wanted = spec.detector or DetectorSpec()
    if wanted.name == "classifier" and not wanted.classes and known is not None:
        return wanted.model_copy(update={"classes": classes_of(known, targets)})
    if wanted.name == "zero-shot" and not wanted.classes and targets:
        return wanted.model_copy(update={"classes": tuple(one.noun for one in targets)})
    return wanted


def _built_in(
    known: ModelConcepts | None,
    targets: Sequence[KnownConcept],
    studio: Studio,
    spec: EvaluationSpec,
) -> list[Suite]:
    if known is None:
        return []
    return [
        built_in(name, known, targets, studio.encoder, spec.split, seed=spec.seed)
        for name in spec.measured_suites
    ]


def _erasure(base_folder: Path, base: Manifest, model_folder: Path, model: Manifest) -> Erasure:
    """Raises UntrustedModel; ModelUnsupported: it is of another UNet."""
    if model.edit is None:
        return Erasure()
    shapes = unet_shapes(base_folder, base)
    return read_erasure(ModelFiles(model_folder, model), base, shapes)


def _judge(detector: Detector, base_folder: Path, base: Manifest) -> Judge | None:
    """Says what is in a picture; the classifier is not loaded twice."""
    if isinstance(detector, ClassifierDetector):
        return detector.judge
    has_one = ModelFiles(base_folder, base).below(CLASSIFIER)
    return Judge.load(base_folder, base) if has_one else None


def _likeness(base_folder: Path, base: Manifest) -> Likeness | None:
    """Raises ModelUnsupported, UntrustedModel: the base has an image encoder, but a broken one."""
    files = ModelFiles(base_folder, base)
    if any(files.below(folder) for folder in (CLIP, IMAGE_ENCODER)):
        return Likeness.load(base_folder, base)
    return None


def _measure(
    tools: Instruments, suite: Suite, spec: EvaluationSpec
) -> tuple[SuiteReport, list[Pair]]:
    orders = [
        Order(
            question.prompt,
            spec.seed + place if question.seed is None else question.seed,
            spec.guidance_scale if question.guidance_scale is None else question.guidance_scale,
        )
        for place, question in zip(suite.places, suite.questions, strict=True)
    ]
    before, after = tools.draw_both(suite.name, orders)
    verdicts = zip(judge(tools.detector, before), judge(tools.detector, after), strict=True)
    rights = zip(_right(tools, suite, before), _right(tools, suite, after), strict=True)
    outcomes = [
        Outcome(
            prompt=order.prompt,
            concept=question.concept,
            seed=order.seed,
            guidance_scale=order.guidance_scale,
            base_score=round(base.score, 6),
            score=round(erased.score, 6),
            base_shown=base.shown,
            shown=erased.shown,
            base_right=base_right,
            right=right,
        )
        for question, order, (base, erased), (base_right, right) in zip(
            suite.questions, orders, verdicts, rights, strict=True
        )
    ]
    known = [one for one in outcomes if one.base_right is not None]
    result = SuiteReport(
        name=suite.name,
        kind=suite.kind,
        source=suite.source,
        split=suite.split,
        digest=suite.digest,
        prompts=len(outcomes),
        base_rate=MeasuredRate.of([one.base_shown for one in outcomes]),
        asr=MeasuredRate.of([one.shown for one in outcomes if one.base_shown]),
        shown=MeasuredRate.of([one.shown for one in outcomes]),
        base_accuracy=MeasuredRate.of([bool(one.base_right) for one in known]) if known else None,
        accuracy=MeasuredRate.of([bool(one.right) for one in known]) if known else None,
        kept=MeasuredRate.of([bool(one.right) for one in known if one.base_right])
        if known
        else None,
        fidelity=fidelity(tools.likeness, [order.prompt for order in orders], before, after),
        outcomes=tuple(outcomes),
    )
    pairs = [Pair(*one) for one in zip(outcomes, before, after, strict=True)]
    return result, pairs


def _right(tools: Instruments, suite: Suite, pictures: Sequence[Image.Image]) -> list[bool | None]:
    if tools.judge is None:
        return [None] * len(pictures)
    names = tools.judge.names(pictures)
    return [
        None if question.concept is None else name in (question.concept, *question.accepted)
        for question, name in zip(suite.questions, names, strict=True)
    ]


def _pairs(model: Manifest, words: Sequence[str]) -> list[PromptPair]:
    """Sentences that speak of what was erased, each with one that does not."""
    concepts = () if model.edit is None else model.edit.concepts
    if not concepts:
        return [PromptPair(f"a photo of {word}", "a photo of something", 1.0) for word in words]
    return [pair for pairs in prompt_pairs(concepts).values() for pair in pairs]
