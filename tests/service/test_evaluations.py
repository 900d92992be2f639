"""Evaluations, reports and the gate, over HTTP."""

import pytest

from core.jobs import EvaluationResult
from core.progress import Progress
from core.thresholds import PromoteIf
from tests.made_reports import report, suite, write
from tests.service.scenery import WEAPONS

URL = "/v1/evaluations"
I2P = {
    "model": "waiting",
    "prompt_files": ["i2p.csv"],
    "detector": {"name": "nudenet", "convention": "core-0.5"},
}


def test_one_is_accepted_claimed_watched_and_names_its_report(client, worker):
    response = client.post(URL, json=I2P)
    assert response.status_code == 202
    url = response.headers["Location"]
    lease = worker.claim("evaluation")
    assert lease.spec.model_dump(mode="json") == response.json()["request"]

    worker.jobs.leasing.report(lease, Progress(stage="drawing explicit", done=2, total=5))
    assert client.get(url).json()["progress"]["stage"] == "drawing explicit"
    result = EvaluationResult(model="waiting", report=lease.job_id, seconds=1)
    worker.jobs.leasing.succeed(lease, result.model_dump())

    done = client.get(url).json()
    assert done["state"] == "succeeded"
    assert done["report"] == f"/v1/models/waiting/reports/{lease.job_id}/report.json"
    assert client.get(URL).json()["data"][0]["id"] == lease.job_id


def test_cancelling_ends_a_queued_one_and_tells_a_running_one(client, worker):
    queued = client.post(URL, json=I2P).headers["Location"]
    assert client.delete(queued).json()["state"] == "cancelled"
    running = client.post(URL, json=I2P | {"seed": 1}).headers["Location"]
    worker.claim("evaluation")
    assert client.delete(running).json()["cancelling"]


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        pytest.param({"model": "nobody"}, 404, "no model 'nobody'", id="model"),
        pytest.param({"suites": ["explizit"]}, 422, "or 'ordinary'", id="suite"),
        pytest.param({"suites": ["explicit"]}, 422, "concepts.json", id="another kind of model"),
        pytest.param(
            {"detector": {"name": "nudnet"}}, 422, "there are classifier, nudenet", id="detector"
        ),
        pytest.param(
            {"detector": {"name": "nudenet", "convention": "mine"}},
            422,
            "'exposed-0.6' or 'core-0.5'",
            id="convention",
        ),
        pytest.param({"detector": None}, 422, "has no classifier", id="no detector"),
        pytest.param({"prompt_files": ["../i2p.csv"]}, 422, "without a folder", id="path"),
        pytest.param({"attacks": [{"name": "p4d", "budget": 0}]}, 422, "budget", id="budget"),
        pytest.param({"prompt_files": ["a.csv", "a.csv"]}, 422, "listed once", id="twice"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_the_door(client, queue, changes, status, said):
    response = client.post(URL, json=I2P | changes)
    assert response.status_code == status
    assert said in response.json()["detail"]
    assert queue.counts.queued("evaluation") == 0


def test_thresholds_that_the_base_cannot_be_measured_by_are_refused(client):
    terms = {"promote_if": {"max_asr": {"explicit": 0.1}}}
    response = client.post("/v1/erasures", json=WEAPONS | terms)
    assert response.status_code == 422
    assert "nothing measures explicit on raw" in response.json()["detail"]
    by_its_own = {"promote_if": {"max_asr": {"i2p.csv": 0.1}, "detector": {}}}
    response = client.post("/v1/erasures", json=WEAPONS | by_its_own)
    assert response.status_code == 422
    assert "raw has no classifier; name another" in response.json()["detail"]
    by_another = {"max_asr": {"i2p.csv": 0.1}, "detector": {"name": "nudenet"}}
    for terms in ({"max_asr": {"i2p.csv": 0.1}}, by_another):
        response = client.post("/v1/erasures", json=WEAPONS | {"promote_if": terms})
        assert response.status_code == 202


@pytest.fixture
def held(installation):
    """`waiting` with thresholds."""
    manifest = installation.registry.get("waiting")
    terms = PromoteIf(max_asr={"i2p.csv": 0.1})
    changed = manifest.model_copy(update={"promote_if": terms}).signed(installation._signer)
    changed.write(installation.models / "waiting")
    return changed


def test_a_promotion_is_told_what_is_missing_until_it_is_there(
    held, client, installation, tmp_path
):
    refused = client.post("/v1/models/waiting/promotion")
    assert refused.status_code == 409
    assert "it has no report" in refused.json()["detail"]
    assert client.get("/v1/models/waiting/reports").json()["missing"] == [
        "it has no report; POST /v1/evaluations, or `trce evaluate`, makes one"
    ]

    made = report(held, suite("i2p.csv", hits=1, split=None))
    folder = write(made, tmp_path / "report")
    installation.registrar.add_report("waiting", "r1", folder, installation._signer)

    listed = client.get("/v1/models/waiting/reports").json()
    assert ([one["id"] for one in listed["data"]], listed["missing"]) == (["r1"], [])
    assert client.post("/v1/models/waiting/promotion").json()["reports"] == ["r1"]
    read = client.get("/v1/models/waiting/reports/r1/report.json")
    assert read.content == made.to_bytes()
    page = client.get("/v1/models/waiting/reports/r1/report.html")
    assert "script" not in page.headers["content-security-policy"]
    assert page.headers["content-type"].startswith("text/html")
    assert client.get("/v1/models/waiting/reports/r2/report.json").status_code == 404


def test_an_override_needs_a_reason_and_is_recorded(held, client):
    url = "/v1/models/waiting/promotion"
    assert client.post(url, json={"override": True}).status_code == 422
    assert client.post(url, json={"reason": "please"}).status_code == 409

    promoted = client.post(url, json={"override": True, "reason": "a drill"}).json()
    [noted] = promoted["overrides"]
    assert promoted["status"] == "serving"
    assert (noted["reason"], noted["actor"]) == ("a drill", "this machine")
    [entry] = [
        one for one in client.get("/v1/audit").json()["data"] if "override" in one["detail"]
    ]
    assert entry["reason"] == "a drill"
    assert "it has no report" in entry["detail"]["override"]
