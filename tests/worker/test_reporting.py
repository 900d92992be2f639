"""What is told of a drawing while it lasts."""

import base64
import io
import json
import threading

import pytest
from PIL import Image

from core.jobs import JobState
from core.policies import Policy, PolicyStore


@pytest.fixture
def draw(jobs, heartbeat, make_batcher):
    """Draws all that waits; returns what a client sees of a job's previews before each step."""

    def watch(job_id: str) -> list:
        batcher, looks = make_batcher(), []

        def look(_) -> None:
            batcher._reports.arrived()
            looks.append(jobs.news.previews(job_id))

        heartbeat.on_step = look
        batcher.drain()
        return looks

    return watch


def reports(jobs, job_id: str) -> list[dict]:
    told = (fields.get("progress") for _, fields in jobs.news.events(job_id))
    return [json.loads(one) for one in told if one]


def test_each_picture_is_shown_as_often_as_was_asked_for(jobs, submit, draw):
    job_id = submit(n=2, num_inference_steps=8, previews=3)
    looks = draw(job_id)

    shown = {preview.step: look for look in looks for preview in look}
    assert list(shown) == [2, 4, 6]
    assert all([preview.index for preview in look] == [0, 1] for look in shown.values())
    first = Image.open(io.BytesIO(base64.b64decode(shown[2][0].jpeg)))
    assert (first.format, first.size) == ("JPEG", (64, 64))
    assert [one["previewed"] for one in reports(jobs, job_id) if one["previewed"]] == [2, 4, 6]
    assert all((one["done"], one["total"]) <= (8, 8) for one in reports(jobs, job_id))


def test_more_previews_than_steps_are_one_a_step(jobs, submit, draw):
    job_id = submit(num_inference_steps=3, previews=10)
    looks = draw(job_id)

    assert {preview.step for look in looks for preview in look} == {1, 2}


def test_who_does_not_ask_is_shown_nothing_and_nothing_is_kept_afterwards(jobs, submit, draw):
    silent, shown = submit(), submit(previews=3)
    looks = draw(silent)

    assert not any(looks)
    assert jobs.get(shown).state is JobState.SUCCEEDED
    assert jobs.news.previews(shown) == []


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(
            lambda client: PolicyStore(client).put(
                "local",
                Policy.model_validate(
                    {"detectors": [{"detector": "plugin:pears", "thresholds": {"pear": 0.5}}]}
                ),
            ),
            id="judged",
        ),
        pytest.param(
            lambda client: client.hset("policies", "local", '{"of_tomorrow": 1}'), id="unreadable"
        ),
    ],
)
def test_what_a_policy_would_have_judged_is_not_shown_before(
    jobs, submit, redis_client, draw, write
):
    write(redis_client)
    job_id = submit(previews=3)
    looks = draw(job_id)

    assert len(looks) == 4
    assert not any(looks)
    assert not any(one["previewed"] for one in reports(jobs, job_id))


def test_who_is_followed_is_told_of_at_every_step_and_nobody_else(
    jobs, submit, make_batcher, heartbeat
):
    followed, other = (submit(num_inference_steps=8) for _ in range(2))
    jobs.news.follow(followed)
    batcher = make_batcher()
    heartbeat.on_step = lambda _: batcher._reports.arrived()
    batcher.drain()

    assert [one["done"] for one in reports(jobs, followed)] == [*range(1, 9)]
    assert [one["done"] for one in reports(jobs, other)][:1] == [1]
    assert len(reports(jobs, other)) < 8


def test_no_step_waits_for_what_is_told(jobs, submit, make_batcher, heartbeat, monkeypatch):
    """What comes while a message is on its way goes with the next, pictures and all."""
    job_id = submit(num_inference_steps=8, previews=1)
    report_all, gate = jobs.leasing.report_all, threading.Event()

    def slow(told):
        assert gate.wait(10)
        return report_all(told)

    monkeypatch.setattr(jobs.leasing, "report_all", slow)
    batcher = make_batcher()

    def open_late(steps: int) -> None:
        if steps == 6:
            gate.set()
            batcher._reports.arrived()

    heartbeat.on_step = open_late
    batcher.drain()
    wait_for = batcher._reports._thread.submit(lambda: None)
    wait_for.result()

    told = reports(jobs, job_id)
    assert told[0]["done"] == 1
    assert (told[1]["done"], told[1]["previewed"]) == (6, 4)
