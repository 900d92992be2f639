"""What is told of a drawing while it lasts."""

import base64
import io
import json

import pytest
from PIL import Image

from core.jobs import JobState
from core.policies import Policy, PolicyStore


@pytest.fixture
def seen(jobs, heartbeat):
    """What a client sees of a job's previews while it is drawn, step by step."""

    def watch(job_id: str) -> list:
        looks = []
        heartbeat.on_step = lambda _: looks.append(jobs.news.previews(job_id))
        return looks

    return watch


def reports(jobs, job_id: str) -> list[dict]:
    told = (fields.get("progress") for _, fields in jobs.news.events(job_id))
    return [json.loads(one) for one in told if one]


def test_each_picture_is_shown_as_often_as_was_asked_for(jobs, submit, make_batcher, seen):
    job_id = submit(n=2, num_inference_steps=8, previews=3)
    looks = seen(job_id)
    make_batcher().drain()

    shown = {preview.step: look for look in looks for preview in look}
    assert list(shown) == [2, 4, 6]
    assert all([preview.index for preview in look] == [0, 1] for look in shown.values())
    first = Image.open(io.BytesIO(base64.b64decode(shown[2][0].jpeg)))
    assert (first.format, first.size) == ("JPEG", (64, 64))
    assert [one["previewed"] for one in reports(jobs, job_id) if one["previewed"]] == [2, 4, 6]
    assert all((one["done"], one["total"]) <= (8, 8) for one in reports(jobs, job_id))


def test_more_previews_than_steps_are_one_a_step(jobs, submit, make_batcher, seen):
    job_id = submit(num_inference_steps=3, previews=10)
    looks = seen(job_id)
    make_batcher().drain()

    assert {preview.step for look in looks for preview in look} == {1, 2}


def test_who_does_not_ask_is_shown_nothing_and_nothing_is_kept_afterwards(
    jobs, submit, make_batcher, seen
):
    silent, shown = submit(), submit(previews=3)
    looks = seen(silent)
    make_batcher().drain()

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
    jobs, submit, make_batcher, redis_client, seen, write
):
    write(redis_client)
    job_id = submit(previews=3)
    looks = seen(job_id)
    make_batcher().drain()

    assert len(looks) == 4
    assert not any(looks)
    assert not any(one["previewed"] for one in reports(jobs, job_id))
