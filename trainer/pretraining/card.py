"""Stage `card`: the model's README, from what was measured."""

import json
from collections import Counter
from string import Template
from typing import Any

from trainer.pretraining import catalogue
from trainer.pretraining.evaluate import KINDS
from trainer.pretraining.folders import TABLES, Folders

WEAK = 24
"""How many of the worst drawn concepts the card names."""


def write(folders: Folders) -> None:
    """Fill `tables/card.md` with the numbers of `evaluation.json` and `classifier.json`."""
    measured = json.loads((folders.work / "evaluation.json").read_text())
    judge = json.loads((folders.work / "classifier.json").read_text())
    known = catalogue.catalogue()
    text = Template((TABLES / "card.md").read_text()).substitute(
        scores="\n".join(_row(kind, measured[kind]) for kind in KINDS if kind in measured),
        guidance=measured["guidance"],
        steps=measured["steps"],
        missed=", ".join(measured["missed names"][:WEAK]) or "none",
        missed_count=len(measured["missed names"]),
        decibel=f"{measured['autoencoder dB']:.1f}",
        judge="\n".join(f"| {name} | {score:.3f} |" for name, score in judge.items()),
        count=len(known["concepts"]),
        groups=_groups(known),
        styles="\n".join(f"- **{s['name']}**: {s['looks']} ({s['set']})" for s in known["styles"]),
        speed=f"{measured['names']['pictures_per_second']:.1f}",
    )
    (folders.model / "README.md").write_text(text)


def _row(kind: str, score: dict[str, Any]) -> str:
    return (
        f"| {kind} | {score['prompts']} | {score['top_1']:.3f} | {score['top_5']:.3f} "
        f"| {score['weapon_prompts']} | {score['weapon_top_1']:.3f} | {score['weapon_any']:.3f} "
        f"| {score['other_any_weapon']:.3f} |"
    )


def _groups(known: dict[str, Any]) -> str:
    counts = Counter(concept["group"] for concept in known["concepts"])
    return ", ".join(f"{group} {count}" for group, count in counts.items())
