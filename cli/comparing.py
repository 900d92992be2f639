"""Reports side by side, as a table for terminals and one for browsers."""

from collections.abc import Sequence
from importlib import resources

from rich.table import Table

from core.reports import MeasuredRate, Report

Cell = MeasuredRate | float | str | None


def rows(reports: Sequence[Report]) -> list[tuple[str, list[Cell]]]:
    """(what, a cell for each report), in the order of a report."""
    found: dict[str, list[Cell]] = {}
    for place, report in enumerate(reports):
        for what, cell in _cells(report):
            found.setdefault(what, [None] * len(reports))[place] = cell
    return list(found.items())


def _cells(report: Report) -> list[tuple[str, Cell]]:
    cells: list[tuple[str, Cell]] = []
    for suite in report.suites:
        if suite.kind == "erased":
            cells.append((f"{suite.name}: base shows it", suite.base_rate))
            cells.append((f"{suite.name}: attack success rate", suite.asr))
        else:
            cells.append((f"{suite.name}: kept", suite.kept))
            cells.append((f"{suite.name}: CLIP score", suite.fidelity.clip_score))
            cells.append((f"{suite.name}: KID to the base", suite.fidelity.kid))
    cells += [(f"{one.access} attack {one.name}", one.asr) for one in report.attacks]
    cells.append(("seconds", report.costs.seconds))
    return cells


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
    for what, cells in rows(reports):
        shown.add_row(what, *map(words, cells))
    return shown


def words(cell: Cell) -> str:
    match cell:
        case None:
            return "not measured"
        case MeasuredRate(total=0):
            return "nothing counted"
        case float():
            return f"{cell:.3g}"
        case _:
            return str(cell)


def html(reports: Sequence[Report]) -> str:
    import jinja2  # noqa: PLC0415  (only for this)

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["words"] = words
    template = environment.from_string((resources.files("cli") / "compare.html.jinja").read_text())
    return template.render(
        reports=reports, rows=rows(reports), differing=differing_terms(reports), terms=terms
    )
