"""Requests that are answered with the picture, and what they are answered when there is none."""

import asyncio
import contextlib
import json
import threading

import pytest

from core.errors import AppError
from core.findings import Finding
from core.jobs import GenerationResult, ImageRecord, JobState
from core.manifests import Drawing
from service.openai import streaming
from service.sizing import fitted

OPENAI = "/v1/images/generations"
APPLE = {"prompt": "a red apple"}
FINDING = Finding(
    stage="picture", detector="classifier", category="weapon", score=0.9, threshold=0.5, policy="p"
)
ADDRESSES = [
    pytest.param(OPENAI, APPLE, id="openai"),
    pytest.param("/sdapi/v1/txt2img", APPLE, id="a1111"),
    pytest.param("/hf/models/safe", {"inputs": "a red apple"}, id="huggingface"),
]


@pytest.fixture
def withholding(worker):
    """A worker whose pictures, but the first `seen`, are withheld."""

    def start(*, seen: int) -> None:
        def work() -> None:
            while not (
                leases := worker.jobs.leasing.claim(
                    "generation", "w", slots=8, lease_s=60, idle=True
                )
            ):
                pass
            (lease,) = leases
            records = []
            for index in range(lease.spec.n):
                key = f"generations/{lease.job_id}/{index}.png"
                if index < seen:
                    worker._parts.storage.put(key, b"a picture")
                    records.append(ImageRecord(key=key, seed=index))
                else:
                    records.append(
                        ImageRecord(seed=index, finish_reason="content_filtered", finding=FINDING)
                    )
            result = GenerationResult(model="safe", images=tuple(records))
            worker.jobs.leasing.succeed(lease, result.model_dump(mode="json"))

        threading.Thread(target=work, daemon=True).start()

    return start


@pytest.mark.parametrize(("address", "body"), ADDRESSES)
def test_what_takes_too_long_is_handed_over(serve, address, body):
    client = serve(longest_sitting_s=0.1)

    response = client.post(address, json=body)

    assert response.status_code == 504
    job = client.get(response.headers["Location"]).json()
    assert job["state"] == "queued"


@pytest.mark.parametrize(("address", "body"), ADDRESSES)
def test_a_deadline_goes_with_the_job(serve, address, body):
    client = serve(longest_sitting_s=0.1)
    given = {"deadline_s": 600.0}
    given = {"parameters": given} if address.startswith("/hf") else given

    response = client.post(address, json=body | given)

    job = client.get(response.headers["Location"]).json()
    assert job["deadline"] == pytest.approx(job["created_at"] + 600, abs=1)
    nonsense = json.loads(json.dumps(body | given).replace("600.0", "-1"))
    assert client.post(address, json=nonsense).status_code in {400, 422}


@pytest.mark.parametrize(
    ("address", "body"),
    [*ADDRESSES, pytest.param(OPENAI, APPLE | {"stream": True}, id="openai, streamed")],
)
def test_a_client_that_leaves_takes_its_job_along(client, address, body):
    """Its slot is free for others then."""
    jobs = client.app.state.parts.jobs
    data = json.dumps(body).encode()
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": address,
        "raw_path": address.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [
            *client.headers.raw,
            (b"host", b"localhost"),
            (b"content-type", b"application/json"),
        ],
        "client": ("127.0.0.1", 50000),
        "server": ("testserver", 80),
        "state": {},
    }
    told = [{"type": "http.request", "body": data, "more_body": False}]

    async def receive():
        if told:
            return told.pop()
        while not jobs.counts.queued("generation"):  # noqa: ASYNC110  (it is in Redis)
            await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}

    async def send(_):
        pass

    async def ask():
        await asyncio.wait_for(client.app(scope, receive, send), 20)

    with contextlib.suppress(AppError):
        client.portal.call(ask)

    (job,) = jobs.lists.latest("generation", limit=5, tenant="local")
    assert job.state is JobState.CANCELLED


def test_a_client_that_leaves_a_stream_holds_up_no_other_request(client, generation, monkeypatch):
    """A broker that hangs would, for seconds, were it asked from the event loop."""
    parts = client.app.state.parts
    asked_from = []
    monkeypatch.setattr(streaming, "abandon", lambda *_: asked_from.append(threading.get_ident()))

    async def leave() -> int:
        events = streaming.stream(parts, parts.jobs.get(generation["id"]), kept=False)
        await anext(events)
        await events.aclose()
        return threading.get_ident()

    event_loop = client.portal.call(leave)
    assert len(asked_from) == 1
    assert asked_from != [event_loop]


@pytest.mark.parametrize(("address", "body"), ADDRESSES)
def test_a_withheld_picture_is_an_error_with_its_finding(client, withholding, address, body):
    withholding(seen=0)

    response = client.post(address, json=body)

    assert response.status_code == (400 if address == OPENAI else 422)
    assert response.json()["finding"]["category"] == "weapon"
    if address == OPENAI:
        assert response.json()["error"]["code"] == "moderation_blocked"
        assert response.headers["x-should-retry"] == "false"


def test_pictures_that_may_be_seen_are_shown_beside_one_that_may_not(client, withholding):
    withholding(seen=1)

    data = client.post(OPENAI, json=APPLE | {"n": 2}).json()["data"]

    assert [image["finish_reason"] for image in data] == ["stop", "content_filtered"]
    assert data[1]["b64_json"] is None
    assert data[1]["url"] is None


def test_a_stream_tells_of_a_withheld_picture(client, withholding):
    withholding(seen=0)

    text = client.post(OPENAI, json=APPLE | {"stream": True}).text

    assert "event: error" in text
    assert '"code": "moderation_blocked"' in text


@pytest.mark.parametrize(("address", "body"), ADDRESSES)
@pytest.mark.parametrize(
    ("raw", "status"),
    [
        pytest.param(b"[" * 100_000, 400, id="nested"),
        pytest.param(b'{"prompt": "' + b"x" * 1_000_000 + b'"}', 413, id="a megabyte"),
        pytest.param(b'{"prompt": "\\ud800", "inputs": "\\ud800"}', 422, id="a lone surrogate"),
        pytest.param(b'{"prompt": "\\u0000", "inputs": "\\u0000"}', 422, id="NUL"),
        pytest.param(b"\xff", 400, id="no UTF-8"),
    ],
)
def test_bad_bodies_are_refused(client, queue, address, body, raw, status):
    response = client.post(address, content=raw, headers={"Content-Type": "application/json"})

    assert response.status_code == (400 if (address, status) == (OPENAI, 422) else status)
    assert queue.counts.queued("generation") == 0


@pytest.mark.parametrize(("address", "body"), ADDRESSES)
def test_unknown_fields_are_ignored_where_clients_send_them(serve, address, body):
    client = serve(longest_sitting_s=0.1)

    assert client.post(address, json=body | {"enable_hr": False}).status_code == 504


@pytest.mark.parametrize(
    ("sent", "drawn"),
    [
        pytest.param((1024, 1024), (64, 64), id="customary"),
        pytest.param((1792, 1024), (64, 32), id="wide"),
        pytest.param((128, 64), (128, 64), id="drawable"),
        pytest.param((100, 100), (100, 100), id="chosen"),
    ],
)
def test_only_customary_sizes_are_made_to_fit(sent, drawn):
    assert fitted(*sent, Drawing(native_px=64, multiple_px=16, max_px=128)) == drawn


def test_a_tenant_opens_only_so_many_streams(serve, withholding):
    client = serve(max_streams_per_tenant=1)
    streamed = APPLE | {"stream": True}
    with client.app.state.parts.streams.one_more("local"):
        refused = client.post(OPENAI, json=streamed)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "too_many_streams"
        assert client.app.state.parts.jobs.counts.queued("generation") == 0

    for _ in range(2):  # each gives its place back
        withholding(seen=1)
        assert "image_generation.completed" in client.post(OPENAI, json=streamed).text
