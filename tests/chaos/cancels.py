"""How long what was cancelled went on, held against what is promised where no fault is near."""

from collections.abc import Sequence

from core.jobs import Job
from tests.chaos.faults import Fault
from tests.chaos.journal import Cancel
from tests.chaos.verdict import RECOVERS_WITHIN_S, Verdict

STEP_S = 0.02
"""Of the tiny model."""
ENDS_WITHIN_S = {
    ("generation", "queued"): 0.1,
    ("generation", "running"): 1.0 + STEP_S,
    ("erasure", "queued"): 0.1,
    ("erasure", "running"): 5.0,
}
"""From the request, by what it was when that was answered; on a machine that is not crowded."""


def judge_cancel(
    cancel: Cancel, job: Job, ended_at: float, faults: Sequence[Fault], verdict: Verdict
) -> None:
    """Also of what succeeded all the same: it had its last look behind it, or did not obey.

    Args:
        ended_at: unix seconds.
        faults: that it can have felt.
    """
    kind, was = job.spec.kind, cancel.while_it_was
    bound_s = ENDS_WITHIN_S[kind, was] * cancel.crowding
    took_s = ended_at - cancel.sent_at
    if job.state == "cancelled":
        verdict.cancelled_s[kind, was].append(took_s)
    if _is_near(cancel.sent_at, bound_s, faults):
        return
    verdict.cancels_judged_s[kind, was].append(took_s)
    if took_s > bound_s:
        verdict.slow_cancels.append(
            f"{kind} {job.id} was cancelled while {was} at {cancel.sent_at:.1f}, far from any "
            f"fault, and ended {took_s:.2f} s later; {bound_s:.2f} s are promised where "
            f"{cancel.crowding:.1f} want each core"
        )


def _is_near(sent_at: float, bound_s: float, faults: Sequence[Fault]) -> bool:
    """One that comes when it should have ended already excuses nothing."""
    return any(fault.at < sent_at + bound_s and forgotten_at(fault) > sent_at for fault in faults)


def forgotten_at(fault: Fault) -> float:
    """When its victim has started again, and draws as if nothing had been; unix seconds."""
    over_at = fault.at + max(fault.lasted_s, fault.took_s)
    return over_at + RECOVERS_WITHIN_S * fault.crowding
