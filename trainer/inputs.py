"""What a user hands to an erasure made in this process, beside the spec itself."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from core.errors import ConceptInvalid, Invalid, ModelUnsupported
from core.specs import MAX_CAPTIONS, ErasureSpec, ModelId, TextualOptions
from trainer.folders import check_empty

_model_id: TypeAdapter[str] = TypeAdapter(ModelId)


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
    if len(captions) > MAX_CAPTIONS:
        raise ConceptInvalid(
            f"{path} holds {len(captions)} captions; at most {MAX_CAPTIONS} can be preserved"
        )
    fields = spec.textual.model_dump(exclude_unset=True) | {"captions": captions}
    try:
        textual = TextualOptions.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ConceptInvalid(f"{path} is wrong at {place}: {first['msg']}") from error
    return spec.model_copy(update={"textual": textual})


@contextmanager
def base_folder(base: Path, like: Path | None, out: Path) -> Iterator[Path]:
    """The diffusers folder of a base model; one file is unpacked beside `out` while it is used.

    Args:
        like: for one file, a diffusers folder of the same architecture; None: the published model
            of its family.

    Raises:
        ModelUnsupported, UntrustedModel.
        ModelExists, Invalid, NotEnoughRoom: nothing can be made at `out`.
    """
    if not base.is_file():
        yield base
        return
    check_empty(out)
    # Torch is imported here, for whom it is needed.
    from diffusion.originals.single_file import unpack_single_file  # noqa: PLC0415
    from trainer.room import check_room_to_unpack  # noqa: PLC0415

    check_room_to_unpack(base, out)

    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-base.", dir=out.parent) as place:
        unpack_single_file(base, like, Path(place))
        yield Path(place)


def model_id_of(out: Path) -> str:
    """The id of a model that is made in the folder `out`.

    Raises:
        ModelUnsupported
    """
    words = re.sub(r"[^a-z0-9._-]+", "-", out.resolve().name.lower()).strip("-._")
    try:
        return _model_id.validate_python(words)
    except ValidationError as error:
        raise ModelUnsupported(f"{out.name!r} makes no model id; name the folder anew") from error


def checked_model_id(given: str) -> str:
    """The id that a user gives to a model.

    Raises:
        Invalid
    """
    try:
        return _model_id.validate_python(given)
    except ValidationError as error:
        raise Invalid(
            f"{given!r} is no model id; use at most 100 lower-case letters, digits, '.', '_' and "
            "'-', with a letter or digit at both ends"
        ) from error
