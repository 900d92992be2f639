"""Composing an erasure on the page is composing one for the API; its history is drawn."""

import re

import pytest

from core.progress import Progress
from core.specs import SteeringOptions

PART = {"HX-Request": "true"}
OWN = {"base_model": "raw", "steering": "", "protect": ""}
PRESET = OWN | {"preset": "weapons"}
DAGGER = {
    "name": "dagger",
    "replacement": "spoon",
    "kind": "object",
    "synonyms": "knife, blade",
}


def made(client, form) -> str:
    response = client.post("/erasures", data=form, headers=PART)
    assert response.status_code == 204, response.text
    return response.headers["HX-Redirect"].rpartition("/")[2]


def request_of(client, form) -> dict:
    return client.get(f"/v1/erasures/{made(client, form)}").json()["request"]


def test_a_preset_is_sent_as_such(client):
    asked = request_of(client, PRESET | {"protect": "fork, scissors"})

    assert (asked["base_model"], asked["preset"], asked["concepts"]) == ("raw", ["weapons"], [])
    assert [one["name"] for one in asked["textual"]["protect"]] == ["fork", "scissors"]
    assert (asked["steering"], asked["promote_if"]) == (None, None)


def test_own_concepts_are_those_in_which_something_was_written(client):
    empty = {"name": "", "replacement": "", "kind": "object", "synonyms": ""}
    gun = {"name": "gun", "replacement": "flower", "kind": "unsafe", "synonyms": ""}
    rows = {name: [DAGGER[name], empty[name], gun[name]] for name in DAGGER}
    asked = request_of(client, OWN | rows)

    assert [concept["name"] for concept in asked["concepts"]] == ["dagger", "gun"]
    assert asked["concepts"][0]["synonyms"] == ["knife", "blade"]
    assert asked["concepts"][1]["kind"] == "unsafe"


def test_several_presets_and_own_concepts_make_one_model(client):
    own = DAGGER | {"name": "teapot", "synonyms": ""}
    asked = request_of(client, OWN | {"preset": ["weapons", "alcohol-tobacco"]} | own)

    assert asked["preset"] == ["weapons", "alcohol-tobacco"]
    assert [concept["name"] for concept in asked["concepts"]] == ["teapot"]


def test_stage_two_is_trained_where_it_is_wanted(client):
    published = request_of(client, PRESET | {"steering": "published-sd1"})
    default = request_of(client, PRESET | {"steering": "default"})

    assert published["steering"]["steps"] == 300
    assert default["steering"]["steps"] == SteeringOptions().steps


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param({"preset": []}, "give `preset`", id="nothing to erase"),
        pytest.param({"preset": "none-such"}, "no preset", id="no such preset"),
        pytest.param({"base_model": "safe"}, "is an erased model", id="no base"),
        pytest.param({"max_asr": "2"}, "less than or equal to 1", id="no share"),
        pytest.param({"max_asr": "0.1"}, "nothing measures", id="not measurable"),
        pytest.param(DAGGER | {"replacement": ""}, "replacement", id="no replacement"),
    ],
)
def test_a_refusal_is_worded_and_leaves_no_job(client, queue, change, says):
    response = client.post("/erasures", data=PRESET | change, headers=PART)

    assert response.status_code == 422
    assert says in response.text
    assert queue.counts.queued("erasure") == 0


def test_stages_and_losses_are_drawn_as_far_as_they_are(client, worker):
    job = made(client, PRESET)
    lease = worker.claim("erasure")
    worker.jobs.leasing.report(lease, Progress(stage="solving", done=1, total=1))
    for step, loss in enumerate((8.0, 4.0, 2.0)):
        figures = {"prompted": loss}
        told = Progress(stage="training", done=step + 1, total=60, figures=figures)
        worker.jobs.leasing.report(lease, told)
    text = client.get(f"/erasures/{job}/state", headers=PART).text

    assert text.index("Solving") < text.index("Training")
    assert '<progress value="3" max="60"' in text
    (points,) = re.findall(r'<polyline points="([^"]*)"', text)
    assert points == "0.0,0.0 120.0,36.0 240.0,54.0"
    assert "every 1s" in text


def test_another_attempt_begins_its_stages_anew(client, worker):
    job = made(client, PRESET)
    worker.jobs.leasing.report(worker.claim("erasure"), Progress(stage="solving", done=1, total=1))
    worker.jobs.leasing.take_back("inference-0@here")
    worker.claim("erasure")

    assert "Solving" not in client.get(f"/erasures/{job}/state").text


def test_what_came_out_is_a_link_to_its_model(client, worker):
    job = made(client, PRESET)
    result = {"erased_model": "waiting", "seconds": 1.5}
    worker.jobs.leasing.succeed(worker.claim("erasure"), result)

    text = client.get(f"/erasures/{job}").text
    assert 'href="/models/waiting"' in text
    assert "every 1s" not in text
    assert "waiting" in client.get("/erasures").text


def test_why_it_failed_is_there(client, worker):
    job = made(client, PRESET)
    worker.jobs.leasing.fail(worker.claim("erasure"), "too little memory")

    assert "too little memory" in client.get(f"/erasures/{job}").text


def test_it_can_be_cancelled(client):
    job = made(client, PRESET)
    client.post(f"/erasures/{job}/cancellation", headers=PART)

    assert client.get(f"/v1/erasures/{job}").json()["state"] == "cancelled"


def test_without_scripts_the_form_leads_to_its_erasure(client):
    assert re.fullmatch(r"/erasures/[0-9a-f]{32}", client.post("/erasures", data=PRESET).url.path)


def test_who_may_not_erase_is_told(client, bearer):
    headers = bearer("generate")

    assert client.get("/erasures", headers=headers).status_code == 403
    assert client.post("/erasures", data=PRESET, headers=headers).status_code == 403
