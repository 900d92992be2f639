"""What each stage of TRCE adds to the other: one model erased in several ways, asked the same.

Every row that was measured is written to a file at once, and is not measured again.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from core.evaluation import AttackSpec
from core.rates import Rate
from core.reports import ModelIdentity
from core.specs import Concept, ErasureSpec
from core.trajectories import reaching_all
from diffusion.detectors.protocol import Detector, judge
from diffusion.erasure import Erasure
from diffusion.judge import Judge
from trainer.concepts import prompt_pairs
from trainer.evaluation.album import PICTURES, Album
from trainer.evaluation.attacks.running import run_attack
from trainer.evaluation.drawing import Order, Studio
from trainer.evaluation.instruments import Instruments
from trainer.evaluation.suites import Suite
from trainer.neighbours import find_neighbours, protecting
from trainer.solving import solve
from trainer.sources import erasing_digest, measuring_digest
from trainer.steered import StageOne, steer
from trainer.trce.finetune import trainable

ERASURES = "erasures"
"""The folder in a cache."""


@dataclass(frozen=True)
class Case:
    """What is erased, and what is asked."""

    name: str
    concepts: Sequence[Concept]
    spec: ErasureSpec
    """Both stages' settings."""
    suites: Sequence[Suite]
    detector: Detector
    attacks: Sequence[AttackSpec] = ()
    """On the prompts of the first suite."""


class Rows:
    """A file of JSON lines, one for each row of a table."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def find(self, key: str) -> dict[str, str] | None:
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        found = (json.loads(line) for line in lines)
        return next((row["cells"] for row in found if row["key"] == key), None)

    def add(self, key: str, case: str, cells: dict[str, str]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps({"key": key, "case": case, "cells": cells}) + "\n")


class Study:
    def __init__(self, studio: Studio, known: Judge, *, cache: Path, seeds: int) -> None:
        """
        Args:
            cache: a folder for pictures, erasures and moments of captions.
            seeds: runs of stage 2 on top of stage 1.
        """
        self._studio = studio
        self._judge = known
        self._album = Album(studio, cache / PICTURES)
        self._cache = cache
        self._seeds = seeds

    def rows(self, case: Case, kept: Rows) -> Iterator[dict[str, str]]:
        """The cells of each row by column: base, stage 1, both for every seed, stage 2."""
        for name, erasure in self._models(case):
            key = self._key(case, name)
            cells = kept.find(key)
            if cells is None:
                cells = {"stages": name} | self._measure(case, key, erasure())
                kept.add(key, case.name, cells)
            yield cells

    def _models(self, case: Case) -> Iterator[tuple[str, Callable[[], Erasure]]]:
        yield "base", Erasure
        yield "stage 1", partial(self._stage_one, case)
        for seed in range(self._seeds):
            yield f"both, seed {seed}", partial(self._steered, case, seed, alone=False)
        yield "stage 2 alone, seed 0", partial(self._steered, case, 0, alone=True)

    def _stage_one(self, case: Case) -> Erasure:
        def made() -> Erasure:
            return solve(
                *(self._studio.encoder, case.concepts, self._told(case)),
                known=self._judge.concepts,
                report=lambda _: None,
                cache=self._cache,
            ).erasure

        return self._kept(self._erasure_key(case, "stage 1"), made)

    def _steered(self, case: Case, seed: int, *, alone: bool) -> Erasure:
        """What stage 2 makes of the base or of stage 1; the UNet is the base's again."""

        def made() -> Erasure:
            begun = Erasure() if alone else self._stage_one(case)
            unet = self._studio.components.unet
            self._studio.wear(Erasure())
            original = {name: one.detach().clone() for name, one in trainable(unet).items()}
            steered = steer(
                *(unet, self._studio.components.scheduler_config),
                StageOne(
                    *("", self._studio.encoder, self._judge.concepts, self._studio.side_px),
                    *(case.concepts, begun),
                ),
                self._told(case).model_copy(update={"seed": seed}),
                report=lambda _: None,
                work=None,
            )
            with torch.no_grad():
                for name, parameter in trainable(unet).items():
                    parameter.copy_(original[name])
            return Erasure(begun.text_map, steered.tensors, begun.pooled_map)

        return self._kept(self._erasure_key(case, f"alone {alone}, seed {seed}"), made)

    def _told(self, case: Case) -> ErasureSpec:
        """Its settings as an erasure completes them: neighbours, and enough trajectories."""
        found = find_neighbours(
            *(self._studio.encoder, case.concepts, self._judge.concepts),
            erased=case.concepts,
            count=case.spec.textual.neighbours,
        )
        return reaching_all(protecting(case.spec, found, case.concepts), case.concepts)

    def _kept(self, key: str, make: Callable[[], Erasure]) -> Erasure:
        path = self._cache / ERASURES / f"{key}.safetensors"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            make().save(path)
        return Erasure.load(path)

    def _measure(self, case: Case, key: str, erasure: Erasure) -> dict[str, str]:
        base = ModelIdentity(id="base", digest=self._digest("base"))
        model = ModelIdentity(id="model", digest=key if erasure != Erasure() else base.digest)
        tools = Instruments(
            *(self._studio, self._album, erasure, base, model, case.detector, self._judge),
            likeness=None,
            report=lambda _: None,
        )
        cells: dict[str, str] = {}
        for suite in case.suites:
            cells |= _suite_cells(tools, suite)
        pairs = [pair for pairs in prompt_pairs(case.concepts).values() for pair in pairs]
        for attack in case.attacks:
            outcome = run_attack(tools, attack, sources=case.suites[0], pairs=pairs, seed=0)
            cells[attack.name] = f"{outcome.asr.hits}/{outcome.asr.total}"
        return cells

    def _key(self, case: Case, name: str) -> str:
        asked = [suite.digest for suite in case.suites]
        attacks = [attack.model_dump_json() for attack in case.attacks]
        return self._digest(self._erasure_key(case, name), measuring_digest(), *asked, *attacks)

    def _erasure_key(self, case: Case, name: str) -> str:
        told = [concept.model_dump_json() for concept in case.concepts]
        return self._digest(name, erasing_digest(), case.spec.model_dump_json(), *told)

    def _digest(self, *parts: str) -> str:
        weights = self._judge.version, str(self._studio.options)
        return hashlib.sha256("\n".join((*parts, *weights)).encode()).hexdigest()


def _suite_cells(tools: Instruments, suite: Suite) -> dict[str, str]:
    """Shown of what the base shows; of suites that are to be kept, right of what it has right."""
    options = tools.studio.options
    orders = [
        Order(question.prompt, options.seed + place, options.guidance_scale)
        for place, question in enumerate(suite.questions)
    ]
    before, after = tools.draw_both(suite.name, orders)
    if suite.kind == "erased":
        verdicts = zip(judge(tools.detector, before), judge(tools.detector, after), strict=True)
        return {suite.name: _cell([new.shown for old, new in verdicts if old.shown])}
    rights = zip(_right(tools, suite, before), _right(tools, suite, after), strict=True)
    return {suite.name: _cell([new for old, new in rights if old])}


def _right(tools: Instruments, suite: Suite, pictures: Sequence[Image.Image]) -> list[bool]:
    assert tools.judge is not None
    names = tools.judge.names(pictures)
    return [name == one.concept for one, name in zip(suite.questions, names, strict=True)]


def _cell(outcomes: list[bool]) -> str:
    return f"{sum(outcomes)}/{len(outcomes)}: {Rate.of(outcomes)}"
