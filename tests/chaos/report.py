"""The table that a run ends with, and `summary.json` for programs."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from tests.chaos.faults import OF_TRAINERS
from tests.chaos.run import Run
from tests.chaos.verdict import Verdict, median

WORKER_KILLS = ("pool child killed", "worker killed")
MAX_UNEXPLAINED = 10
FREEZES = ("worker frozen", "heartbeat frozen", "broker frozen", "service frozen")


def summary(run: Run) -> dict[str, Any]:
    happened = Counter(fault.kind for fault in run.faults)
    redelivered = run.verdict.all_redelivered_s
    return {
        "jobs": run.verdict.jobs,
        "jobs_by_model": dict(run.verdict.jobs_of),
        "worker_kills": sum(happened[kind] for kind in WORKER_KILLS),
        "broker_kills": happened["broker killed"],
        "freezes": sum(happened[kind] for kind in FREEZES),
        "erasures": sum(run.verdict.erasures.values()),
        "erasures_cancelled": run.verdict.erasures["cancelled"],
        "trainer_kills": sum(happened[kind] for kind in OF_TRAINERS),
        "lost": len(run.verdict.lost),
        "doubled": len(run.verdict.doubled),
        "unexplained": len(run.verdict.unexplained),
        "slow": len(run.verdict.slow),
        "cancels_judged": sum(map(len, run.verdict.cancels_judged_s.values())),
        "cancels_slow": len(run.verdict.slow_cancels),
        "complaints": len(run.verdict.complaints()),
        "goals_missed": run.missed,
        "redelivery_p50_s": round(median(redelivered), 3),
        "redelivery_max_s": round(max(redelivered, default=0.0), 3),
    }


def write_summary(run: Run, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(summary(run), indent=2) + "\n")
    (folder / "table.md").write_text(table(run) + "\n")


def table(run: Run) -> str:
    verdict, happened = run.verdict, Counter(fault.kind for fault in run.faults)
    lines = [
        f"seed {run.seed}, {run.minutes:.1f} minutes, {verdict.jobs} jobs accepted: "
        + _each(verdict.ended),
        f"jobs by what their model is: {_each(verdict.jobs_of)}",
        f"{sum(verdict.erasures.values())} erasures: {_each(verdict.erasures)}",
        f"the second host is {run.far_host}; "
        + ("the disk is a small one of its own" if run.own_disk else "no disk could be filled"),
        f"clients repeated {run.journal.refusals} requests after a 429 or 503 with Retry-After, "
        f"{run.journal.silences} after a broken connection",
        "",
        "| fault | times | lost | doubled | jobs interrupted | wait again, s: median | longest "
        "| begun again, s: median | longest |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for kind, times in happened.most_common():
        waited, begun = verdict.requeued_s.get(kind, []), verdict.redelivered_s.get(kind, [])
        lost, doubled = (
            verdict.struck_by(kind, found, run.faults) for found in (verdict.lost, verdict.doubled)
        )
        lines.append(
            f"| {kind} | {times} | {lost} | {doubled} | {len(begun)} "
            f"| {_both(waited)} | {_both(begun)} |"
        )
    lines += ["", f"{len(verdict.unexplained)} redeliveries that no fault explains"]
    lines += [f"- {one}" for one in verdict.unexplained[:MAX_UNEXPLAINED]]
    lines += ["", "| promise | broken |", "|---|---|"]
    lines += [
        f"| {promise} | {len(found)} |"
        for promise, found in [
            ("nothing accepted is lost", verdict.lost),
            ("nothing is done twice as seen by a client", verdict.doubled),
            ("the same model and seed are the same picture", verdict.wrong_pictures),
            ("each erasure's model is there once, whole, the same as ever", verdict.wrong_models),
            ("every event stream is whole", verdict.broken_streams),
            ("no answer that a client cannot expect", verdict.surprises),
            ("begun again in time after a kill that nothing overlaps", verdict.slow),
            ("what is cancelled far from any fault ends in time", verdict.slow_cancels),
            ("nothing is counted or held when everything has ended", verdict.left_over),
        ]
    ]
    lines += ["", "| attempts | jobs |", "|---|---|"]
    lines += [f"| {count} | {jobs} |" for count, jobs in sorted(verdict.attempts.items())]
    return "\n".join([*lines, "", *_cancels(verdict)])


def _cancels(verdict: Verdict) -> list[str]:
    lines = [
        "| cancelled while | jobs | median s | longest s | far from any fault | longest s |",
        "|---|---|---|---|---|---|",
    ]
    for key in sorted(verdict.cancelled_s.keys() | verdict.cancels_judged_s.keys()):
        kind, state = key
        took, judged = verdict.cancelled_s.get(key, []), verdict.cancels_judged_s.get(key, [])
        lines.append(
            f"| {state} ({kind}) | {len(took)} | {median(took):.3f} "
            f"| {max(took, default=0.0):.3f} | {len(judged)} | {max(judged, default=0.0):.3f} |"
        )
    return lines


def _each(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))


def _both(seconds: list[float]) -> str:
    return f"{median(seconds):.2f} | {max(seconds):.2f}" if seconds else "- | -"
