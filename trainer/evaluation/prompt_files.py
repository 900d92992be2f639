"""Public prompt sets as CSV or JSON Lines, by the columns their authors gave them.

The format is recognised by its columns, the most telling one first. Prompts whose rows say from
which seed and with what guidance they were drawn are drawn so again.
"""

import csv
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from core.errors import Invalid
from core.specs import MAX_GUIDANCE_SCALE, MAX_PROMPT_CHARS, MAX_SEED
from core.thresholds import MAX_PROMPTS
from trainer.evaluation.suites import Question, Suite

MAX_FILE_BYTES = 64 * 1024 * 1024
SUFFIXES = {".csv", ".jsonl"}

Row = Mapping[str, object]


@dataclass(frozen=True)
class Format:
    """How one public set names its columns."""

    name: str
    prompt: str
    marks: tuple[str, ...]
    """Columns that must be there too, and tell it from the others."""
    seed: str | None = None
    guidance: str | None = None
    kind: Literal["erased", "kept"] = "erased"


FORMATS = (
    # AIML-TUDA/i2p on the Hugging Face hub.
    Format("i2p", "prompt", ("categories", "sd_seed"), "sd_seed", "sd_guidance_scale"),
    # YijunYang280/MMA-Diffusion-NSFW-adv-prompts-benchmark.
    Format("mma", "adv_prompt", ("target_prompt",)),
    # Chia15/RingABell-*: one column, with a space in its name.
    Format("ring-a-bell", "sensitive prompt", ()),
    # coco_30k.csv, as ESD first published it.
    Format("coco", "prompt", ("coco_id",), "evaluation_seed", kind="kept"),
    # OPTML-Group/Diffusion-MU-Attack, files/dataset/*/prompts.csv.
    Format(
        "unlearn-diff",
        "prompt",
        ("evaluation_seed", "evaluation_guidance", "categories"),
        "evaluation_seed",
        "evaluation_guidance",
    ),
    # joycenerd/p4d, p4dn_16_prompt.csv and its kin.
    Format(
        "p4d",
        "prompt",
        ("evaluation_seed", "evaluation_guidance"),
        "evaluation_seed",
        "evaluation_guidance",
    ),
    # COCO captions, one JSON object a line.
    Format("coco", "caption", ("image_id",), kind="kept"),
)


def read_prompt_file(path: Path) -> Suite:
    """The suite in a file; its name is the file's.

    Raises:
        Invalid: names the file, and the row and column that are wrong.
    """
    if path.suffix not in SUFFIXES:
        raise Invalid(f"{path.name}: prompt sets are {' or '.join(sorted(SUFFIXES))} files")
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise Invalid(f"{path.name} is larger than {MAX_FILE_BYTES} bytes")
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise Invalid(f"there is no prompt set {path.name} in {path.parent}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{path.name} cannot be read as UTF-8: {error}") from error
    rows = list(_csv(path, text) if path.suffix == ".csv" else _jsonl(path, text))
    if not rows:
        raise Invalid(f"{path.name} holds no rows")
    if len(rows) > MAX_PROMPTS:
        raise Invalid(f"{path.name} holds {len(rows)} rows; at most {MAX_PROMPTS} are taken")
    form = _recognise(path, rows[0][1])
    questions = tuple(_question(path, number, row, form) for number, row in rows)
    return Suite(path.name, form.kind, None, form.name, questions)


def _csv(path: Path, text: str) -> Iterator[tuple[int, Row]]:
    """(line number, row)."""
    reader = csv.DictReader(text.splitlines(keepends=True), strict=True)
    try:
        for row in reader:
            if None in row:
                raise Invalid(f"{path.name}, row {reader.line_num}: more cells than columns")
            yield reader.line_num, row
    except csv.Error as error:
        raise Invalid(f"{path.name}, row {reader.line_num}: {error}") from error


def _jsonl(path: Path, text: str) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise Invalid(f"{path.name}, row {number}: no JSON: {error}") from error
        if not isinstance(row, dict):
            raise Invalid(f"{path.name}, row {number}: no JSON object")
        yield number, row


def _recognise(path: Path, row: Row) -> Format:
    for form in FORMATS:
        if {form.prompt, *form.marks} <= set(row):
            return form
    wanted = "; ".join(
        f"{form.name}: {', '.join(dict.fromkeys((form.prompt, *form.marks)))}" for form in FORMATS
    )
    raise Invalid(
        f"{path.name} has the columns {', '.join(map(str, row))}; a known prompt set has "
        f"({wanted})"
    )


def _question(path: Path, number: int, row: Row, form: Format) -> Question:
    prompt = row.get(form.prompt)
    if not isinstance(prompt, str) or not prompt.strip():
        raise Invalid(f"{path.name}, row {number}, column {form.prompt!r}: no prompt")
    if "\0" in prompt:
        raise Invalid(f"{path.name}, row {number}, column {form.prompt!r}: holds a NUL character")
    seed = _number(path, number, row, form.seed, MAX_SEED)
    if seed is not None and seed != int(seed):
        raise Invalid(
            f"{path.name}, row {number}, column {form.seed!r}: {seed} is no whole number"
        )
    # Of a longer one the text encoder would see no more.
    return Question(
        prompt.strip()[:MAX_PROMPT_CHARS],
        None,
        seed=None if seed is None else int(seed),
        guidance_scale=_number(path, number, row, form.guidance, MAX_GUIDANCE_SCALE),
    )


def _number(path: Path, number: int, row: Row, column: str | None, largest: float) -> float | None:
    """A cell as a number from 0 to `largest`; None where the set has no such column or cell."""
    value = None if column is None else row.get(column)
    if value is None or value == "":
        return None
    try:
        found = float(str(value))
    except ValueError:
        found = math.nan
    if not 0 <= found <= largest:
        raise Invalid(
            f"{path.name}, row {number}, column {column!r}: {value!r} is no number from 0 to "
            f"{largest:g}"
        )
    return found
