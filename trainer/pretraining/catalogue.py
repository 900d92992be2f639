"""`concepts.json`: what the model draws and how it was told so, for other code to read."""

import json
from typing import Any

import yaml

from trainer.pretraining import concepts, vocabulary
from trainer.pretraining.captions import Articles
from trainer.pretraining.concepts import TINTED
from trainer.pretraining.folders import TABLES, Folders
from trainer.pretraining.set_table import SetTable

FORMAT = 1
ABOUT = {
    "styles": "drawing styles: name for prompts, looks, picture set",
    "name": "the concept's name, and its label in the classifier",
    "group": "its category",
    "groups": "its category and the other groups it belongs to",
    "article": "what stands before the name in captions: a, an, the, or nothing",
    "synonyms": "other names that stand in training captions",
    "held_out_synonyms": "other names that never do",
    "descriptions": "descriptions that stand in training captions",
    "tuning_descriptions": "never captioned: choose settings with these",
    "test_descriptions": "never captioned, never tuned on: report with these",
    "styles of a concept": "the styles that its pictures come in",
}


def catalogue() -> dict[str, Any]:
    """The content of `concepts.json`; `about` explains every key."""
    table, known = SetTable.load(), concepts.load()
    words, articles = vocabulary.load(known), Articles.load()
    looks = yaml.safe_load((TABLES / "styles.yaml").read_text())
    groups = yaml.safe_load((TABLES / "groups.yaml").read_text())
    return {
        "format": FORMAT,
        "about": ABOUT,
        "styles": [
            {"name": style, "looks": looks[style], "set": table.sets[name]["package"]}
            for style, name in table.styles.items()
        ],
        "groups": sorted({concept.category for concept in known} | set(groups)),
        "concepts": [
            {
                "name": concept.name,
                "group": concept.category,
                "groups": [concept.category, *(g for g in groups if concept.name in groups[g])],
                "article": articles.of(concept.name),
                "styles": _styles(concept, table),
                "synonyms": words[concept.name].called,
                "held_out_synonyms": words[concept.name].held,
                "descriptions": words[concept.name].train,
                "tuning_descriptions": words[concept.name].tuning,
                "test_descriptions": words[concept.name].test,
            }
            for concept in known
        ],
    }


def _styles(concept: concepts.Concept, table: SetTable) -> list[str]:
    if isinstance(concept.icons, str):
        return list(table.styles)
    return [style for style in concept.icons if style != TINTED]


def write(folders: Folders) -> None:
    folders.model.mkdir(parents=True, exist_ok=True)
    text = json.dumps(catalogue(), indent=1, ensure_ascii=False)
    (folders.model / "concepts.json").write_text(text + "\n")
