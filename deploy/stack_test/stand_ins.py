"""Base images under their minor version, for an engine that cannot fetch the pinned ones.

Such an engine has images of its own making under those names.
"""

import re
from collections.abc import Callable, Mapping

from deploy.compose_command import ROOT

MADE_HERE = {"PYTHON_IMAGE": "python:3.11-slim-bookworm", "REDIS_IMAGE": "redis:7-bookworm"}


def pinned() -> dict[str, str]:
    """The variables of docker-compose.yml that name base images -> what they are unless set."""
    text = (ROOT / "docker-compose.yml").read_text()
    return dict(re.findall(r"\$\{(\w+_IMAGE):-([^}]+)\}", text))


def stand_ins(is_here: Callable[[str], bool], environ: Mapping[str, str]) -> dict[str, str]:
    """
    Args:
        is_here: whether the engine has an image of this name.
        environ: what is chosen there stays.
    """
    return {
        variable: MADE_HERE[variable]
        for variable, image in pinned().items()
        if variable not in environ and not is_here(image) and is_here(MADE_HERE[variable])
    }
