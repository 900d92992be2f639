"""Picture sets as SVG: one icon of one set, drawn as an RGBA picture.

A set is an Iconify npm package: `icons.json` holds the SVG body of each icon, `chars.json`
(where a set has one) the icon of each Unicode sequence, and `info.json` the licence.
"""

import io
import json
import subprocess
import tarfile
from functools import cached_property
from pathlib import Path
from typing import Any

import resvg_py
from PIL import Image

from trainer.pretraining.set_table import SetTable

INK = "#1c1c1c"
"""The colour of one-colour icons where no tint is asked for."""


class PictureSet:
    """The icons of one unpacked npm package."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def _icons(self) -> dict[str, Any]:
        icons: dict[str, Any] = json.loads((self.folder / "icons.json").read_text())
        return icons

    @cached_property
    def characters(self) -> dict[str, str]:
        """Icon name by Unicode sequence, such as "1f415"; empty for sets that are not emoji."""
        path = self.folder / "chars.json"
        names: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        return names

    @property
    def licence(self) -> str:
        spdx: str = json.loads((self.folder / "info.json").read_text())["license"]["spdx"]
        return spdx

    def svg(self, name: str, colour: str = INK) -> str | None:
        """The icon as an SVG document, or None where the set lacks it."""
        icon = self._icons["icons"].get(name)
        if icon is None:
            alias = self._icons.get("aliases", {}).get(name)
            if alias is None:
                return None
            icon = self._icons["icons"][alias["parent"]]
        left, top = icon.get("left", 0), icon.get("top", 0)
        width = icon.get("width", self._icons.get("width", 16))
        height = icon.get("height", self._icons.get("height", 16))
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
            f' viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">'
            f"{icon['body'].replace('currentColor', colour)}</svg>"
        )

    def draw(self, name: str, *, colour: str = INK, width: int = 256) -> Image.Image | None:
        """The icon as an RGBA picture `width` pixels wide, or None where the set lacks it."""
        svg = self.svg(name, colour)
        if svg is None:
            return None
        return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=width))))


def fetch(folder: Path, table: SetTable) -> None:
    """Bring every set of the table into `folder` with `npm pack`; sets already there stay."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in table.sets.items():
        if (folder / name).exists():
            continue
        packed = subprocess.run(
            ["npm", "pack", f"{source['package']}@{source['version']}"],
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
        )
        with tarfile.open(folder / packed.stdout.strip().splitlines()[-1]) as archive:
            archive.extractall(folder / f"{name}.part", filter="data")
        (folder / f"{name}.part" / "package").rename(folder / name)
        (folder / f"{name}.part").rmdir()
