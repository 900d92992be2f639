"""WordNet's nouns: what general English the text encoder learns from.

The files are those of Debian's `wordnet-base` (WordNet 3.0): one synset a line, its words,
then " | " and a gloss, in which examples stand in quotation marks.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CONCRETE = {5, 6, 8, 13, 17, 18, 19, 20, 27}
"""Lexicographer files of things one can draw: animal, artifact, body, food, natural object,
person, phenomenon, plant, substance (lexnames(5WN))."""


@dataclass(frozen=True)
class Synset:
    offset: str
    kind: int
    words: list[str]
    gloss: str
    examples: list[str]


def synsets(folder: Path, part: str = "noun") -> Iterator[Synset]:
    """Every synset of one part of speech, in the order of the file."""
    for line in (folder / f"data.{part}").read_text("utf-8").splitlines():
        if line.startswith("  "):
            continue
        head, _, tail = line.partition(" | ")
        fields = head.split(" ")
        count = int(fields[3], 16)
        words = [fields[4 + 2 * at].replace("_", " ").lower() for at in range(count)]
        gloss = re.split(r';\s*"', tail)[0].strip(' ;"')
        yield Synset(fields[0], int(fields[1]), words, gloss, re.findall(r'"([^"]+)"', tail))


def plain(gloss: str, limit: int = 16) -> str:
    """A gloss without its asides in brackets, at most `limit` words long."""
    return " ".join(re.sub(r"\([^)]*\)", " ", gloss).split()[:limit])
