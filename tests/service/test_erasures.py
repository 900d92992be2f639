import pytest

from core.jobs import ErasureResult
from core.progress import Progress
from tests.service.scenery import WEAPONS

URL = "/v1/erasures"
DAGGER = {"name": "dagger", "synonyms": ["knife"], "replacement": "spoon"}


def test_one_is_accepted_and_can_be_claimed_as_it_was_shown(client, worker):
    response = client.post(URL, json=WEAPONS)

    assert response.status_code == 202
    assert response.headers["Location"] == f"{URL}/{response.json()['id']}"
    assert int(response.headers["Retry-After"]) > 0
    lease = worker.claim("erasure")
    assert lease.job_id == response.json()["id"]
    assert lease.spec.model_dump(mode="json") == response.json()["request"]


def test_its_progress_is_shown(client, worker):
    url = client.post(URL, json=WEAPONS).headers["Location"]
    told = Progress(stage="textual", done=2, total=5, message="solving")
    worker.jobs.leasing.report(worker.claim("erasure"), told)

    read = client.get(url).json()

    assert read["state"] == "running"
    assert read["progress"] == told.model_dump()
    assert read["erased_model"] is None


def test_its_result_is_named(client, worker):
    url = client.post(URL, json=WEAPONS).headers["Location"]
    result = ErasureResult(erased_model="raw-without-pistol", seconds=3)
    worker.jobs.leasing.succeed(worker.claim("erasure"), result.model_dump())

    read = client.get(url).json()

    assert read["state"] == "succeeded"
    assert read["erased_model"] == "raw-without-pistol"


def test_a_failed_one_says_why(client, worker):
    url = client.post(URL, json=WEAPONS).headers["Location"]
    worker.jobs.leasing.fail(worker.claim("erasure"), "the closed form has no stable solution")

    assert client.get(url).json()["reason"] == "the closed form has no stable solution"


def test_cancelling_ends_a_queued_one_and_tells_a_running_one(client, worker):
    queued = client.post(URL, json=WEAPONS | {"seed": 1}).headers["Location"]
    assert client.delete(queued).json()["state"] == "cancelled"
    assert client.delete(queued).json()["state"] == "cancelled"  # a repetition

    running = client.post(URL, json=WEAPONS | {"seed": 2}).headers["Location"]
    worker.claim("erasure")
    assert client.delete(running).json()["cancelling"]


def test_the_list_holds_erasures_only(client, generation):
    erasure = client.post(URL, json=WEAPONS).json()

    assert [one["id"] for one in client.get(URL).json()["data"]] == [erasure["id"]]
    assert client.get(f"{URL}/{generation['id']}").status_code == 404


@pytest.mark.parametrize("name", ["default", "dall-e-3"])
def test_another_name_for_an_erased_model_means_its_base(client, worker, name):
    """`default` means `safe`, which was made from `raw`."""
    erasure = client.post(URL, json=WEAPONS | {"base_model": name}).json()

    assert (erasure["base_model"], erasure["request"]["base_model"]) == ("raw", "raw")
    assert worker.claim("erasure").spec.base_model == "raw"


def test_a_merge_is_queued_with_everything_that_it_takes_over_filled_in(client):
    """`safe` erases pistols."""
    body = {"base_model": "raw", "merge": ["safe"], "concepts": [DAGGER]}
    request = client.post(URL, json=body).json()["request"]

    assert request["merge"] == ["safe"]
    assert request["textual"]["eot_tokens"] == "all"


def test_several_presets_and_concepts_are_one_erasure(client):
    body = {"base_model": "raw", "preset": ["drugs", "alcohol-tobacco"], "concepts": [DAGGER]}
    request = client.post(URL, json=body).json()["request"]

    assert request["preset"] == ["drugs", "alcohol-tobacco"]
    assert client.post(URL, json=request).json()["request"] == request
    assert "drugs, alcohol-tobacco, dagger" in client.get("/erasures").text


def test_a_request_can_be_sent_again_as_it_was_shown(client):
    body = {"base_model": "raw", "concepts": [{"name": "dagger", "replacement": "spoon"}]}
    request = client.post(URL, json=body).json()["request"]

    assert client.post(URL, json=request).json()["request"] == request


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        pytest.param({"merge": ["none"]}, 404, "none", id="merged with nothing"),
        pytest.param({"merge": ["raw"]}, 422, "base model", id="merged with a base"),
        pytest.param({"merge": ["forged"]}, 409, "forged", id="merged with the untrusted"),
        pytest.param(
            {"preset": None, "merge": ["safe"], "remove": ["bow"]},
            422,
            "no concept 'bow'",
            id="nothing to remove",
        ),
        pytest.param({"preset": "wepons"}, 422, "weapons", id="unknown preset"),
        pytest.param({"base_model": "none"}, 404, "none", id="unknown base"),
        pytest.param({"base_model": "safe"}, 422, "raw", id="an erased model as base"),
        pytest.param({"base_model": "forged"}, 409, "forged", id="untrusted"),
        pytest.param({"base_model": "../raw"}, 422, "base_model", id="a path"),
        pytest.param({"preset": ["drugs", "wepons"]}, 422, "wepons", id="one preset unknown"),
        pytest.param(
            {"concepts": [DAGGER | {"synonyms": ["knife"]}]},
            422,
            "described differently",
            id="a concept of the preset, and another",
        ),
        pytest.param({"preset": None}, 422, "concepts", id="neither"),
        pytest.param({"textual": {"protect": ["Rifle"]}}, 422, "Rifle", id="erased and protected"),
        pytest.param({"textual": {"ridge": "NaN"}}, 422, "number", id="NaN"),
        pytest.param(
            {"textual": {"captions": ["two rifles"]}}, 422, "captions", id="nothing to preserve"
        ),
        pytest.param(
            {"steering": {"steps": 2, "batch": 1}}, 422, "too few", id="too few points for all"
        ),
        pytest.param({"seed": -1}, 422, "seed", id="negative seed"),
        pytest.param({"method": "magic"}, 422, "trce", id="unknown method"),
        pytest.param(
            {"preset": None, "concepts": [DAGGER | {"replacement": "Knife"}]},
            422,
            "is to stay",
            id="replaced by itself",
        ),
        pytest.param(
            {"preset": None, "concepts": [DAGGER | {"synonyms": []}]},
            422,
            "empty list",
            id="an empty list of synonyms",
        ),
    ],
)
def test_a_refused_one_leaves_no_trace(client, queue, change, status, says):
    response = client.post(URL, json=WEAPONS | change)

    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"
    assert says in response.json()["detail"]
    assert queue.counts.queued("erasure") == 0
    assert queue.lists.latest("erasure") == []


def test_a_learning_rate_for_small_models_is_refused_for_a_large_one(client, monkeypatch):
    """At the door: the job would fail, or make noise of the model, hours later."""
    monkeypatch.setattr("core.learning_rate._parameters", lambda folder: 860_000_000)
    response = client.post(URL, json=WEAPONS | {"steering": {}})

    assert response.status_code == 422
    assert "published-sd1" in response.json()["detail"]
    assert "860 million" in response.json()["detail"]
    published = WEAPONS | {"steering": "published-sd1"}
    assert client.post(URL, json=published).status_code == 202
