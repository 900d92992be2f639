"""How workers share jobs out, keep them, lose them and give them back."""

import random
import threading
import time

import pytest

from core.errors import StoreUnavailable
from core.job_store import JobStore
from core.jobs import JobState, Lease
from core.leasing import AFFINITY, PATIENCE_MS
from core.progress import Progress
from core.redis_connection import connect
from core.specs import ErasureSpec
from core.terms import terms
from core.workers import WorkerRoll
from tests.core.test_job_store import claim, only, submit


@pytest.fixture
def roll(settings):
    with connect(settings.redis_url) as client:
        yield WorkerRoll(client)


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

        assert claim(jobs, slots=1, held=["b"])[0].job_id == held

    def test_what_it_holds_does_not_keep_another_model_waiting_for_ever(self, jobs):
        waiting = submit(jobs, queue_class="a")
        for _ in range(3 * int(AFFINITY)):
            submit(jobs, queue_class="b")

        drawn = [claim(jobs, slots=1, held=["b"])[0].job_id for _ in range(2 * int(AFFINITY))]

        assert waiting in drawn

    def test_what_is_loaded_besides_is_preferred_to_what_is_not_and_the_one_drawn_with_to_both(
        self, jobs
    ):
        unloaded, loaded, drawn = (submit(jobs, queue_class=name) for name in ("a", "b", "c"))

        order = [claim(jobs, slots=1, held=["c", "b"])[0].job_id for _ in range(3)]
        assert order == [drawn, loaded, unloaded]

    def test_nothing_that_is_held_keeps_another_model_waiting_for_ever(self, jobs):
        """A worker with many models, each of which has more jobs all the time."""
        waiting = submit(jobs, queue_class="a")
        names = [f"m{number}" for number in range(8)]
        drawn = []
        for _ in range(4 * int(AFFINITY)):
            for name in names:
                submit(jobs, queue_class=name)
            drawn.append(claim(jobs, slots=1, held=names)[0].job_id)

        assert waiting in drawn

    def test_classes_that_are_not_wanted_now_wait_and_hold_up_no_other(self, jobs):
        later, now = submit(jobs, queue_class="a"), submit(jobs, queue_class="b")

        assert [one.job_id for one in claim(jobs, without=["a"])] == [now]
        assert claim(jobs, without=["a"]) == []
        assert only(claim(jobs)).job_id == later

    def test_what_has_just_come_is_left_to_a_worker_that_draws_and_has_its_model(self, jobs, roll):
        holder, other = "inference-0@here", "inference-1@here"
        roll.beat(holder)
        roll.beat(other)
        submit(jobs, queue_class="a")
        claim(jobs, owner=holder, held=["a", "b"])
        left = {submit(jobs, queue_class="b") for _ in range(2)}
        foreign = submit(jobs, queue_class="c")

        assert [one.job_id for one in claim(jobs, owner=other, held=["x"])] == [foreign]
        taken = claim(jobs, owner=holder, held=["a", "b"], slots=1)
        assert {one.job_id for one in taken} < left
        # Now it has its share of the four.
        assert {one.job_id for one in (*taken, *claim(jobs, owner=other))} == left

    @pytest.mark.parametrize("hindrance", ["sleeps", "is gone", "lost it", "of another role"])
    def test_a_worker_that_could_not_take_it_at_once_is_left_nothing(self, jobs, roll, hindrance):
        holder, other = "inference-0@here", "inference-1@here"
        if hindrance == "of another role":
            holder = "trainer-0@here"
        if hindrance != "is gone":
            roll.beat(holder)
        roll.beat(other)
        submit(jobs, queue_class="a")
        lease = only(claim(jobs, owner=holder, held=["a"]))
        if hindrance == "sleeps":
            jobs.leasing.succeed(lease, {})
        if hindrance == "lost it":
            claim(jobs, owner=holder, held=["x"])
        ids = {submit(jobs, queue_class="a") for _ in range(2)}

        assert only(claim(jobs, owner=other, slots=1)).job_id in ids

    def test_what_its_holder_does_not_take_is_taken_by_any_other(self, jobs, roll):
        roll.beat("inference-0@here")
        roll.beat("inference-1@here")
        submit(jobs, queue_class="a")
        claim(jobs, owner="inference-0@here", held=["a"])
        ids = {submit(jobs, queue_class="a") for _ in range(3)}
        assert claim(jobs, owner="inference-1@here") == []
        time.sleep(1.2 * PATIENCE_MS / 1000)

        assert {one.job_id for one in claim(jobs, owner="inference-1@here")} == ids

    def test_of_workers_that_are_gone_nobody_remembers_what_they_held(self, jobs, roll, settings):
        roll.beat("inference-0@here")
        claim(jobs, owner="inference-0@here", held=["a"])
        claim(jobs, owner="inference-1@gone", held=["b"])
        claim(jobs, owner="inference-0@here", held=["c"])

        with connect(settings.redis_url) as client:
            assert client.hgetall("held") == {"inference-0@here": "c"}

    def test_live_workers_share_out_what_has_just_come(self, jobs, roll):
        roll.beat("inference-0@here")
        roll.beat("inference-1@here")
        roll.beat("trainer-0@here")
        for _ in range(7):
            submit(jobs)

        shares = [len(claim(jobs, owner=f"inference-{number}@here")) for number in (0, 1)]

        assert shares == [4, 3]

    @pytest.mark.parametrize("few", ["a", "b"], ids=["which has its model", "which has not"])
    def test_what_has_just_come_is_not_left_to_a_worker_with_few_jobs_of_many_pictures(
        self, jobs, roll, few
    ):
        full, free = "inference-0@here", "inference-1@here"
        roll.beat(full)
        roll.beat(free)
        submit(jobs, queue_class=few, cost=8)
        claim(jobs, owner=full, held=[few])
        for _ in range(2):
            submit(jobs, queue_class="b")
        claim(jobs, owner=free, held=["b"])
        came = submit(jobs, queue_class="a")

        assert [one.job_id for one in claim(jobs, owner=free, held=["b"])] == [came]

    def test_shares_are_even_in_pictures(self, jobs, roll):
        roll.beat("inference-0@here")
        roll.beat("inference-1@here")
        submit(jobs, cost=4)
        for _ in range(4):
            submit(jobs)

        shares = [len(claim(jobs, owner=f"inference-{number}@here")) for number in (0, 1)]

        assert shares == [1, 4]

    def test_a_long_queue_is_shared_out_by_its_first_jobs(self, jobs, roll, monkeypatch):
        monkeypatch.setattr("core.leasing.PATIENCE_MS", 60_000)  # longer than submitting takes
        roll.beat("inference-0@here")
        roll.beat("inference-1@here")
        for _ in range(110):
            submit(jobs, cost=4)

        assert len(claim(jobs, owner="inference-0@here", slots=440)) == 55

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
        assert len(jobs.leasing.claim("erasure", "t", slots=1, lease_s=30, idle=True)) == 1


class TestRoomForAJobThatHasNone:
    """Workers draw; a job comes that has no place beside what they hold."""

    @pytest.fixture
    def workers(self, jobs, roll, monkeypatch) -> list[str]:
        """Four that draw, of which each holds one job more than the one before."""
        monkeypatch.setattr("core.leasing.PATIENCE_MS", 0)
        names = [f"inference-{number}@here" for number in range(4)]
        for held, name in enumerate(names, start=1):
            roll.beat(name)
            for _ in range(held):
                submit(jobs)
            assert len(busy(jobs, name, slots=held)) == held
        return names

    @pytest.mark.parametrize("why", ["strict", "tried before", "of eight pictures"])
    def test_the_worker_that_holds_least_waits_for_it_and_the_others_go_on(
        self, jobs, workers, why
    ):
        large = submit(jobs, alone=why == "strict", cost=8 if why == "of eight pictures" else 1)
        if why == "tried before":
            claim(jobs, owner="inference-9@gone")
            jobs.leasing.take_back("inference-9@gone")
        others = [submit(jobs) for _ in range(40)]

        claimed = [job_ids(busy(jobs, name, slots=7)) for name in reversed(workers)]

        assert claimed == [others[:7], others[7:14], others[14:21], []]
        assert job_ids(claim(jobs, owner=workers[0], slots=1)) == [large]

    def test_of_workers_that_hold_as_much_one_waits(self, jobs, workers):
        for held, name in enumerate(reversed(workers)):
            for _ in range(held):
                submit(jobs)
            busy(jobs, name, slots=held)
        submit(jobs, alone=True)
        for _ in range(40):
            submit(jobs)

        assert sorted(len(busy(jobs, name, slots=3)) for name in workers) == [0, 3, 3, 3]

    def test_the_next_one_is_for_the_worker_that_holds_next_to_least(self, jobs, workers):
        for _ in range(2):
            submit(jobs, alone=True)
        for _ in range(40):
            submit(jobs)

        assert [len(busy(jobs, name, slots=7)) for name in workers] == [0, 0, 7, 7]

    def test_what_is_passed_over_hides_no_other_model(self, jobs, workers):
        submit(jobs, alone=True, queue_class="a")
        other = submit(jobs, queue_class="b")

        assert busy(jobs, workers[0], slots=7) == []
        assert job_ids(busy(jobs, workers[1], slots=7)) == [other]
        assert busy(jobs, workers[1], slots=7) == [], "and stays where it is"
        assert jobs.counts.queued("generation") == 1

    @pytest.mark.parametrize("hindrance", ["sleeps", "is gone", "has no such model yet"])
    def test_nobody_counts_on_a_worker_that_could_not_take_it(
        self, jobs, roll, settings, workers, hindrance
    ):
        least, next_to_least, third, _ = workers
        if hindrance == "sleeps":
            jobs.leasing.take_back(least)
            jobs.leasing.succeed(only(claim(jobs, owner="inference-9@gone")), {})
        if hindrance == "is gone":
            with connect(settings.redis_url) as client:
                client.zrem("workers", least)
        submit(jobs, alone=True)
        if hindrance == "has no such model yet":
            assert busy(jobs, least, slots=1, without=["emoji"]) == []
        for _ in range(20):
            submit(jobs)

        assert busy(jobs, next_to_least, slots=7) == []
        assert len(busy(jobs, third, slots=7)) == 7

    @pytest.mark.parametrize("seed", range(2))
    def test_no_job_waits_for_ever(self, jobs, roll, monkeypatch, seed):
        """There are always small ones that three workers could draw besides what they hold."""
        monkeypatch.setattr("core.leasing.PATIENCE_MS", 0)
        chance = random.Random(seed)
        costs: dict[str, int] = {}
        came: dict[str, int] = {}
        begun: dict[str, int] = {}
        drawn: dict[str, dict[Lease, int]] = {f"inference-{one}@here": {} for one in range(3)}
        for name in drawn:
            roll.beat(name)
        for turn in range(150):
            small = sum(cost == 1 for one, cost in costs.items() if one not in begun)
            large = chance.choice([[], [], [], [], [], [], [], [(8, False)], [(1, True)]])
            for cost, alone in [*large, *[(1, False)] * (12 - small)]:
                model, tenant = chance.choice("ab"), chance.choice("xyz")
                new = submit(jobs, queue_class=model, tenant=tenant, cost=cost, alone=alone)
                costs[new], came[new] = cost, turn
            for name in chance.sample([*drawn], len(drawn)):
                for lease in [one for one, ends in drawn[name].items() if ends <= turn]:
                    jobs.leasing.succeed(lease, {})
                    del drawn[name][lease]
                free = 8 - sum(costs[lease.job_id] for lease in drawn[name])
                if free > 0 and not any(lease.alone for lease in drawn[name]):
                    for lease in claim(
                        *(jobs,),
                        owner=name,
                        slots=free,
                        held=chance.sample("ab", 2),
                        without=chance.choice(["", "", "a"]),
                        idle=not drawn[name],
                    ):
                        begun[lease.job_id] = turn
                        drawn[name][lease] = turn + chance.randint(1, 6)

        assert max(begun.get(one, 150) - turn for one, turn in came.items()) < 35


def busy(jobs: JobStore, owner: str, *, slots: int, **options) -> list[Lease]:
    """What a worker that draws claims besides."""
    return claim(jobs, owner=owner, slots=slots, **({"idle": False} | options))


def job_ids(leases: list[Lease]) -> list[str]:
    return [lease.job_id for lease in leases]


class TestLeases:
    def test_a_lapsed_lease_goes_back_to_the_queue(self, jobs):
        job_id = submit(jobs)
        claim(jobs, lease_s=0.01)
        time.sleep(0.05)

        assert jobs.leasing.reap() == 1
        again = only(claim(jobs))
        assert again.job_id == job_id
        assert again.attempt == 2

    def test_a_beaten_lease_does_not_lapse(self, jobs):
        submit(jobs)
        lease = only(claim(jobs, lease_s=0.05))
        jobs.leasing.beat([(lease.job_id, lease.token)], lease_s=30)
        time.sleep(0.1)

        assert jobs.leasing.reap() == 0

    def test_an_outage_of_the_store_uses_up_no_attempt(self, jobs, settings):
        """Nobody could beat while it was frozen, or gone."""
        submit(jobs)
        lease = only(claim(jobs, lease_s=1.0))
        with connect(settings.redis_url) as client:
            client.set("reaped_at", int(time.time() * 1000) - 5000)
        time.sleep(1.1)

        assert jobs.leasing.reap() == 0
        assert jobs.leasing.succeed(lease, {})

    def test_after_an_outage_leases_lapse_as_ever(self, jobs, settings):
        submit(jobs)
        claim(jobs, lease_s=0.2)
        with connect(settings.redis_url) as client:
            client.set("reaped_at", int(time.time() * 1000) - 3100)
        assert jobs.leasing.reap() == 0
        with connect(settings.redis_url) as client:
            ((_, lapses_ms),) = client.zrange("leases", 0, -1, withscores=True)
            assert lapses_ms < (time.time() + 3.5) * 1000
            client.zadd("leases", {client.zrange("leases", 0, 0)[0]: 1})

        assert jobs.leasing.reap() == 1

    def test_a_clock_that_was_set_back_keeps_no_lease_of_the_dead(self, jobs, settings):
        dead, lives = submit(jobs), submit(jobs)
        hour_ms = 3600 * 1000
        with connect(settings.redis_url) as client:
            claim(jobs, slots=1, owner="w0", lease_s=0.5)
            client.zincrby("leases", hour_ms, dead)
            client.incrby("reaped_at", hour_ms)
            claim(jobs, slots=1, owner="w1")  # a beat after the clock was set says the same
        assert jobs.leasing.reap() == 0
        time.sleep(0.6)

        assert jobs.leasing.reap() == 1
        assert jobs.get(dead).state is JobState.QUEUED
        assert jobs.get(lives).state is JobState.RUNNING

    def test_a_long_idle_time_is_no_outage(self, jobs, settings):
        with connect(settings.redis_url) as client:
            client.set("reaped_at", int(time.time() * 1000) - 60_000)
        submit(jobs)
        claim(jobs, lease_s=0.05)
        time.sleep(0.1)

        assert jobs.leasing.reap() == 1

    def test_a_worker_without_its_lease_changes_nothing(self, jobs):
        submit(jobs)
        old = only(claim(jobs, lease_s=0.01))
        time.sleep(0.05)
        jobs.leasing.reap()
        new = only(claim(jobs, owner="other"))

        assert jobs.leasing.beat([(old.job_id, old.token)], lease_s=30) == {old.job_id: "lost"}
        assert not jobs.leasing.report(old, Progress(stage="denoising", done=1, total=2))
        assert not jobs.leasing.succeed(old, {"from": "old"})
        assert not jobs.leasing.fail(old, "old")
        assert not jobs.leasing.hand_back(old, "old")
        assert jobs.leasing.succeed(new, {"from": "new"})
        assert jobs.get(new.job_id).result == {"from": "new"}

    def test_a_commit_whose_reply_was_lost_may_be_repeated(self, jobs):
        submit(jobs)
        lease = only(claim(jobs))

        assert jobs.leasing.succeed(lease, {"n": 1})
        assert jobs.leasing.succeed(lease, {"n": 1})

    def test_a_restarted_worker_takes_back_what_it_held(self, jobs):
        submit(jobs)
        claim(jobs, owner="w0")
        submit(jobs)
        claim(jobs, owner="w1")

        assert jobs.leasing.take_back("w0") == 1
        assert len(claim(jobs)) == 1

    def test_a_poison_job_gives_up_with_a_reason(self, jobs):
        job_id = submit(jobs)
        for _ in range(5):
            claim(jobs, owner="w0")
            jobs.leasing.take_back("w0")

        job = jobs.get(job_id)
        assert job.state is JobState.FAILED
        assert "gave up after 5 attempts" in job.reason
        assert claim(jobs) == []

    def test_a_job_that_took_a_worker_down_runs_alone(self, jobs):
        submit(jobs)
        claim(jobs, owner="w0")
        jobs.leasing.take_back("w0")
        submit(jobs)

        assert only(claim(jobs)).alone

    def test_handing_back_counts_no_attempt(self, jobs):
        job_id = submit(jobs)
        jobs.leasing.hand_back(only(claim(jobs)), "shutting down")

        assert jobs.get(job_id).attempt == 0
        assert only(claim(jobs)).attempt == 1

    def test_outages_of_the_broker_count_no_attempts_until_the_job_may_be_their_cause(self, jobs):
        job_id = submit(jobs)
        attempts = []
        while leases := claim(jobs):
            (lease,) = leases
            jobs.leasing.give_back([(job_id, lease.token)], "the broker was away", outage=True)
            attempts.append(lease.attempt)

        assert attempts == [1, 1, 1, 1, 1, 1, 2, 3, 4, 5]
        assert jobs.get(job_id).state is JobState.FAILED
        assert "gave up after 5 attempts" in jobs.get(job_id).reason

    def test_a_claim_whose_reply_is_lost_leaves_no_job_with_a_worker_that_does_not_know(
        self, broker, jobs, settings, monkeypatch
    ):
        """A frozen broker carries out what it was sent once it goes on; nobody reads the reply."""
        monkeypatch.setattr("core.redis_connection.SILENCE_S", 0.5)
        worker = JobStore(connect(settings.redis_url, retry_s=0), terms(settings))
        ids = {submit(jobs) for _ in range(2)}
        claim(worker, owner="other")  # it knows the script
        other = submit(jobs)
        kept = claim(worker, owner="w", slots=1)
        lost = {submit(jobs) for _ in range(2)}
        with broker.frozen(), pytest.raises(StoreUnavailable):
            claim(worker, owner="w", known=kept)
        deadline = time.monotonic() + 5
        while jobs.counts.queued("generation"):
            assert time.monotonic() < deadline
        assert {lease.job_id for lease in kept} == {other}

        again = claim(worker, owner="w", known=kept)

        assert {lease.job_id for lease in again} == lost
        assert {lease.attempt for lease in again} == {1}
        assert jobs.leasing.succeed(kept[0], {"n": 1}), "what it knows it keeps"
        assert {jobs.get(job_id).state for job_id in ids} == {JobState.RUNNING}, "so do others"
        why = [fields.get("why") for _, fields in jobs.news.events(lost.pop())]
        assert "the broker was away when it was given to a worker" in why

    def test_an_outage_gives_back_nothing_that_is_another_workers_by_now(self, jobs):
        submit(jobs)
        old = only(claim(jobs, owner="w0"))
        jobs.leasing.take_back("w0")
        new = only(claim(jobs, owner="w1"))

        assert jobs.leasing.give_back([(old.job_id, old.token)], "away", outage=True) == 0
        assert jobs.leasing.succeed(new, {"n": 1})

    def test_trying_again_counts_one(self, jobs):
        submit(jobs)
        jobs.leasing.try_again(only(claim(jobs)), "out of memory")

        assert only(claim(jobs)).attempt == 2
