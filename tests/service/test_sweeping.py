import os
import shutil
import threading
import time

import pytest

from core.leavings import LEAVINGS, Leavings
from core.queue import ENOUGH, Wakes, celery_app
from core.specs import GenerationSpec
from core.sweeper import Sweeper
from service.tidying import Tidying
from tests.service.scenery import APPLE, WEAPONS, eventually


@pytest.fixture
def wakes(redis_url):
    return Wakes(celery_app(redis_url))


class TestWakes:
    def test_every_accepted_job_is_followed_by_a_wake(self, client, wakes):
        assert not wakes.waiting("generation")
        client.post("/v1/generations", json=APPLE)
        client.post("/v1/erasures", json=WEAPONS)

        assert wakes.waiting("generation")
        assert wakes.waiting("erasure")

    def test_a_lost_wake_is_sent_again(self, client, parts, wakes, generation):
        parts.client.delete("generation")  # as a worker does that dies with it in its hands
        assert not wakes.waiting("generation")

        assert eventually(lambda: wakes.waiting("generation"))

    def test_no_wake_is_sent_for_nothing(self, client, parts, wakes):
        parts.sweeper.sweep()

        assert not wakes.waiting("generation")

    def test_a_wake_that_waits_is_enough(self, client, parts, generation):
        for _ in range(3):
            parts.sweeper.sweep()

        assert parts.client.llen("generation") == 1

    def test_wakes_do_not_pile_up_while_no_worker_takes_any(self, wakes, redis_url):
        """A busy worker takes none; each of 1000 jobs was another, kept for ever."""
        assert all(wakes.send("generation") for _ in range(1000))

        assert wakes.waiting("generation") == ENOUGH

    def test_a_wake_follows_a_job_as_soon_as_one_was_taken(self, wakes, parts):
        for _ in range(2 * ENOUGH):
            wakes.send("generation")
        parts.client.rpop("generation", 2)
        wakes.send("generation")

        assert wakes.waiting("generation") == ENOUGH - 1

    def test_a_broker_that_is_away_takes_none_and_gets_some_again_when_it_is_back(
        self, broker, wakes
    ):
        assert wakes.send("generation")
        broker.kill()
        assert not wakes.send("generation")
        broker.start()

        assert wakes.send("generation")
        assert wakes.waiting("generation") == 2


class TestLeases:
    def test_a_job_whose_worker_stopped_beating_waits_again(self, client, parts, generation):
        parts.jobs.leasing.claim(
            "generation", "inference-0@gone", slots=1, lease_s=0.01, idle=True
        )

        url = f"/v1/generations/{generation['id']}"

        assert eventually(lambda: client.get(url).json()["state"] == "queued")
        assert client.get(url).json()["attempt"] == 1


class TestLife:
    def test_it_outlives_an_outage(self, broker, jobs, wakes, client, generation):
        sweeper = Sweeper(jobs, wakes, ["generation"], period_s=0.05)
        sweeper.start()
        broker.kill()
        time.sleep(2.0)  # longer than a client tries again before it gives up
        broker.start()
        eventually(lambda: client.get("/v1/generations").status_code == 200)
        jobs._redis.delete("generation")

        assert eventually(lambda: wakes.waiting("generation"))
        sweeper.stop()
        assert not any(thread.is_alive() for thread in sweeper._threads)

    def test_it_tidies_at_its_own_slow_pace(self, jobs, wakes):
        calls = []
        sweeper = Sweeper(
            *(jobs, wakes, []), period_s=0.05, tidy=lambda: calls.append(1), tidy_every_s=3600
        )
        sweeper.start()

        assert eventually(lambda: calls)
        time.sleep(0.3)
        sweeper.stop()
        assert calls == [1]

    def test_tidying_that_takes_long_holds_up_no_sweep(self, jobs, wakes):
        begun, listed = threading.Event(), threading.Event()

        def list_a_large_bucket() -> None:
            begun.set()
            listed.wait(30)

        sweeper = Sweeper(jobs, wakes, ["generation"], period_s=0.05, tidy=list_a_large_bucket)
        sweeper.start()
        assert begun.wait(5)
        jobs.submit("0" * 32, GenerationSpec.model_validate(APPLE), queue_class="emoji")

        assert eventually(lambda: wakes.waiting("generation"))
        listed.set()
        sweeper.stop()


class TestTidying:
    @pytest.fixture
    def drawn(self, worker, generation, settings):
        worker.draw()
        folder = settings.images_dir / "generations" / generation["id"]
        long_ago = time.time() - 1000
        os.utime(folder, (long_ago, long_ago))
        return folder

    def test_pictures_go_when_their_job_has_expired(self, parts, drawn):
        parts.client.delete(f"job:{drawn.name}")

        Tidying(parts.jobs, parts.storage, Leavings(), keep_s=900)()

        assert not drawn.exists()

    def test_lists_forget_jobs_that_have_expired_also_of_who_submits_no_more(
        self, parts, client, monkeypatch
    ):
        monkeypatch.setattr("core.job_lists.OLDEST", 2)
        ids = [client.post("/v1/generations", json=APPLE).json()["id"] for _ in range(5)]
        for job_id in ids[:-1]:
            parts.client.delete(f"job:{job_id}")
        lists = "jobs:generation", "jobs:generation:local"
        assert {parts.client.zcard(name) for name in lists} == {5}

        Tidying(parts.jobs, parts.storage, Leavings(), keep_s=900)()

        assert [parts.client.zrange(name, 0, -1) for name in lists] == [ids[-1:]] * 2

    def test_pictures_stay_as_long_as_their_job_can_be_read(self, parts, drawn):
        Tidying(parts.jobs, parts.storage, Leavings(), keep_s=900)()

        assert len(list(drawn.iterdir())) == 1

    def test_pictures_of_a_job_of_a_newer_version_stay_and_keep_no_others(self, parts, drawn):
        newer = drawn.parent / ("0" * 32)
        shutil.copytree(drawn, newer)
        os.utime(newer, (drawn.stat().st_mtime,) * 2)
        parts.client.hset(f"job:{newer.name}", "spec", '{"kind": "from tomorrow"}')
        parts.client.delete(f"job:{drawn.name}")

        Tidying(parts.jobs, parts.storage, Leavings(), keep_s=900)()

        assert newer.exists()
        assert not drawn.exists()

    def test_pictures_just_drawn_stay(self, parts, drawn):
        parts.client.delete(f"job:{drawn.name}")

        Tidying(parts.jobs, parts.storage, Leavings(), keep_s=1100)()

        assert drawn.exists()

    def test_what_is_no_job_is_let_alone(self, parts, drawn):
        other = drawn.parent / "Somebody's folder"
        drawn.rename(other)

        Tidying(parts.jobs, parts.storage, Leavings(), keep_s=900)()

        assert other.exists()

    def test_half_a_model_that_a_crash_left_goes_when_the_service_starts(
        self, serve, settings, monkeypatch
    ):
        left = [
            settings.models_dir / ".incoming" / "fetch-emoji.0123456789abcdef",
            settings.making_dir / "import-emoji.0123456789abcdef",
        ]
        for folder in left:
            folder.mkdir(parents=True)
        for pattern in LEAVINGS:
            monkeypatch.setitem(LEAVINGS, pattern, 0.0)
        serve()

        assert eventually(lambda: not any(folder.exists() for folder in left))
