"""What a user asks to erase: names of presets, a file with the fields of POST /v1/erasures."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cli.explaining import explain
from core.consistency import check_filled_in
from core.errors import Invalid
from core.specs import ErasureSpec

SUFFIXES = {".yaml", ".yml", ".json"}


def read_fields(what: Sequence[str]) -> dict[str, Any]:
    """The fields of a file, if one is named, with the presets that are named beside it.

    Raises:
        Invalid
    """
    files = [one for one in what if Path(one).suffix in SUFFIXES]
    names = [one for one in what if one not in files]
    if len(files) > 1:
        raise Invalid(f"{' and '.join(files)}: give one file, with all the concepts")
    fields = _read_file(files[0]) if files else {}
    if not names:
        return fields
    listed = fields.get("preset") or []
    presets = [*([listed] if isinstance(listed, str) else listed), *names]
    return fields | {"preset": presets[0] if len(presets) == 1 else presets}


def _read_file(path: str) -> dict[str, Any]:
    try:
        # YAML contains JSON, so one parser reads both.
        fields = yaml.safe_load(Path(path).read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Invalid(f"{path} cannot be read: {error}") from error
    if not isinstance(fields, dict):
        raise Invalid(f"{path} does not hold the fields of an erasure")
    return fields


def read_steering(given: str) -> str | dict[str, Any]:
    """Settings of stage 2: the name of some, or a JSON object.

    Raises:
        Invalid
    """
    if not given.lstrip().startswith("{"):
        return given
    try:
        settings: dict[str, Any] = json.loads(given)
    except ValueError as error:
        raise Invalid(f"--steering is no JSON: {error}") from error
    return settings


def parse_spec(fields: dict[str, Any], base_model: str, *, source: str = "") -> ErasureSpec:
    """Raises Invalid, ConceptInvalid; `source` says where the fields were read."""
    try:
        spec = ErasureSpec.model_validate({"base_model": base_model} | fields)
    except ValidationError as error:
        where = f"{source}: " if source else ""
        raise Invalid(where + "; ".join(explain(error))) from error
    check_filled_in(spec)
    return spec
