"""The semantics of jobs, against a real server."""

import json
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
    JobUnreadable,
    KeyReused,
    QueueFull,
    StoreUnavailable,
    TenantQueueFull,
)
from core.job_store import JobStore
from core.jobs import JobState, Lease
from core.progress import Progress
from core.redis_connection import SILENCE_S, connect
from core.specs import GenerationSpec
from core.terms import terms

CAT = GenerationSpec(prompt="a cat", seed=1)


def submit(jobs: JobStore, spec=CAT, **options) -> str:
    job_id = uuid.uuid4().hex
    return jobs.submit(job_id, spec, **({"queue_class": "emoji"} | options)).job_id


def claim(jobs: JobStore, *, slots: int = 8, owner: str = "w", lease_s: float = 30.0, **options):
    return jobs.leasing.claim(
        "generation", owner, slots=slots, lease_s=lease_s, **({"idle": True} | options)
    )


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

        assert jobs.counts.queued("generation") == 1

    def test_an_idempotency_key_makes_one_job(self, jobs):
        first = submit(jobs, idempotency_key="k", payload_digest="d")
        again = jobs.submit(
            uuid.uuid4().hex, CAT, queue_class="emoji", idempotency_key="k", payload_digest="d"
        )

        assert again.replayed
        assert again.job_id == first
        assert jobs.counts.queued("generation") == 1

    def test_an_idempotency_key_belongs_to_its_tenant(self, jobs):
        first = submit(jobs, idempotency_key="k", tenant="a")

        assert submit(jobs, idempotency_key="k", tenant="b") != first

    def test_another_payload_under_the_same_key_is_refused(self, jobs):
        submit(jobs, idempotency_key="k", payload_digest="d")

        with pytest.raises(KeyReused):
            submit(jobs, idempotency_key="k", payload_digest="other")
        assert jobs.counts.queued("generation") == 1

    def test_a_full_queue_refuses_and_keeps_what_it_has(self, settings, jobs):
        small = {"generation": replace(terms(settings)["generation"], max_queued=2)}
        bounded = JobStore(connect(settings.redis_url), small)
        submit(bounded)
        submit(bounded)

        with pytest.raises(QueueFull):
            submit(bounded)
        assert bounded.counts.queued("generation") == 2

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
        bounded.leasing.succeed(only(claim(bounded)), {})

        assert bounded.get(submit(bounded)).state is JobState.QUEUED


class TestCancelling:
    def test_a_queued_job_ends_at_once(self, jobs):
        job_id = submit(jobs)

        assert jobs.cancel(job_id).state is JobState.CANCELLED
        assert claim(jobs) == []
        assert jobs.counts.queued("generation") == 0

    def test_a_running_one_is_told_by_its_next_beat(self, jobs):
        submit(jobs)
        lease = only(claim(jobs))

        assert jobs.cancel(lease.job_id).cancelling
        assert jobs.leasing.beat([(lease.job_id, lease.token)], lease_s=30) == {
            lease.job_id: "cancelled"
        }
        assert jobs.leasing.acknowledge_cancel(lease)
        assert jobs.get(lease.job_id).state is JobState.CANCELLED

    def test_a_cancelled_job_whose_worker_died_is_not_run_again(self, jobs):
        job_id = submit(jobs)
        claim(jobs, owner="w0")
        jobs.cancel(job_id)
        jobs.leasing.take_back("w0")

        assert jobs.get(job_id).state is JobState.CANCELLED

    def test_an_ended_job_moves_no_further(self, jobs):
        job_id = submit(jobs)
        jobs.leasing.succeed(only(claim(jobs)), {})

        with pytest.raises(JobEnded, match="already succeeded"):
            jobs.cancel(job_id)

    def test_an_unknown_job_is_not_found(self, jobs):
        with pytest.raises(JobNotFound):
            jobs.cancel("0" * 32)


class TestReading:
    def test_the_history_of_a_job_is_complete_and_in_order(self, jobs):
        job_id = submit(jobs)
        lease = only(claim(jobs))
        jobs.leasing.report(lease, Progress(stage="denoising", done=1, total=2))
        jobs.leasing.succeed(lease, {})

        entries = jobs.news.events(job_id)
        assert [fields.get("state", "progress") for _, fields in entries] == [
            "queued",
            "running",
            "progress",
            "succeeded",
        ]
        assert jobs.news.events(job_id, after=entries[1][0]) == entries[2:]

    def test_lists_are_newest_first_and_continue_after_an_id(self, jobs):
        ids = []
        for _ in range(5):
            ids.append(submit(jobs))
            time.sleep(0.002)

        page = jobs.lists.latest("generation", limit=2)
        rest = jobs.lists.latest("generation", limit=9, before=page[-1].id)

        assert [job.id for job in [*page, *rest]] == ids[::-1]

    def test_an_ended_job_is_forgotten_after_its_time(self, settings):
        brief = {"generation": replace(terms(settings)["generation"], keep_s=0.05)}
        store = JobStore(connect(settings.redis_url), brief)
        job_id = submit(store)
        store.leasing.succeed(only(claim(store)), {})
        time.sleep(0.1)

        with pytest.raises(JobNotFound):
            store.get(job_id)
        assert store.lists.latest("generation") == []

    def test_one_of_an_earlier_version_is_kept_as_long_as_whoever_ends_it_says(
        self, settings, jobs
    ):
        job_id = submit(jobs)
        with connect(settings.redis_url) as client:
            assert client.hdel(f"job:{job_id}", "keep_ms")
            jobs.leasing.succeed(only(claim(jobs)), {})
            kept_s = client.pttl(f"job:{job_id}") / 1000

        assert kept_s == pytest.approx(settings.keep_generations_s, abs=5)


class TestRecordsOfANewerVersion:
    @pytest.fixture
    def newer(self, jobs, settings) -> str:
        job_id = submit(jobs)
        spec = json.loads(CAT.model_dump_json()) | {"style": "from tomorrow"}
        connect(settings.redis_url).hset(f"job:{job_id}", "spec", json.dumps(spec))
        return job_id

    def test_are_said_to_be_that(self, jobs, newer):
        with pytest.raises(JobUnreadable, match=f"{newer}.*upgrade"):
            jobs.get(newer)

    def test_hide_no_others_and_stay_in_the_lists(self, jobs, newer, settings):
        other = submit(jobs)
        listed = connect(settings.redis_url)
        listed.rpush("dead", newer)

        assert [job.id for job in jobs.lists.latest("generation")] == [other]
        assert [job.id for job in jobs.lists.unfinished("generation", limit=9)] == [other]
        assert jobs.lists.dead() == []
        jobs.lists.forget_expired()
        assert listed.zcard("jobs:generation") == 2
        assert listed.lrange("dead", 0, -1) == [newer]


def test_jobs_outlive_the_broker(broker, jobs):
    job_id = submit(jobs)
    lease = only(claim(jobs))
    waiting = submit(jobs)
    broker.kill()
    broker.start()

    assert jobs.get(waiting).state is JobState.QUEUED
    assert jobs.leasing.succeed(lease, {})
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
    store.leasing.succeed(only(claim(store)), {})
    time.sleep(0.1)

    assert store.made_by("generation", "k", "") is None
    assert submit(store, idempotency_key="k") != first


def test_the_list_of_jobs_does_not_grow_for_ever(settings):
    brief = {"generation": replace(terms(settings)["generation"], keep_s=0.01)}
    store = JobStore(connect(settings.redis_url), brief)
    for _ in range(30):
        submit(store)
        store.leasing.succeed(only(claim(store)), {})
        time.sleep(0.02)

    with connect(settings.redis_url) as client:
        assert client.zcard("jobs:generation") < 5
