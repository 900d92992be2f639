"""What the checker is there to find, it finds."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from core.jobs import Job
from core.picture_files import digest_of, encode
from core.provenance import Provenance, text_digest
from core.redis_connection import connect
from core.specs import GenerationSpec
from tests.chaos.checker import check, left_over
from tests.chaos.faults import Fault
from tests.chaos.journal import Journal, Order
from tests.chaos.streams import faults_of
from tests.chaos.variants import CHANGED, MAPPED, MODEL

SPEC = GenerationSpec(prompt="an axe", seed=1)


DIGESTS = {one: hashlib.sha256(one.encode()).hexdigest() for one in (MODEL, MAPPED, CHANGED)}


def png(value: int, **told: str) -> bytes:
    """A picture of one colour, and what its record tells of its origin."""
    picture = Image.fromarray(np.full((4, 4, 3), value, np.uint8))
    values = {"model": MODEL, "model_digest": DIGESTS[told.get("model", MODEL)]}
    values |= {"pixels": digest_of(picture), "parameters": text_digest("")} | told
    record = Provenance(
        **values,
        index=0,
        certificate="",
        base_model=None,
        base_digest=None,
        seed=1,
        made_at=100,
    )
    return encode(picture, "png", 90, parameters="", record=record.encoded())


def entries(*events: dict[str, str], began_s: float = 100.0, every_s: float = 1.0):
    return [(f"{int((began_s + i * every_s) * 1000)}-0", event) for i, event in enumerate(events)]


QUEUED, SUCCEEDED = {"state": "queued"}, {"state": "succeeded"}
BACK = {"state": "queued", "why": "its worker was restarted"}
PROGRESS = {"progress": "{}"}


def running(attempt: int) -> dict[str, str]:
    return {"state": "running", "attempt": str(attempt)}


def job(job_id: str, state: str = "succeeded", **fields) -> Job:
    return Job(
        **({"id": job_id, "spec": SPEC, "state": state, "tenant": "local"} | fields),
        attempt=1,
        max_attempts=5,
        created_at=100.0,
    )


WHOLE = entries(QUEUED, running(1), PROGRESS, SUCCEEDED)


def order(job_id: str, *, model: str = MODEL, seed: int = 1, value: int = 7, **fields) -> Order:
    picture = png(value, generation=job_id, model=model)
    seen = {"job_id": job_id, "state": "succeeded", "picture": picture} | fields
    return Order(model, "an axe", seed, 4, **seen)


def verdict(*orders: Order, records=None, streams=None, faults=()):
    records = {one.job_id: job(one.job_id) for one in orders} | (records or {})
    whole = dict.fromkeys(records, WHOLE)
    journal = Journal(orders=list(orders))
    return check(journal, records, whole | (streams or {}), list(faults), DIGESTS)


def test_what_went_well_is_clean():
    done = verdict(order("a"), order("b"), order("c", seed=2, value=90))

    assert done.clean
    assert done.complaints() == []
    assert done.ended == {"succeeded": 3}


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_job_that_never_ended_is_lost(state):
    assert len(verdict(order("a"), records={"a": job("a", state)}).lost) == 1


def test_a_job_that_is_gone_is_lost():
    journal = Journal(orders=[order("a")])

    assert len(check(journal, {}, {}, [], DIGESTS).lost) == 1


def test_a_job_that_failed_by_our_doing_is_lost():
    stream = {"a": entries(QUEUED, running(1), {"state": "failed"})}
    failed = {"a": job("a", "failed", reason="gave up after 5 attempts")}

    assert "gave up" in verdict(order("a", state="failed"), records=failed, streams=stream).lost[0]


def test_a_picture_that_is_not_there_is_lost():
    assert verdict(order("a", picture=None)).lost == ["job a succeeded, and there is no picture"]


def test_an_end_that_changed_is_doubled():
    stream = {"a": entries(QUEUED, {"state": "cancelled"})}
    cancelled = {"a": job("a", "cancelled")}

    assert len(verdict(order("a"), records=cancelled, streams=stream).doubled) == 1


def test_a_job_that_nobody_ordered_is_doubled():
    assert verdict(order("a"), records={"b": job("b")}).doubled == ["nobody ordered job b"]


def test_a_job_that_two_orders_got_is_doubled():
    assert verdict(order("a"), order("a")).doubled == ["two orders got job a"]


@pytest.mark.parametrize(
    ("events", "fault"),
    [
        pytest.param((running(1), SUCCEEDED), "running after nothing", id="no beginning"),
        pytest.param((QUEUED, running(1)), "ends with running", id="no end"),
        pytest.param((QUEUED, SUCCEEDED), "succeeded after queued", id="never ran"),
        pytest.param(
            (QUEUED, running(1), SUCCEEDED, SUCCEEDED), "succeeded after succeeded", id="two ends"
        ),
        pytest.param(
            (QUEUED, running(1), SUCCEEDED, PROGRESS), "progress while succeeded", id="afterlife"
        ),
        pytest.param((QUEUED, running(1), BACK, running(3), SUCCEEDED), "attempt 3", id="a gap"),
        pytest.param(
            (QUEUED, running(1), running(2), SUCCEEDED), "running after", id="two at once"
        ),
    ],
)
def test_a_stream_with_a_hole_is_broken(events, fault):
    assert fault in "; ".join(faults_of(entries(*events), "succeeded"))


@pytest.mark.parametrize(
    "events",
    [
        (QUEUED, running(1), BACK, running(2), PROGRESS, SUCCEEDED),
        (QUEUED, running(1), BACK | {"why": "its worker is shutting down"}, running(1), SUCCEEDED),
    ],
)
def test_a_stream_with_two_attempts_may_be_whole(events):
    assert faults_of(entries(*events), "succeeded") == []


def test_a_listener_hears_every_event_once_and_in_order():
    ids = [entry_id for entry_id, _ in WHOLE]

    assert verdict(order("a", heard=ids)).clean
    for heard in (ids[:-1], ids[::-1], [ids[0], *ids]):
        assert len(verdict(order("a", heard=heard)).broken_streams) == 1


def test_what_is_lost_is_counted_with_each_fault_that_its_job_lived_through():
    records = {"a": job("a", "failed", reason="gave up", finished_at=110.0)}
    faults = [Fault("worker killed", 105.0), Fault("broker frozen", 90.0, 12.0)]
    faults += [Fault("broker killed", 111.0), Fault("disk filled", 80.0, 4.0)]
    done = verdict(order("a", state="failed"), records=records, faults=faults)

    struck = {one.kind for one in faults if done.struck_by(one.kind, done.lost, faults)}
    assert struck == {"worker killed", "broker frozen"}
    assert done.struck_by("broker killed", ["job b is gone"], faults) == 1


def test_a_store_that_counts_nothing_more_is_whole(jobs, settings):
    with connect(settings.redis_url) as client:
        jobs.submit("a" * 32, SPEC, queue_class="tiny", deadline_s=60)
        assert [one.partition(":")[0] for one in left_over(client)] == [
            *("queued", "queue", "open", "deadlines"),
        ]
        (lease,) = jobs.leasing.claim("generation", "w", slots=1, lease_s=60, idle=True)
        assert {"owner", "leases"} <= {one.partition(":")[0] for one in left_over(client)}

        jobs.leasing.succeed(lease, {})
        assert left_over(client) == []
