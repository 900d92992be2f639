"""From the fields of other servers' clients to a generation of ours."""

from collections.abc import Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from core.registry import ModelRegistry
from core.specs import GenerationSpec
from service.sizing import fitted


def generation_spec(
    fields: Mapping[str, Any],
    registry: ModelRegistry,
    *,
    size: tuple[int, int] | None,
    called: Mapping[str, str],
) -> GenerationSpec:
    """
    Args:
        fields: of the spec; None means that the client did not choose.
        size: width and height, made to fit the model if clients send it unasked.
        called: a field of the spec -> what the client calls it, for its errors.

    Raises:
        RequestValidationError: as if the client had sent the spec itself.
        ModelNotFound, UntrustedModel: where a size has to be made to fit.
    """
    chosen = {name: value for name, value in fields.items() if value is not None}
    try:
        spec = GenerationSpec(**chosen)
        if size is None:
            return spec
        drawing = registry.get(registry.resolve(spec.model)).drawing
        width, height = fitted(*size, drawing)
        return GenerationSpec(**chosen, width=width, height=height)
    except ValidationError as error:
        raise RequestValidationError(
            [_renamed(one, called) for one in error.errors(include_url=False)]
        ) from None


def _renamed(error: Any, called: Mapping[str, str]) -> dict[str, Any]:
    name = str(error["loc"][0])
    return {**error, "loc": ("body", called.get(name, name))}
