import pytest

from tests.service.scenery import APPLE

URL = "/v1/dead-letters"


@pytest.fixture
def dead(parts, generation):
    """A generation that took its worker down as often as it could."""
    while parts.jobs.leasing.claim("generation", "w", slots=8, lease_s=30, idle=True):
        parts.jobs.leasing.take_back("w")
    return generation["id"]


def test_what_gave_up_is_listed_with_where_to_retry_it(client, dead):
    (letter,) = client.get(URL).json()["data"]

    assert (letter["id"], letter["kind"], letter["attempt"]) == (dead, "generation", 5)
    assert "gave up after 5 attempts" in letter["reason"]
    again = client.post(letter["retry"])
    assert again.status_code == 202
    assert again.json()["state"] == "queued"
    assert client.get(URL).json()["data"] == []


def test_a_retried_job_may_still_be_drawn(client, worker, dead):
    client.post(f"/v1/generations/{dead}/retry")
    worker.draw()

    assert client.get(f"/v1/generations/{dead}").json()["state"] == "succeeded"


def test_who_listens_from_the_beginning_hears_both_lives_and_one_end(client, worker, dead):
    client.post(f"/v1/generations/{dead}/retry")
    worker.draw()
    told = client.get(f"/v1/generations/{dead}/events").text

    assert told.count("event: done") == 1
    assert told.count('"state": "failed"') == 1
    assert told.count('"state": "running"') == 6


def test_what_has_not_failed_is_not_tried_again(client, generation):
    answer = client.post(f"/v1/generations/{generation['id']}/retry")

    assert answer.status_code == 409
    assert answer.json()["type"] == "urn:problem:job-not-failed"


def test_a_full_queue_takes_no_retry(serve, parts, dead):
    full = serve(max_queued_generations=1)
    full.post("/v1/generations", json=APPLE)
    answer = full.post(f"/v1/generations/{dead}/retry")

    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0


def test_a_retry_whose_answer_was_lost_can_be_repeated(client, dead):
    url = f"/v1/generations/{dead}/retry"
    first, again = client.post(url), client.post(url)

    assert again.status_code == 202
    assert again.json() == first.json()


def test_the_unfinished_jobs_of_a_policy_bound_retries_too(client, dead):
    client.put("/v1/policies/local", json={"limits": {"open_jobs": 1}})
    client.post("/v1/generations", json=APPLE)

    assert client.post(f"/v1/generations/{dead}/retry").status_code == 429


@pytest.mark.parametrize("noun", ["generations", "erasures", "evaluations"])
def test_a_job_that_is_not_there_is_a_404(client, noun):
    assert client.post(f"/v1/{noun}/{'0' * 32}/retry").status_code == 404


def test_tenants_see_and_retry_their_own(client, bearer, parts, worker):
    mine, theirs, admin = bearer(tenant="acme"), bearer(tenant="other"), bearer("admin")
    job = client.post("/v1/generations", json=APPLE, headers=mine).json()["id"]
    while parts.jobs.leasing.claim("generation", "w", slots=8, lease_s=30, idle=True):
        parts.jobs.leasing.take_back("w")

    assert client.get(URL, headers=theirs).json()["data"] == []
    assert client.post(f"/v1/generations/{job}/retry", headers=theirs).status_code == 404
    assert [one["id"] for one in client.get(URL, headers=mine).json()["data"]] == [job]
    assert [one["id"] for one in client.get(URL, headers=admin).json()["data"]] == [job]
    assert client.post(f"/v1/generations/{job}/retry", headers=mine).status_code == 202
