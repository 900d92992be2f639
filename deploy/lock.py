"""Resolve the project's dependencies anew and write requirements.lock. `make lock` runs it."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = (
    "# Exact versions of everything that is installed, made by `make lock`; "
    "pip reads it as constraints.\n"
)
# Newer ones bring gigabytes of CUDA where a CPU build is wanted.
TORCH = "torch==2.13.0"


def main() -> None:
    resolve = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run"]
    options = ["--ignore-installed", "--report", "-", TORCH, "--editable", f"{ROOT}[all,dev]"]
    report = subprocess.run([*resolve, *options], check=True, stdout=subprocess.PIPE).stdout
    found = {
        item["metadata"]["name"].lower().replace("_", "-"): item["metadata"]["version"]
        for item in json.loads(report)["install"]
    }
    del found["trce-service"]
    # `2.13.0+cpu` is a build of 2.13.0.
    lines = [f"{name}=={version.split('+')[0]}\n" for name, version in sorted(found.items())]
    (ROOT / "requirements.lock").write_text(HEADER + "".join(lines))


if __name__ == "__main__":
    main()
