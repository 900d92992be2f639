"""Concept lists that ship with the service: `core/presets/<name>.yaml`."""

from functools import cache
from importlib import resources

import yaml
from pydantic import TypeAdapter

from core.errors import ConceptInvalid
from core.specs import Concept

_concepts: TypeAdapter[tuple[Concept, ...]] = TypeAdapter(tuple[Concept, ...])


def names() -> list[str]:
    files = (resources.files("core") / "presets").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


@cache
def load(name: str) -> tuple[Concept, ...]:
    """Raises ConceptInvalid for a name that is no preset."""
    if name not in names():
        raise ConceptInvalid(f"no preset {name!r}; there are: {', '.join(names())}")
    text = (resources.files("core") / "presets" / f"{name}.yaml").read_text()
    return _concepts.validate_python(yaml.safe_load(text)["concepts"])
