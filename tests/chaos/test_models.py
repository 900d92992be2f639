"""What becomes of erasures is checked, and what is wrong with them found."""

from core.jobs import Job
from core.specs import ErasureSpec
from tests.chaos.faults import Fault
from tests.chaos.journal import Cancel, ErasureOrder, Journal
from tests.chaos.models import Found, check_erasures
from tests.chaos.test_checker import BACK, QUEUED, SUCCEEDED, WHOLE, entries, running
from tests.chaos.verdict import Verdict
from tests.soak.load import CONCEPTS

SPEC = ErasureSpec(base_model="tiny", concepts=CONCEPTS)
FIRST, SECOND = "a" * 32, "b" * 32
FULL = "the disk of models in the making cannot be written to: No space left on device"


def model_of(job_id: str, *tensors: str, problem: str = "") -> Found:
    return Found(f"tiny-axe-{job_id[:8]}", problem, tensors or ("digest",))


def job(job_id: str, state: str = "succeeded", **fields) -> Job:
    made = {"erased_model": model_of(job_id).model_id, "seconds": 1.0}
    seen = {"result": made if state == "succeeded" else None} | fields
    return Job(
        **({"id": job_id, "spec": SPEC, "state": state, "tenant": "local"} | seen),
        attempt=1,
        max_attempts=3,
        created_at=100.0,
        finished_at=110.0,
    )


def order(job_id: str, **fields) -> ErasureOrder:
    seen = {"state": "succeeded", "model": model_of(job_id).model_id} | fields
    return ErasureOrder(seed=1, steered=False, job_id=job_id, **seen)


def verdict(*orders: ErasureOrder, records=None, streams=None, models=None, faults=()) -> Verdict:
    records = {one.job_id: job(one.job_id) for one in orders} | (records or {})
    whole = dict.fromkeys(records, WHOLE)
    found = [model_of(one.job_id) for one in orders] if models is None else models
    done = Verdict()
    journal = Journal(erasures=list(orders))
    check_erasures(journal, records, whole | (streams or {}), found, list(faults), done)
    return done


def test_what_went_well_is_clean():
    done = verdict(order(FIRST), order(SECOND))

    assert done.complaints() == []
    assert done.erasures == {"succeeded": 2}


def test_one_that_never_ended_or_is_gone_is_lost():
    assert len(verdict(order(FIRST), records={FIRST: job(FIRST, "running")}).lost) == 1
    gone = Verdict()
    check_erasures(Journal(erasures=[order(FIRST)]), {}, {}, [], [], gone)
    assert gone.lost == [f"erasure {FIRST} is gone"]


def test_one_without_its_model_is_lost():
    assert len(verdict(order(FIRST), models=[]).lost) == 1


def test_a_model_that_nobody_would_serve_is_wrong():
    broken = model_of(FIRST, problem="erasure.safetensors differs from its manifest")
    done = verdict(order(FIRST), models=[broken])

    assert "differs from its manifest" in done.wrong_models[0]
    assert len(done.lost) == 1


def test_the_same_order_is_the_same_model():
    models = [model_of(FIRST, "digest"), model_of(SECOND, "another")]

    assert len(verdict(order(FIRST), order(SECOND), models=models).wrong_models) == 1


def test_a_second_model_of_an_erasure_is_doubled():
    other = Found(f"tiny-other-{FIRST[:8]}", "", ("digest",))

    assert len(verdict(order(FIRST), models=[model_of(FIRST), other]).doubled) == 1


def test_a_model_and_an_erasure_that_nobody_ordered_are_doubled():
    done = verdict(order(FIRST), models=[model_of(FIRST), model_of(SECOND)])
    assert done.doubled == [f"nobody ordered model {SECOND[:8]}"]

    assert len(verdict(order(FIRST), records={SECOND: job(SECOND)}).doubled) == 1


def test_an_end_that_changed_is_doubled():
    assert len(verdict(order(FIRST, state="cancelled")).doubled) == 1


def test_one_that_two_orders_got_is_doubled():
    done = verdict(order(FIRST), order(FIRST), models=[model_of(FIRST)])

    assert done.doubled == [f"two orders got erasure {FIRST}"]


def test_only_a_full_disk_excuses_a_failure():
    failed = {FIRST: job(FIRST, "failed", reason=FULL)}
    stream = {FIRST: entries(QUEUED, running(1), {"state": "failed"})}
    known = {"records": failed, "streams": stream, "models": []}
    seen = order(FIRST, state="failed", model="")

    assert verdict(seen, **known, faults=[Fault("disk filled", 105.0, 4.0)]).complaints() == []
    assert len(verdict(seen, **known, faults=[Fault("disk filled", 50.0, 4.0)]).lost) == 1
    assert len(verdict(seen, **known).lost) == 1
    other = known | {"records": {FIRST: job(FIRST, "failed", reason="gave up")}}
    assert len(verdict(seen, **other, faults=[Fault("disk filled", 105.0, 4.0)]).lost) == 1


def cancelled(*, cancel: Cancel | None, models=(), took_s: float = 1.0) -> Verdict:
    """An erasure that ended as cancelled so long after 101 s."""
    stream = [*entries(QUEUED, running(1)), *entries({"state": "cancelled"}, began_s=101 + took_s)]
    return verdict(
        order(FIRST, state="cancelled", model="", cancel=cancel),
        records={FIRST: job(FIRST, "cancelled")},
        streams={FIRST: stream},
        models=list(models),
    )


def test_one_that_was_cancelled_has_no_model():
    cancel = Cancel(101.0, "running")
    done = cancelled(cancel=cancel)
    assert done.complaints() == []
    assert done.erasures == {"cancelled": 1}

    for model in (model_of(FIRST), model_of(FIRST, problem="no manifest")):
        assert "was cancelled" in cancelled(cancel=cancel, models=[model]).wrong_models[-1]


def test_one_is_cancelled_by_its_client_alone():
    assert len(cancelled(cancel=None).lost) == 1


def test_one_that_was_cancelled_ends_in_time():
    cancel = Cancel(101.0, "running")

    assert len(cancelled(cancel=cancel, took_s=6.0).slow_cancels) == 1
    assert list(cancelled(cancel=cancel).cancels_judged_s) == [("erasure", "running")]


def test_one_that_was_cancelled_while_it_ran_may_have_succeeded_just_then():
    assert verdict(order(FIRST, cancel=Cancel(102.0, "running"))).complaints() == []
    assert len(verdict(order(FIRST, cancel=Cancel(90.0, "running"))).slow_cancels) == 1
    assert len(verdict(order(FIRST, cancel=Cancel(102.95, "queued"))).doubled) == 1


def test_a_stream_with_a_hole_is_broken():
    hole = {FIRST: entries(QUEUED, SUCCEEDED)}

    assert len(verdict(order(FIRST), streams=hole).broken_streams) == 1


def test_only_a_fault_of_trainers_is_what_interrupted_it():
    stream = {FIRST: entries(QUEUED, running(1), BACK, running(2), SUCCEEDED)}
    faults = [Fault("worker killed", 101.2), Fault("training killed", 101.5)]
    done = verdict(order(FIRST), streams=stream, faults=faults)

    assert list(done.redelivered_s) == ["training killed"]
    assert done.all_redelivered_s == []
