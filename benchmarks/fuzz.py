"""Sends a running service what its OpenAPI document allows, and what it does not.

    python -m benchmarks.fuzz          10,000 cases against a stack of its own
    build/fuzz/summary.json            {"cases", "server_errors", "schema_breaches", ...}

Schemathesis makes the cases: each operation by itself, then chains of them along the document's
links. A case fails by a 5xx, and by an answer that the document does not describe: a status, a
type, a body, an `Allow`; invalid data that is taken; a key that is not asked for.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from benchmarks.stack import Stack, clean_environment, running_stack

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "fuzz"
WANTED = 10_000
# A cancelled job can still be read, so `use_after_free` is none of them; nor is
# `positive_data_acceptance`: a model that is not there is beyond any schema.
CHECKS = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance"),
    *("response_headers_conformance", "response_schema_conformance", "unsupported_method"),
    *("allow_header_conformance", "missing_required_header", "ensure_resource_availability"),
    *("negative_data_rejection", "ignored_auth"),
)
# A service whose last model has been retired, as made-up requests do, is not ready, and says so.
CONFIG = """
[[operations]]
include-path = "/readyz"
checks.not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "503"]
"""
SURROUNDINGS = {
    # Streams of jobs that wait for ever are cut short, and no trainer burns the processor.
    "TRCE_LONGEST_STREAM_S": "0.3",
    "TRCE_TRAINER_WORKERS": "0",
    "TRCE_INFERENCE_WORKERS": "1",
    # Room for every job that is made: a full queue would be a 503.
    "TRCE_MAX_QUEUED_ERASURES": "100000",
    "TRCE_MAX_QUEUED_EVALUATIONS": "100000",
    "TRCE_MAX_QUEUED_GENERATIONS": "100000",
    "TRCE_MAX_OPEN_JOBS_PER_TENANT": "100000",
}
# Pictures that are drawn in a moment, so that those who wait for theirs get them.
POLICY = {"limits": {"steps": 20, "images_per_request": 1, "side_px": 64}}


@dataclass(frozen=True)
class Summary:
    cases: int
    server_errors: int
    schema_breaches: int
    """Everything else that is wrong with an answer."""
    operations: int
    seconds: float
    failures: tuple[str, ...]

    @property
    def clean(self) -> bool:
        return not (self.server_errors or self.schema_breaches)

    def __add__(self, other: "Summary") -> "Summary":
        return Summary(
            cases=self.cases + other.cases,
            server_errors=self.server_errors + other.server_errors,
            schema_breaches=self.schema_breaches + other.schema_breaches,
            operations=max(self.operations, other.operations),
            seconds=round(self.seconds + other.seconds, 1),
            failures=self.failures + other.failures,
        )


def fuzz(
    url: str, key: str, folder: Path, *, per_operation: int, max_time_s: int | None = None
) -> Summary:
    """One run against a service with one key; the report stays in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / "report.json"
    (folder / "schemathesis.toml").write_text(CONFIG)
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"),
        *("--header", f"Authorization: Bearer {key}", "--checks", ",".join(CHECKS)),
        *("--max-examples", str(per_operation), "--continue-on-failure", "--no-shrink"),
        *("--request-timeout", "60", "--no-color", "--warnings", "off"),
        *("--report", "json", "--report-json-path", str(report)),
        *(() if max_time_s is None else ("--max-time", str(max_time_s))),
    ]
    with (folder / "output.txt").open("w") as output:
        subprocess.run(command, stdout=output, stderr=output, check=False, cwd=folder)
    return read(report)


def both(url: str, admin: str, folder: Path, *, cases: int, max_time_s: int | None) -> Summary:
    """A client's key first, for which models stay as they are, then the admin's."""
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {admin}"}) as http:
        http.put("/v1/policies/local", json=POLICY).raise_for_status()
        client = http.post("/v1/keys", json={"scopes": ["generate", "erase"]}).json()["key"]
        operations = sum(map(len, http.get("/openapi.json").json()["paths"].values()))
    runs = [
        fuzz(
            url,
            key,
            folder / who,
            per_operation=max(1, cases // operations // 2),
            max_time_s=max_time_s and max_time_s // 2,
        )
        for who, key in (("client", client), ("admin", admin))
    ]
    return runs[0] + runs[1]


def read(report: Path) -> Summary:
    found = json.loads(report.read_text())
    failures = found["failures"]
    server_errors = sum(one["count"] for one in failures if one["type"] == "ServerError")
    in_all = sum(one["count"] for one in failures) + found["test_cases"]["errored"]
    return Summary(
        cases=found["test_cases"]["generated"],
        server_errors=server_errors,
        schema_breaches=in_all - server_errors,
        operations=found["operations"]["tested"],
        seconds=round(found["running_time"], 1),
        failures=tuple(f"{one['title']}: {', '.join(one['operations'])}" for one in failures),
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz")
    parser.add_argument("--max-time-s", type=int, help="stop then, however many cases there were")
    chosen = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    with running_stack(log=OUT / "stack.txt", **SURROUNDINGS) as stack:
        admin = _admin_key(stack)
        summary = both(stack.url, admin, OUT, cases=WANTED, max_time_s=chosen.max_time_s)
    (OUT / "summary.json").write_text(json.dumps(asdict(summary), indent=2) + "\n")
    sys.stdout.write(f"{summary}\n{OUT / 'summary.json'}\n")
    sys.exit(0 if summary.clean else 1)


def _admin_key(stack: Stack) -> str:
    make = [sys.executable, "-m", "cli.main", "keys", "create", "--scope", "admin"]
    assert stack.settings.redis_url is not None
    environment = clean_environment() | {"REDIS_URL": stack.settings.redis_url}
    place = ["--data-dir", str(stack.settings.data_dir)]
    return subprocess.check_output([*make, *place], env=environment, text=True).strip()


if __name__ == "__main__":
    main()
