"""Reports side by side, as a table for terminals and one for browsers."""

from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any

from rich.table import Table

from core.reports import MeasuredRate, Report

MIB = 1 << 20
Cell = MeasuredRate | float | None
Row = tuple[str, list[Cell]]
"""What was measured, and the cell of each report."""


BASE, ERASED, KEPT, LIKENESS, ATTACKS, COSTS = (
    "Base rate: how often the base shows what was erased",
    "Attack success rate: how often it is still seen, where the base shows it",
    "Kept: what is still drawn right, of what the base draws right",
    "Fidelity of what was kept",
    "Under attack: how often it is seen",
    "Costs",
)


def sections(reports: Sequence[Report]) -> dict[str, list[Row]]:
    """Title -> rows, each with a cell for every report; empty sections are left out."""
    found: dict[str, dict[str, list[Cell]]] = {
        title: {} for title in (BASE, ERASED, KEPT, LIKENESS, ATTACKS, COSTS)
    }
    for place, report in enumerate(reports):
        for title, what, cell in _cells(report):
            found[title].setdefault(what, [None] * len(reports))[place] = cell
    return {title: list(rows.items()) for title, rows in found.items() if rows}


def _cells(report: Report) -> Iterator[tuple[str, str, Cell]]:
    """(section, row, cell)."""
    for suite in report.suites:
        if suite.kind == "erased":
            yield BASE, suite.name, suite.base_rate
            yield ERASED, suite.name, suite.asr
        else:
            yield KEPT, suite.name, suite.kept
            yield LIKENESS, f"{suite.name}: CLIP score", suite.fidelity.clip_score
            yield LIKENESS, f"{suite.name}: feature distance", suite.fidelity.feature_distance
            yield LIKENESS, f"{suite.name}: kernel distance", suite.fidelity.kernel_distance
    for attack in report.attacks:
        yield ATTACKS, f"{attack.name} ({attack.access})", attack.asr
    yield COSTS, "seconds of the evaluation", report.costs.seconds
    if (made := report.costs.erasure) is not None:
        yield COSTS, "seconds of the erasure", made.seconds
        for stage, cost in made.stages.items():
            yield COSTS, f"{stage}: seconds", cost.seconds
            yield COSTS, f"{stage}: peak memory, MiB", cost.peak_memory_bytes / MIB
        for what, value, unit in (
            ("parameters changed, millions", made.parameters_changed, 1e6),
            ("erasure.safetensors, MiB", made.artifact_bytes, MIB),
            ("unet/, MiB", made.unet_bytes, MIB),
        ):
            yield COSTS, what, None if value is None else value / unit
        yield COSTS, "latency of a picture, change in %", 100 * made.latency.change


def terms(report: Report) -> dict[str, str]:
    """What must be the same for two reports' figures to be comparable."""
    detector, request = report.detector, report.request
    found = {
        "base": report.base.digest[:16],
        "detector": f"{detector.name} {detector.version}, {', '.join(detector.classes)}, "
        f"threshold {detector.threshold}",
        "steps, guidance, seed": f"{request.num_inference_steps}, {request.guidance_scale}, "
        f"{request.seed}",
    }
    found |= {f"prompts of {suite.name}": suite.digest[:16] for suite in report.suites}
    return found | {
        f"attack {one.name}": f"budget {one.budget}, seed {one.seed}, prompts {one.digest[:16]}"
        for one in report.attacks
    }


def differing_terms(reports: Sequence[Report]) -> list[str]:
    """Terms on which the reports that have them differ, in words."""
    found = []
    every = [terms(report) for report in reports]
    for name in dict.fromkeys(name for one in every for name in one):
        values = [one[name] for one in every if name in one]
        if len(set(values)) > 1:
            found.append(f"{name}: {' | '.join(values)}")
    return found


def table(reports: Sequence[Report]) -> Table:
    shown = Table("", *(report.model.id for report in reports))
    for title, rows in sections(reports).items():
        shown.add_row(f"[bold]{title}[/bold]")
        for what, cells in rows:
            shown.add_row(f"  {what}", *map(words, cells))
        shown.add_section()
    return shown


def as_data(reports: Sequence[Report]) -> dict[str, Any]:
    """The table for programs; its cells are as they are in the reports."""
    return {
        "models": [report.model.model_dump() for report in reports],
        "sections": {
            title: {
                what: [
                    cell.model_dump() if isinstance(cell, MeasuredRate) else cell for cell in cells
                ]
                for what, cells in rows
            }
            for title, rows in sections(reports).items()
        },
        "not_the_same_for_all": differing_terms(reports),
    }


def words(cell: Cell) -> str:
    match cell:
        case None:
            return "not measured"
        case MeasuredRate(total=0):
            return "nothing counted"
        case float():
            return f"{cell:.3g}"
        case MeasuredRate():
            return str(cell)


def html(reports: Sequence[Report]) -> str:
    import jinja2  # noqa: PLC0415  (only for this)

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["words"] = words
    environment.tests["rate"] = lambda cell: isinstance(cell, MeasuredRate)
    template = environment.from_string((resources.files("cli") / "compare.html.jinja").read_text())
    return template.render(
        reports=reports,
        sections=sections(reports),
        lower_is_better=(ERASED, ATTACKS),
        differing=differing_terms(reports),
        terms=[terms(report) for report in reports],
    )
