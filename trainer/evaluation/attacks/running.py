"""Runs one attack on some prompts, and counts what it got out of the erased model."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from core.evaluation import AttackSpec
from core.reports import AttackOutcome, AttackReport, MeasuredRate
from core.thresholds import WHITE_BOX
from diffusion.detectors.protocol import Verdict, judge
from trainer.concepts import PromptPair
from trainer.evaluation.attacks import ring_a_bell, surface, text_gradient, white_box
from trainer.evaluation.attacks.ring_a_bell import Found
from trainer.evaluation.attacks.vocabulary import Alphabet
from trainer.evaluation.drawing import Order
from trainer.evaluation.instruments import Instruments
from trainer.evaluation.suites import Question, Suite
from trainer.reporting import counter

TRIED = 8
"""Of the prompts that a search returns, how many are drawn; a surface attack draws them all."""


@dataclass(frozen=True)
class Source:
    """A prompt to attack."""

    question: Question
    order: Order
    words: str
    """The part of the prompt that names the concept."""
    picture: Image.Image
    """The base's."""
    counted: bool
    before: Verdict


Search = Callable[[Source, int], list[Found]]
"""Source and seed -> prompts to try, best first."""


def run_attack(
    tools: Instruments,
    spec: AttackSpec,
    *,
    sources: Suite,
    pairs: Sequence[PromptPair],
    seed: int,
) -> AttackReport:
    """
    Args:
        sources: prompts that name what was erased; some of them are attacked.
        pairs: sentences with and without what was erased, for the concept's vector.
        seed: of the picture of the first source; source i of the whole suite has seed + i.

    Raises:
        DetectorFailed, PictureNotFinite, Invalid.
    """
    started = time.monotonic()
    chosen = sources.thinned(spec.prompts)
    attacked = _sources(tools, spec, chosen, seed)
    search = _search(tools, spec, pairs, chosen)
    advance = counter(tools.report, f"attack {spec.name}", len(attacked))
    outcomes = []
    for place, source in zip(chosen.places, attacked, strict=True):
        outcomes.append(_outcome(tools, spec, source, search, spec.seed + place))
        advance(1)
    counted = [one for one in outcomes if one.counted]
    return AttackReport(
        name=spec.name,
        access="white-box" if spec.name in WHITE_BOX else "black-box",
        budget=spec.budget,
        seed=spec.seed,
        digest=chosen.digest,
        before=MeasuredRate.of([one.before for one in counted]),
        asr=MeasuredRate.of([one.before or one.shown for one in counted]),
        seconds=round(time.monotonic() - started, 2),
        outcomes=tuple(outcomes),
    )


def _sources(tools: Instruments, spec: AttackSpec, chosen: Suite, seed: int) -> list[Source]:
    options = tools.studio.options
    orders = [
        Order(question.prompt, seed + place, options.guidance_scale)
        for place, question in zip(chosen.places, chosen.questions, strict=True)
    ]
    before, after = tools.draw_both(f"prompts for {spec.name}", orders)
    base, erased = judge(tools.detector, before), judge(tools.detector, after)
    return [
        Source(question, order, _words(question), picture, shown.shown, verdict)
        for question, order, picture, shown, verdict in zip(
            chosen.questions, orders, before, base, erased, strict=True
        )
    ]


def _words(question: Question) -> str:
    name = question.concept or question.prompt
    return name if name in question.prompt else question.prompt


def _outcome(
    tools: Instruments, spec: AttackSpec, source: Source, search: Search, seed: int
) -> AttackOutcome:
    """Nothing is tried where the base shows nothing, or no attack is needed."""
    none = Found(source.order.prompt, None)
    if not source.counted or source.before.shown:
        return _outcome_of(source, none, source.before)
    found = search(source, seed)
    found = found if spec.name == "surface" else found[:TRIED]
    if not found:
        return _outcome_of(source, none, source.before)
    orders = [Order(one.text, source.order.seed, source.order.guidance_scale) for one in found]
    pictures = tools.album.pictures(orders, tools.erasure, weights=tools.model.digest)
    verdicts = judge(tools.detector, pictures)
    at = max(range(len(found)), key=lambda place: verdicts[place].score)
    return _outcome_of(source, found[at], verdicts[at])


def _outcome_of(source: Source, found: Found, verdict: Verdict) -> AttackOutcome:
    return AttackOutcome(
        source=source.order.prompt,
        prompt=found.text,
        seed=source.order.seed,
        counted=source.counted,
        before=source.before.shown,
        shown=verdict.shown,
        score=round(verdict.score, 6),
        loss=None if found.loss is None else round(found.loss, 6),
    )


def _search(
    tools: Instruments, spec: AttackSpec, pairs: Sequence[PromptPair], chosen: Suite
) -> Search:
    """How this attack finds prompts."""
    encoder = tools.studio.encoder
    named = [question.concept for question in chosen.questions if question.concept]
    match spec.name:
        case "surface":
            return lambda source, seed: [
                Found(text, None)
                for text in surface.variants(
                    source.order.prompt, source.words, budget=spec.budget, seed=seed
                )
            ]
        case "ring-a-bell":
            alphabet = Alphabet(encoder)
            concept = ring_a_bell.concept_vector(encoder, pairs)
            return lambda source, seed: ring_a_bell.search(
                *(encoder, alphabet, source.order.prompt, concept),
                generations=spec.budget,
                seed=seed,
            )
        case "text-gradient":
            alphabet = Alphabet(encoder, without=named)
            return lambda source, seed: text_gradient.search(
                *(encoder, alphabet, source.order.prompt),
                steps=spec.budget,
                seed=seed,
            )
        case "p4d" | "unlearn-diff" as objective:
            alphabet = Alphabet(encoder)
            return lambda source, seed: white_box.search(
                *(tools, alphabet, source.order.prompt, source.picture),
                objective=objective,
                steps=spec.budget,
                seed=seed,
            )
