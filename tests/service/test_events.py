"""What clients see of a job while it goes on, whenever and wherever they connect."""

import json
import threading
import time
from contextlib import contextmanager
from typing import NamedTuple

import httpx
import pytest
from starlette.testclient import TestClient

from core.errors import TooManyStreams
from core.job_store import JobStore
from core.progress import Preview, Progress
from core.redis_connection import connect
from core.terms import terms
from service.streams import OpenStreams
from tests.service.scenery import APPLE, WEAPONS, Worker, eventually

URL = "/v1/generations"
PROGRESS = [Progress(stage="denoising", done=step, total=5) for step in range(1, 6)]


class Event(NamedTuple):
    id: str | None
    name: str
    data: dict


def parsed(lines):
    """Events as they come; comments are left out."""
    fields = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if line == "" and fields:
            yield Event(fields.get("id"), fields["event"], json.loads(fields["data"]))
            fields = {}
        elif name:
            fields[name] = value


def read(client: TestClient, path: str, after: str = "") -> list[Event]:
    """The whole stream of a job that has ended."""
    response = client.get(f"{path}/events", headers={"Last-Event-ID": after} if after else {})
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"].startswith("text/event-stream")
    return list(parsed(response.text.split("\n")))


def history(events: list[Event]) -> list[Event]:
    """Without what is said to one listener only."""
    return [event for event in events if event.id]


@pytest.fixture
def drawn(worker: Worker, generation) -> str:
    """The path of a generation that was drawn, with every kind of event in its history."""
    first = worker.claim()
    worker.jobs.leasing.report(first, PROGRESS[0])
    worker.jobs.leasing.try_again(first, "out of memory")
    second = worker.claim()
    for progress in PROGRESS:
        worker.jobs.leasing.report(second, progress)
    worker.jobs.leasing.succeed(second, {"model": "safe", "images": []})
    return f"{URL}/{generation['id']}"


class TestHistory:
    def test_everything_is_told_in_order_and_ends_with_the_job_itself(self, client, drawn):
        events = read(client, drawn)

        told = [(event.name, event.data.get("state"), event.data.get("done")) for event in events]
        assert told == [
            ("state", "queued", None),
            ("state", "running", None),
            ("progress", None, 1),
            ("state", "queued", None),
            ("state", "running", None),
            *(("progress", None, step) for step in range(1, 6)),
            ("done", "succeeded", None),
        ]
        assert events[3].data["why"] == "out of memory"
        assert events[4].data["attempt"] == 2
        assert events[-1].data == client.get(drawn).json()

    def test_whoever_comes_back_after_any_event_gets_all_the_others(self, client, drawn):
        whole = read(client, drawn)

        for count in range(1, len(whole)):
            rest = read(client, drawn, after=whole[count - 1].id)
            assert whole[:count] + rest == whole

    def test_nothing_is_left_after_the_last_one(self, client, drawn):
        last = read(client, drawn)[-1].id

        response = client.get(f"{drawn}/events", headers={"Last-Event-ID": last})

        assert response.status_code == 204  # an EventSource connects no more

    def test_a_history_too_long_to_keep_says_that_some_is_missing(
        self, client, worker, generation
    ):
        lease = worker.claim()
        for step in range(800):
            worker.jobs.leasing.report(lease, Progress(stage="training", done=step, total=800))
        worker.jobs.leasing.succeed(lease, {"model": "safe", "images": []})

        events = read(client, f"{URL}/{generation['id']}")

        assert events[0].name == "missed"
        assert 512 <= len(events) <= 650
        assert [event.data["state"] for event in events if event.name == "state"] == [
            *("queued", "running")
        ], "who listens late is told what happened"
        assert events[3].data["done"] > 100
        assert read(client, f"{URL}/{generation['id']}", after=events[2].id)[0].name == "missed"
        recent = read(client, f"{URL}/{generation['id']}", after=events[10].id)
        assert recent == events[11:]

    def test_previews_are_told_but_are_no_part_of_the_history(self, client, worker, generation):
        lease = worker.claim()
        shown = Preview(index=0, step=2, jpeg="QQ==")
        progress = PROGRESS[1].model_copy(update={"previewed": 2})
        worker.jobs.leasing.report(lease, progress, [shown])
        ending = threading.Timer(0.5, lambda: worker.jobs.leasing.fail(lease, "no"))
        ending.start()

        events = read(client, f"{URL}/{generation['id']}")
        ending.join()

        assert [event.name for event in events] == [
            *("state", "state", "progress", "preview", "done")
        ]
        assert events[3] == Event(None, "preview", shown.model_dump())
        assert history(events) == read(client, f"{URL}/{generation['id']}")

    def test_a_failed_or_cancelled_one_is_done_too(self, client, worker):
        for end, state in [
            (lambda path: worker.jobs.leasing.fail(worker.claim(), "no"), "failed"),
            (client.delete, "cancelled"),
        ]:
            path = client.post(URL, json=APPLE).headers["Location"]
            end(path)
            assert read(client, path)[-1].data["state"] == state

    @pytest.mark.parametrize(
        ("kind", "address", "body"),
        [
            ("erasure", "/v1/erasures", WEAPONS),
            ("evaluation", "/v1/evaluations", {"model": "safe"}),
        ],
    )
    def test_long_jobs_have_events_too(self, client, worker, kind, address, body):
        if kind == "evaluation":
            pytest.importorskip("core.evaluation")
            body = body | {"prompt_files": ["i2p.csv"], "detector": {"name": "nudenet"}}
        accepted = client.post(address, json=body)
        assert accepted.status_code == 202, accepted.text
        path = accepted.headers["Location"]
        worker.jobs.leasing.report(
            lease := worker.claim(kind), Progress(stage="embedding", done=1, total=2)
        )
        worker.jobs.leasing.fail(lease, "no")

        events = read(client, path)

        assert [event.name for event in events] == ["state", "state", "progress", "done"]
        assert events[-1].data == client.get(path).json()


class TestRefusals:
    def test_another_tenants_job_has_no_events(self, client, bearer, generation):
        response = client.get(
            f"{URL}/{generation['id']}/events", headers=bearer("generate", tenant="other")
        )

        assert response.status_code == 404

    def test_an_unknown_job_has_none(self, client):
        assert client.get(f"{URL}/{'0' * 32}/events").status_code == 404

    @pytest.mark.parametrize("after", ["x", "1", "-", "99999999999999999999-0", "1-2-3"])
    def test_an_id_that_is_none_is_refused(self, client, generation, after):
        response = client.get(f"{URL}/{generation['id']}/events", headers={"Last-Event-ID": after})

        assert response.status_code == 422
        assert response.json()["errors"][0]["field"] == "Last-Event-ID"

    def test_a_tenant_opens_only_so_many(self, serve):
        client = serve(max_streams_per_tenant=1)
        path = client.post(URL, json=APPLE).headers["Location"]
        with client.app.state.parts.streams.one_more("local"):
            refused = client.get(f"{path}/events")
            assert refused.status_code == 429
            assert refused.json()["type"] == "urn:problem:too-many-streams"
            assert "Retry-After" in refused.headers
        client.delete(path)
        for _ in range(3):  # each gives its place back
            assert client.get(f"{path}/events").status_code == 200

    def test_one_of_a_key_that_is_revoked_ends(self, serve, bearer, keys, monkeypatch):
        monkeypatch.setattr("service.events.KNOWN_EVERY_S", 0.2)
        client, headers = serve(longest_stream_s=20), bearer("generate")
        path = client.post(URL, json=APPLE, headers=headers).headers["Location"]
        key_id = headers["Authorization"].split("_")[1]
        revoking = threading.Timer(1.0, lambda: keys.revoke(key_id))
        revoking.start()

        began = time.monotonic()
        told = client.get(f"{path}/events", headers=headers)
        revoking.join()

        assert told.status_code == 200
        assert 1 <= time.monotonic() - began < 15
        assert [event.name for event in parsed(told.text.split("\n"))] == ["state", "position"]
        assert client.get(f"{path}/events", headers=headers).status_code == 401

    def test_tenants_do_not_count_for_one_another(self):
        streams = OpenStreams(1)
        with streams.one_more("a"), streams.one_more("b"), pytest.raises(TooManyStreams):  # noqa: SIM117
            with streams.one_more("a"):
                pass


class TestLive:
    """Over real sockets and processes."""

    @contextmanager
    def listening(self, address, path, after):
        headers = {"Last-Event-ID": after} if after else {}
        with httpx.stream("GET", f"{address}{path}/events", headers=headers, timeout=20) as answer:
            yield parsed(answer.iter_lines())

    def test_reconnecting_at_every_event_to_changing_processes_loses_and_repeats_nothing(
        self, start, settings
    ):
        """The connection breaks after each event; every third time another process answers."""
        addresses = [start()[0] for _ in range(2)]
        path = httpx.post(f"{addresses[0]}{URL}", json=APPLE).headers["Location"]
        with connect(settings.redis_url) as client:
            jobs = JobStore(client, terms(settings))
            (lease,) = jobs.leasing.claim("generation", "w", slots=1, lease_s=60, idle=True)
            seen, after = [], ""
            steps = iter(PROGRESS)
            while not seen or seen[-1].name != "done":
                with self.listening(addresses[len(seen) // 3 % 2], path, after) as events:
                    for event in events:
                        if event.id:
                            seen.append(event)
                            after = event.id
                            break
                if len(seen) < 2:
                    continue
                if step := next(steps, None):
                    jobs.leasing.report(lease, step)
                else:
                    jobs.leasing.succeed(lease, {"model": "safe", "images": []})
        with self.listening(addresses[0], path, "") as events:
            whole = history(list(events))

        assert seen == whole
        assert len(whole) == 2 + len(PROGRESS) + 1

    def test_events_arrive_as_they_happen_and_outlive_the_process(self, start, settings):
        address, process = start()
        path = httpx.post(f"{address}{URL}", json=APPLE).headers["Location"]
        ahead = httpx.post(f"{address}{URL}", json=APPLE).headers["Location"]
        seen: list[Event] = []

        def listen(at: str, of: str) -> None:
            with self.listening(at, of, history(seen)[-1].id if seen else "") as events:
                seen.extend(events)

        with connect(settings.redis_url) as client:
            jobs = JobStore(client, terms(settings))
            first = threading.Thread(target=listen, args=(address, ahead))
            first.start()
            eventually(lambda: Event(None, "position", {"ahead": 1}) in seen)
            (lease,) = jobs.leasing.claim("generation", "w", slots=1, lease_s=60, idle=True)
            eventually(lambda: Event(None, "position", {"ahead": 0}) in seen)
            process.terminate()
            first.join(10)
            assert not first.is_alive()  # the stream ends with its process, and in good order
            jobs.leasing.succeed(lease, {"model": "safe", "images": []})
            (lease,) = jobs.leasing.claim("generation", "w", slots=1, lease_s=60, idle=True)
            second = threading.Thread(target=listen, args=(start()[0], ahead))
            second.start()
            eventually(lambda: any(event.data.get("state") == "running" for event in seen))
            assert lease.job_id in ahead
            jobs.cancel(lease.job_id)
            jobs.leasing.acknowledge_cancel(lease)
            second.join(10)

        states = [event.data["state"] for event in history(seen)]
        assert states == ["queued", "running", "cancelled"]
        assert path != ahead

    def test_a_listener_that_leaves_gives_its_place_back(self, start):
        address, _ = start(TRCE_MAX_STREAMS_PER_TENANT="1")
        path = httpx.post(f"{address}{URL}", json=APPLE).headers["Location"]
        with self.listening(address, path, "") as events:
            next(events)
            assert httpx.get(f"{address}{path}/events").status_code == 429

        def answers() -> bool:
            with httpx.stream("GET", f"{address}{path}/events") as answer:
                return answer.status_code == 200

        assert eventually(answers)
