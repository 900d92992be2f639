"""`trce bench`: the benchmarks behind every figure in the documentation."""

from typing import Annotated

import typer
from rich.table import Table

from cli.answers import Json, answer
from cli.benchmarks import CHECKOUT, RESULTS, benchmarks, chosen, figures
from cli.completing import benchmark_names


def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Which to run, one after the other; without one, they are listed.",
            autocompletion=benchmark_names,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the benchmarks, or run some and show what they measured.

    Each takes minutes and wants a machine that does nothing else: it measures ratios within one
    run. Results go to build/bench/ of the checkout, and progress to stderr.

    trce bench                what there is

    trce bench eval --json    run `make bench-eval`, print its result
    """
    known = benchmarks()
    if not names:
        table = Table("benchmark", "what it measures")
        for one in known.values():
            table.add_row(one.name, one.what)
        listed = [{"name": one.name, "what": one.what} for one in known.values()]
        answer(table, listed, as_json=as_json)
        return
    results = {one.name: one.run(CHECKOUT) for one in chosen(names, known)}
    table = Table("benchmark", "figure", "measured", title=f"kept in {CHECKOUT / RESULTS}")
    for name, files in results.items():
        for measured in files.values():
            for figure, value in figures(measured):
                table.add_row(name, figure, value)
        table.add_section()
    answer(table, results, as_json=as_json)
