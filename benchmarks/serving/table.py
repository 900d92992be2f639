"""The figures as a table in the terminal."""

from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.serving.aims import AIMS


def show(result: dict[str, float], detail: dict[str, Any]) -> None:
    console = Console()
    figures = Table("figure", "what", "measured", "aim", title="serving")
    for key, aim in AIMS.items():
        if key in result:
            colour = "green" if aim.met(result[key]) else "red"
            measured = f"[{colour}]{result[key]:.3f}[/{colour}]"
            figures.add_row(key, aim.what, measured, aim.words)
    console.print(figures)
    if "throughput" in detail:
        contenders = Table("contender", "clients", "pictures/s", "p50 s", "p95 s", title="load")
        for name, row in detail["throughput"]["contenders"].items():
            contender, clients = name.rsplit("_", 1)
            numbers = [f"{row[column]:.2f}" for column in ("pictures_per_s", "p50_s", "p95_s")]
            contenders.add_row(contender, clients, *numbers)
        console.print(contenders)
        bare = detail["throughput"]["bare_loop"]
        split = ", ".join(f"{count} {name}" for name, count in bare["best"].items())
        console.print(f"the bare loop's best split: {split} per pass")
        if "vs_any_size" in bare:
            rows, ratio = bare["rows_of_any_size"], bare["vs_any_size"]
            console.print(f"of any number of pictures: {rows} rows, ours {ratio:.3f} of it")
    if "idle" in detail:
        beyond = {key: ms for key, ms in detail["idle"].items() if key.startswith("beyond_")}
        console.print(", ".join(f"{key} {ms:.1f}" for key, ms in beyond.items()))
