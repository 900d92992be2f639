"""The semantics of jobs, against a real server."""

import socket
import threading
import time
import uuid
from dataclasses import replace

import pytest
import redis

from core.errors import (
    JobEnded,
    JobNotFound,
    KeyReused,
    QueueFull,
    StoreUnavailable,
    TenantQueueFull,
)
from core.job_store import AFFINITY, PATIENCE_MS, JobStore
from core.jobs import JobState, Lease
from core.progress import Progress
from core.redis_connection import SILENCE_S, connect
from core.specs import ErasureSpec, GenerationSpec
from core.terms import terms
from core.workers import WorkerRoll

CAT = GenerationSpec(prompt="a cat", seed=1)


def submit(jobs: JobStore, spec=CAT, **options) -> str:
    job_id = uuid.uuid4().hex
    return jobs.submit(job_id, spec, **({"queue_class": "emoji"} | options)).job_id


def claim(jobs: JobStore, *, slots: int = 8, owner: str = "w", lease_s: float = 30.0, **options):
    return jobs.claim(
        "generation", owner, slots=slots, lease_s=lease_s, **({"idle": True} | options)
    )


@pytest.fixture
def roll(settings):
    with connect(settings.redis_url) as client:
        yield WorkerRoll(client)


def only(leases: list[Lease]) -> Lease:
    assert len(leases) == 1
    return leases[0]


class TestSubmitting:
    def test_an_accepted_job_is_queued_and_readable(self, jobs):
        job = jobs.get(submit(jobs))

        assert job.state is JobState.QUEUED
        assert job.spec == CAT
        assert job.attempt == 0

    def test_the_same_id_again_is_the_same_job(self, jobs):
        job_id = submit(jobs)
        jobs.submit(job_id, CAT, queue_class="emoji")

        assert jobs.queued("generation") == 1

    def test_an_idempotency_key_makes_one_job(self, jobs):
        first = submit(jobs, idempotency_key="k", payload_digest="d")
        again = jobs.submit(
            uuid.uuid4().hex, CAT, queue_class="emoji", idempotency_key="k", payload_digest="d"
        )

        assert again.replayed
        assert again.job_id == first
        assert jobs.queued("generation") == 1

    def test_an_idempotency_key_belongs_to_its_tenant(self, jobs):
        first = submit(jobs, idempotency_key="k", tenant="a")

        assert submit(jobs, idempotency_key="k", tenant="b") != first

    def test_another_payload_under_the_same_key_is_refused(self, jobs):
        submit(jobs, idempotency_key="k", payload_digest="d")

        with pytest.raises(KeyReused):
            submit(jobs, idempotency_key="k", payload_digest="other")
        assert jobs.queued("generation") == 1

    def test_a_full_queue_refuses_and_keeps_what_it_has(self, settings, jobs):
        small = {"generation": replace(terms(settings)["generation"], max_queued=2)}
        bounded = JobStore(connect(settings.redis_url), small)
        submit(bounded)
        submit(bounded)

        with pytest.raises(QueueFull):
            submit(bounded)
        assert bounded.queued("generation") == 2

    def test_a_tenant_over_its_share_is_refused_and_others_are_not(self, settings):
        small = {"generation": replace(terms(settings)["generation"], max_open_per_tenant=1)}
        bounded = JobStore(connect(settings.redis_url), small)
        submit(bounded, tenant="a")

        with pytest.raises(TenantQueueFull):
            submit(bounded, tenant="a")
        submit(bounded, tenant="b")

    def test_an_ended_job_frees_its_tenants_share(self, settings):
        small = {"generation": replace(terms(settings)["generation"], max_open_per_tenant=1)}
        bounded = JobStore(connect(settings.redis_url), small)
        submit(bounded)
        bounded.succeed(only(claim(bounded)), {})

        submit(bounded)


class TestClaiming:
    def test_a_job_is_claimed_once(self, jobs):
        submit(jobs)

        assert len(claim(jobs)) == 1
        assert claim(jobs) == []

    def test_many_workers_at_once_share_the_jobs_out(self, settings, jobs):
        ids = {submit(jobs) for _ in range(60)}
        taken: list[str] = []

        def work(owner: str) -> None:
            store = JobStore(connect(settings.redis_url), terms(settings))
            while leases := claim(store, owner=owner, slots=3):
                taken.extend(lease.job_id for lease in leases)

        threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert sorted(taken) == sorted(ids)

    def test_claims_go_up_to_the_free_slots(self, jobs):
        for _ in range(5):
            submit(jobs, cost=2)

        assert len(claim(jobs, slots=7)) == 3

    def test_a_job_larger_than_every_slot_runs_on_an_idle_worker(self, jobs):
        submit(jobs, cost=8)

        assert claim(jobs, slots=4, idle=False) == []
        assert len(claim(jobs, slots=4, idle=True)) == 1

    def test_a_job_that_must_be_alone_waits_for_an_idle_worker(self, jobs):
        submit(jobs, alone=True)
        submit(jobs)

        assert claim(jobs, idle=False) == []
        assert only(claim(jobs, idle=True)).alone

    def test_urgent_jobs_go_first(self, jobs):
        submit(jobs, priority=1)
        urgent = submit(jobs, priority=0)

        assert claim(jobs, slots=1)[0].job_id == urgent

    def test_a_tenant_with_a_long_queue_does_not_hold_up_another(self, jobs):
        for _ in range(20):
            submit(jobs, tenant="many")
        few = {submit(jobs, tenant="few") for _ in range(3)}

        first_six = [claim(jobs, slots=1)[0].job_id for _ in range(6)]

        assert few <= set(first_six)

    def test_a_worker_prefers_a_little_what_it_holds(self, jobs):
        submit(jobs, queue_class="a", tenant="x")
        held = submit(jobs, queue_class="b", tenant="x")

        assert claim(jobs, slots=1, held="b")[0].job_id == held

    def test_what_it_holds_does_not_keep_another_model_waiting_for_ever(self, jobs):
        waiting = submit(jobs, queue_class="a")
        for _ in range(3 * int(AFFINITY)):
            submit(jobs, queue_class="b")

        drawn = [claim(jobs, slots=1, held="b")[0].job_id for _ in range(2 * int(AFFINITY))]

        assert waiting in drawn

    def test_live_workers_share_out_what_has_just_come(self, jobs, roll):
        roll.beat("inference-0@here")
        roll.beat("inference-1@here")
        roll.beat("trainer-0@here")
        for _ in range(7):
            submit(jobs)

        shares = [len(claim(jobs, owner=f"inference-{number}@here")) for number in (0, 1)]

        assert shares == [4, 3]

    def test_what_nobody_else_takes_is_taken_by_whoever_has_room(self, jobs, roll):
        roll.beat("inference-0@here")
        roll.beat("inference-1@there")
        for _ in range(7):
            submit(jobs)
        time.sleep(2 * PATIENCE_MS / 1000)

        assert len(claim(jobs, owner="inference-0@here")) == 7

    def test_a_worker_that_died_long_ago_is_left_no_share(self, jobs, settings):
        with connect(settings.redis_url) as client:
            WorkerRoll(client, now=lambda: time.time() - 3600).beat("inference-1@there")
            WorkerRoll(client).beat("inference-0@here")
        for _ in range(7):
            submit(jobs)

        assert len(claim(jobs, owner="inference-0@here")) == 7

    def test_kinds_do_not_mix(self, jobs):
        submit(jobs, ErasureSpec(base_model="emoji", preset="weapons"))

        assert claim(jobs) == []
        assert len(jobs.claim("erasure", "t", slots=1, lease_s=30, idle=True)) == 1


class TestLeases:
    def test_a_lapsed_lease_goes_back_to_the_queue(self, jobs):
        job_id = submit(jobs)
        claim(jobs, lease_s=0.01)
        time.sleep(0.05)

        assert jobs.reap() == 1
        again = only(claim(jobs))
        assert again.job_id == job_id
        assert again.attempt == 2

    def test_a_beaten_lease_does_not_lapse(self, jobs):
        submit(jobs)
        lease = only(claim(jobs, lease_s=0.05))
        jobs.beat([(lease.job_id, lease.token)], lease_s=30)
        time.sleep(0.1)

        assert jobs.reap() == 0

    def test_an_outage_of_the_store_uses_up_no_attempt(self, jobs, settings):
        """Nobody could beat while it was frozen, or gone."""
        submit(jobs)
        lease = only(claim(jobs, lease_s=1.0))
        with connect(settings.redis_url) as client:
            client.set("reaped_at", int(time.time() * 1000) - 5000)
        time.sleep(1.1)

        assert jobs.reap() == 0
        assert jobs.succeed(lease, {})

    def test_after_an_outage_leases_lapse_as_ever(self, jobs, settings):
        submit(jobs)
        claim(jobs, lease_s=0.2)
        with connect(settings.redis_url) as client:
            client.set("reaped_at", int(time.time() * 1000) - 3100)
        assert jobs.reap() == 0
        with connect(settings.redis_url) as client:
            ((_, lapses_ms),) = client.zrange("leases", 0, -1, withscores=True)
            assert lapses_ms < (time.time() + 3.5) * 1000
            client.zadd("leases", {client.zrange("leases", 0, 0)[0]: 1})

        assert jobs.reap() == 1

    def test_a_long_idle_time_is_no_outage(self, jobs, settings):
        with connect(settings.redis_url) as client:
            client.set("reaped_at", int(time.time() * 1000) - 60_000)
        submit(jobs)
        claim(jobs, lease_s=0.05)
        time.sleep(0.1)

        assert jobs.reap() == 1

    def test_a_worker_without_its_lease_changes_nothing(self, jobs):
        submit(jobs)
        old = only(claim(jobs, lease_s=0.01))
        time.sleep(0.05)
        jobs.reap()
        new = only(claim(jobs, owner="other"))

        assert jobs.beat([(old.job_id, old.token)], lease_s=30) == {old.job_id: "lost"}
        assert not jobs.report(old, Progress(stage="denoising", done=1, total=2))
        assert not jobs.succeed(old, {"from": "old"})
        assert not jobs.fail(old, "old")
        assert not jobs.hand_back(old, "old")
        assert jobs.succeed(new, {"from": "new"})
        assert jobs.get(new.job_id).result == {"from": "new"}

    def test_a_commit_whose_reply_was_lost_may_be_repeated(self, jobs):
        submit(jobs)
        lease = only(claim(jobs))

        assert jobs.succeed(lease, {"n": 1})
        assert jobs.succeed(lease, {"n": 1})

    def test_a_restarted_worker_takes_back_what_it_held(self, jobs):
        submit(jobs)
        claim(jobs, owner="w0")
        submit(jobs)
        claim(jobs, owner="w1")

        assert jobs.take_back("w0") == 1
        assert len(claim(jobs)) == 1

    def test_a_poison_job_gives_up_with_a_reason(self, jobs):
        job_id = submit(jobs)
        for _ in range(5):
            claim(jobs, owner="w0")
            jobs.take_back("w0")

        job = jobs.get(job_id)
        assert job.state is JobState.FAILED
        assert "gave up after 5 attempts" in job.reason
        assert claim(jobs) == []

    def test_a_job_that_took_a_worker_down_runs_alone(self, jobs):
        submit(jobs)
        claim(jobs, owner="w0")
        jobs.take_back("w0")
        submit(jobs)

        assert only(claim(jobs)).alone

    def test_handing_back_counts_no_attempt(self, jobs):
        job_id = submit(jobs)
        jobs.hand_back(only(claim(jobs)), "shutting down")

        assert jobs.get(job_id).attempt == 0
        assert only(claim(jobs)).attempt == 1

    def test_trying_again_counts_one(self, jobs):
        submit(jobs)
        jobs.try_again(only(claim(jobs)), "out of memory")

        assert only(claim(jobs)).attempt == 2


class TestCancelling:
    def test_a_queued_job_ends_at_once(self, jobs):
        job_id = submit(jobs)

        assert jobs.cancel(job_id).state is JobState.CANCELLED
        assert claim(jobs) == []
        assert jobs.queued("generation") == 0

    def test_a_running_one_is_told_by_its_next_beat(self, jobs):
        submit(jobs)
        lease = only(claim(jobs))

        assert jobs.cancel(lease.job_id).cancelling
        assert jobs.beat([(lease.job_id, lease.token)], lease_s=30) == {lease.job_id: "cancelled"}
        assert jobs.acknowledge_cancel(lease)
        assert jobs.get(lease.job_id).state is JobState.CANCELLED

    def test_a_cancelled_job_whose_worker_died_is_not_run_again(self, jobs):
        job_id = submit(jobs)
        claim(jobs, owner="w0")
        jobs.cancel(job_id)
        jobs.take_back("w0")

        assert jobs.get(job_id).state is JobState.CANCELLED

    def test_an_ended_job_moves_no_further(self, jobs):
        job_id = submit(jobs)
        jobs.succeed(only(claim(jobs)), {})

        with pytest.raises(JobEnded, match="already succeeded"):
            jobs.cancel(job_id)

    def test_an_unknown_job_is_not_found(self, jobs):
        with pytest.raises(JobNotFound):
            jobs.cancel("0" * 32)


class TestReading:
    def test_the_history_of_a_job_is_complete_and_in_order(self, jobs):
        job_id = submit(jobs)
        lease = only(claim(jobs))
        jobs.report(lease, Progress(stage="denoising", done=1, total=2))
        jobs.succeed(lease, {})

        entries = jobs.events(job_id)
        assert [fields.get("state", "progress") for _, fields in entries] == [
            "queued",
            "running",
            "progress",
            "succeeded",
        ]
        assert jobs.events(job_id, after=entries[1][0]) == entries[2:]

    def test_lists_are_newest_first_and_continue_after_an_id(self, jobs):
        ids = []
        for _ in range(5):
            ids.append(submit(jobs))
            time.sleep(0.002)

        page = jobs.latest("generation", limit=2)
        rest = jobs.latest("generation", limit=9, before=page[-1].id)

        assert [job.id for job in [*page, *rest]] == ids[::-1]

    def test_an_ended_job_is_forgotten_after_its_time(self, settings):
        brief = {"generation": replace(terms(settings)["generation"], keep_s=0.05)}
        store = JobStore(connect(settings.redis_url), brief)
        job_id = submit(store)
        store.succeed(only(claim(store)), {})
        time.sleep(0.1)

        with pytest.raises(JobNotFound):
            store.get(job_id)
        assert store.latest("generation") == []


def test_jobs_outlive_the_broker(broker, jobs):
    job_id = submit(jobs)
    lease = only(claim(jobs))
    waiting = submit(jobs)
    broker.kill()
    broker.start()

    assert jobs.get(waiting).state is JobState.QUEUED
    assert jobs.succeed(lease, {})
    assert jobs.get(job_id).state is JobState.SUCCEEDED


def test_a_broker_that_is_away_is_said_to_be(broker, jobs):
    broker.kill()
    try:
        with pytest.raises(StoreUnavailable):
            submit(jobs)
    finally:
        broker.start()


def test_a_broker_that_says_nothing_is_not_waited_for_long():
    """It accepts connections, and never answers: worse than one that is gone."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        client = connect(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", retry_s=0.2)
        started = time.monotonic()
        with pytest.raises(redis.RedisError):
            client.ping()
        assert time.monotonic() - started < 4 * SILENCE_S


def test_a_broker_that_comes_back_in_time_is_waited_for(broker, jobs, settings):
    patient = JobStore(connect(settings.redis_url, retry_s=30), terms(settings))
    job_id = submit(jobs)
    broker.kill()
    restart = threading.Timer(1.0, broker.start)
    restart.start()

    assert patient.get(job_id).state is JobState.QUEUED
    restart.join()


def test_a_broker_that_starts_again_and_again_is_said_to_be_away(broker, settings, monkeypatch):
    """As it does while its disk is full: each time it has forgotten the script it was given."""
    client = connect(settings.redis_url)
    load = client.script_load

    def load_and_restart(script: str) -> str:
        digest = load(script)
        broker.kill()
        broker.start()
        return digest

    monkeypatch.setattr(client, "script_load", load_and_restart)
    broker.kill()
    broker.start()

    with pytest.raises(StoreUnavailable):
        submit(JobStore(client, terms(settings)))
    monkeypatch.undo()
    submit(JobStore(client, terms(settings)))


def test_a_spec_of_another_version_fails_alone(settings, jobs):
    strange, ordinary = submit(jobs), submit(jobs)
    with connect(settings.redis_url) as client:
        client.hset(f"job:{strange}", "spec", '{"kind": "generation", "colour": "red"}')

    assert [lease.job_id for lease in claim(jobs)] == [ordinary]
    with connect(settings.redis_url) as client:
        assert client.hget(f"job:{strange}", "state") == "failed"


def test_a_key_whose_job_was_forgotten_makes_a_new_one(settings):
    brief = {"generation": replace(terms(settings)["generation"], keep_s=0.05)}
    store = JobStore(connect(settings.redis_url), brief)
    first = submit(store, idempotency_key="k")
    store.succeed(only(claim(store)), {})
    time.sleep(0.1)

    assert store.made_by("generation", "k", "") is None
    assert submit(store, idempotency_key="k") != first


def test_the_list_of_jobs_does_not_grow_for_ever(settings):
    brief = {"generation": replace(terms(settings)["generation"], keep_s=0.01)}
    store = JobStore(connect(settings.redis_url), brief)
    for _ in range(30):
        submit(store)
        store.succeed(only(claim(store)), {})
        time.sleep(0.02)

    with connect(settings.redis_url) as client:
        assert client.zcard("jobs:generation") < 5
