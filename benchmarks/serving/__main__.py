"""`python -m benchmarks.serving [--only PART ...]`: measure, tabulate, draw.

Ends with 1, and names them, where figures of these parts miss their aims.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.serving import (
    blocks,
    idle,
    loading,
    scaling,
    short_requests,
    swap,
    throughput,
    variants,
)
from benchmarks.serving.aims import missed
from benchmarks.serving.plot import draw
from benchmarks.serving.table import show

OUT = Path("build/bench/serving.json")
PLOT = Path("build/bench/serving.png")
PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "throughput": throughput.measure,
    "idle": idle.measure,
    "short": short_requests.measure,
    "variants": variants.measure,
    "swap": swap.measure,
    "loading": loading.measure,
    "blocks": blocks.measure,
    "scaling": scaling.measure,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only",
        nargs="+",
        choices=PARTS,
        default=list(PARTS),
        help="measure these; what the file holds of the others stays",
    )
    OUT.parent.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = json.loads(OUT.read_text()) if OUT.exists() else {}
    detail = result.pop("detail", {})
    now: dict[str, float] = {}
    for name in parser.parse_args().only:
        began = time.monotonic()
        measured = PARTS[name]()
        detail[name] = measured.pop("detail") | {"took_s": round(time.monotonic() - began)}
        now |= measured
        result |= measured
        # After each: a run that is cut short has not measured in vain.
        OUT.write_text(json.dumps(result | {"detail": detail}, indent=2) + "\n")
    show(result, detail)
    draw(result, detail, PLOT)
    if short := missed(now):
        sys.exit("missed: " + "; ".join(short))


if __name__ == "__main__":
    main()
