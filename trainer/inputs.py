"""What a user hands to an erasure made in this process, beside the spec itself."""

import re
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from core.errors import ConceptInvalid, ModelUnsupported
from core.specs import ErasureSpec, ModelId, TextualOptions


def with_captions(spec: ErasureSpec, path: Path) -> ErasureSpec:
    """The spec with the captions of a text file, one a line, in place of the everyday ones.

    Raises:
        ConceptInvalid
    """
    try:
        captions = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConceptInvalid(f"{path} cannot be read: {error}") from error
    if not captions:
        raise ConceptInvalid(f"{path} holds no captions; write one a line")
    fields = spec.textual.model_dump(exclude_unset=True) | {"captions": captions}
    try:
        textual = TextualOptions.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ConceptInvalid(f"{path} is wrong at {place}: {first['msg']}") from error
    return spec.model_copy(update={"textual": textual})


def model_id_of(out: Path) -> str:
    """The id of a model that is made in the folder `out`.

    Raises:
        ModelUnsupported
    """
    words = re.sub(r"[^a-z0-9._-]+", "-", out.resolve().name.lower()).strip("-._")
    try:
        return TypeAdapter(ModelId).validate_python(words)
    except ValidationError as error:
        raise ModelUnsupported(f"{out.name!r} makes no model id; name the folder anew") from error
