"""The history of a job, as its event stream tells it.

queued ─▶ running ─▶ (progress)* ─▶ succeeded | failed | cancelled      and then nothing
  ▲ │        │
  │ └────────┼────────────────────▶ cancelled
  └── why ───┘
"""

from collections.abc import Sequence
from dataclasses import dataclass

Entry = tuple[str, dict[str, str]]
"""As Redis keeps it: (milliseconds and a number, fields)."""
ENDS = {"succeeded", "failed", "cancelled"}
NEXT = {
    "": {"queued"},
    "queued": {"running", "cancelled"},
    "running": {"queued", *ENDS},
} | {end: set() for end in ENDS}


@dataclass(frozen=True)
class Redelivery:
    """From the start that came to nothing to the next; unix seconds."""

    began_at: float
    waited_again_at: float
    began_again_at: float
    why: str


def faults_of(entries: Sequence[Entry], ended_as: str) -> list[str]:
    """What is wrong with a stream whose job ended in this state, in words; empty when whole."""
    found, state, attempt, handed_back = [], "", 0, False
    for _, fields in entries:
        if "progress" in fields:
            if state != "running":
                found.append(f"progress while {state or 'unknown'}")
            continue
        new = fields.get("state", "?")
        if new not in NEXT[state]:
            found.append(f"{new} after {state or 'nothing'}")
            if new not in NEXT:
                break
        if new == "running":
            expected = {attempt + 1} | ({attempt} if handed_back else set())
            if int(fields["attempt"]) not in expected:
                found.append(f"attempt {fields['attempt']} after {attempt}")
            attempt = int(fields["attempt"])
        handed_back = new == "queued" and bool(fields.get("why"))
        state = new
    if state != ended_as:
        found.append(f"ends with {state or 'nothing'}, and its record says {ended_as}")
    return found


def redeliveries(entries: Sequence[Entry]) -> list[Redelivery]:
    found, began_at, waited_at, why = [], None, 0.0, ""
    for entry_id, fields in entries:
        at = int(entry_id.partition("-")[0]) / 1000
        if fields.get("state") == "queued":
            waited_at, why = at, fields.get("why", "")
        if fields.get("state") == "running":
            if began_at is not None:
                found.append(Redelivery(began_at, waited_at, at, why))
            began_at = at
    return found


def ended_at(entries: Sequence[Entry]) -> float:
    """Unix seconds."""
    return int(entries[-1][0].partition("-")[0]) / 1000
