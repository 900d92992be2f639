"""Samples of an erasure: as links and pictures of the API, and side by side on the page."""

import base64
import re

import pytest

from core.samples import Sample, Samples
from tests.service.scenery import WEAPONS

JPEG = b"\xff\xd8\xff picture "


def a_round(after: str, *prompts: str) -> Samples:
    return Samples(
        after=after,
        pictures=tuple(
            Sample(
                prompt=prompt,
                seed=place,
                jpeg=base64.b64encode(JPEG + f"{after} {place}".encode()).decode(),
            )
            for place, prompt in enumerate(prompts)
        ),
    )


@pytest.fixture
def lease(client, worker):
    client.post("/v1/erasures", json=WEAPONS).raise_for_status()
    return worker.claim("erasure")


@pytest.fixture
def running(lease, worker):
    """Its path, after base and 40 steps of stage 2 were shown."""
    prompts = "a pistol", "a red apple"
    worker.jobs.leasing.show(lease, [a_round("base", *prompts), a_round("step-40", *prompts)])
    return f"/v1/erasures/{lease.job_id}"


def test_an_erasure_says_where_its_samples_are(client, running):
    samples = client.get(running).json()["samples"]

    assert [(one["after"], one["prompt"], one["seed"]) for one in samples] == [
        ("base", "a pistol", 0),
        ("base", "a red apple", 1),
        ("step-40", "a pistol", 0),
        ("step-40", "a red apple", 1),
    ]
    for one in samples:
        picture = client.get(one["url"])
        assert picture.headers["content-type"] == "image/jpeg"
        assert picture.content == JPEG + f"{one['after']} {one['seed']}".encode()


@pytest.mark.parametrize("which", ["step-20/0", "base/2", "base/-1", "nothing/0"])
def test_others_are_not_there(client, running, which):
    response = client.get(f"{running}/samples/{which}")

    assert response.status_code == 404
    assert "no such sample" in response.json()["detail"]


def test_lists_leave_them_out_and_one_that_drew_none_has_none(client, running):
    waiting = client.post("/v1/erasures", json=WEAPONS).json()

    assert waiting["samples"] is None
    assert {one["samples"] for one in client.get("/v1/erasures").json()["data"]} == {None}
    assert client.get(f"/v1/erasures/{waiting['id']}").json()["samples"] == []


def test_they_are_there_when_it_has_ended(client, running, lease, worker):
    assert worker.jobs.leasing.succeed(lease, {"erased_model": "waiting", "seconds": 1.5})

    assert len(client.get(running).json()["samples"]) == 4


def test_nobody_sees_those_of_another_tenant(client, running, bearer):
    url = client.get(running).json()["samples"][0]["url"]

    assert client.get(url, headers=bearer("erase", tenant="other")).status_code == 404


def test_where_pictures_are_judged_first_there_are_none(client, running, parts):
    url = client.get(running).json()["samples"][0]["url"]
    strict = {"detectors": [{"detector": "classifier", "thresholds": {"weapon": 0.5}}]}
    client.put("/v1/policies/default", json=strict).raise_for_status()

    assert client.get(running).json()["samples"] == []
    assert client.get(url).status_code == 404
    assert "data:image" not in client.get(running.removeprefix("/v1")).text


def test_the_page_shows_before_and_now(client, running):
    text = client.get(running.removeprefix("/v1")).text

    assert re.findall(r'alt="([^"]+)"', text) == [
        "a pistol, drawn by the base",
        "a pistol, drawn after step 40",
        "a red apple, drawn by the base",
        "a red apple, drawn after step 40",
    ]
    drawn = re.findall(r'src="data:image/jpeg;base64,([^"]*)"', text)
    assert base64.b64decode(drawn[1]) == JPEG + b"step-40 0"


def test_before_anything_was_erased_there_is_a_place_for_what_is_to_come(client, lease, worker):
    worker.jobs.leasing.show(lease, [a_round("base", "a pistol")])
    text = client.get(f"/erasures/{lease.job_id}").text

    assert re.findall(r'alt="([^"]+)"', text) == ["a pistol, drawn by the base"]
    assert "not yet" in text
