"""The demo's report: one HTML file that holds its pictures."""

import base64
import io
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import jinja2
from PIL import Image

from cli.demo.figures import Figures, Pair, target_rates
from cli.demo.prompts import Wording


def write_report(
    path: Path, figures: Figures, pairs: Sequence[Pair], concepts: Sequence[str]
) -> None:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["data_url"] = _data_url
    environment.filters["percent"] = lambda share: f"{share:.0%}"
    template = environment.from_string(
        (resources.files("cli.demo") / "report.html.jinja").read_text()
    )
    wordings: list[Wording] = ["name", "synonym", "description"]
    path.write_text(
        template.render(
            figures=figures,
            concepts=concepts,
            rates=[(wording, *target_rates(pairs, wording)) for wording in wordings],
            targets=[pair for pair in pairs if pair.prompt.is_target],
            others=[pair for pair in pairs if not pair.prompt.is_target],
        )
    )


def _data_url(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
