"""What docs/security.md says of the figures of `make bench-gate` beside them."""

import re
from pathlib import Path

from benchmarks.gate import MOST

PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
TABLE, _, BELOW = PAGE.partition("| median ratios of loads")[2].partition("\n\n")
SAID = BELOW.splitlines()[0]
ROWS = [line.strip("| ").split(" | ") for line in TABLE.splitlines()[2:]]
JUDGED = ("until drawing can begin", "an erased model and its base")


def numbers(cells: list[str]) -> list[float]:
    return [float(one) for cell in cells for one in re.findall(r"\d+\.\d+", cell)]


def ratios() -> dict[str, list[float]]:
    """By the first words of their rows; of seconds, checked to not."""
    found = {}
    for name, *cells in ROWS:
        of_row = numbers(cells)
        if "seconds, checked / not" in name:
            of_row = [a / b for a, b in zip(of_row[::2], of_row[1::2], strict=True)]
        elif "seconds" in name or "memory:" in name:
            continue
        found[name.partition(",")[0]] = of_row
    return found


def test_the_rows_that_the_aim_is_for_are_named_and_within_it():
    assert f"the aim of at most {MOST}" in SAID
    for name in JUDGED:
        assert f'"{name}"' in SAID
        assert max(ratios()[name]) <= MOST


def test_every_figure_above_the_aim_is_named():
    above = [one for of_row in ratios().values() for one in of_row if one > MOST]

    assert len(above) == 3
    for one in above:
        assert f"({one:.2f})" in SAID or f"{one:.1f} times" in SAID, one
