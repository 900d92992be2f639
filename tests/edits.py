"""How a model was erased, where it does not matter to a test what was."""

from typing import Any

from core.edits import Edit
from core.manifests import Manifest
from core.specs import Concept, TextualOptions


def pistol_edit(base: Manifest | None = None, **fields: Any) -> Edit:
    """Of a base model; None: of one that no test looks for."""
    values: dict[str, Any] = {
        "base_model": "base" if base is None else base.id,
        "base_digest": "0" * 64 if base is None else base.content_digest,
        "method": "trce",
        "concepts": (Concept(name="pistol", replacement="flower"),),
        "textual": TextualOptions(),
        "seed": 0,
        "seconds": 1.0,
    }
    return Edit(**(values | fields))
