"""The queue shows what has not ended, in its order, to whom it belongs; and cancels."""

import pytest
from scenery import APPLE, WEAPONS

from core.progress import Progress

PART = {"HX-Request": "true"}


def test_what_runs_stands_before_what_waits_and_what_ended_is_gone(client, worker):
    for prompt in ("first", "second", "third"):
        client.post("/v1/generations", json={"prompt": f"the {prompt} apple"})
    worker.draw()
    worker.jobs.leasing.report(worker.claim(), Progress(stage="denoising", done=3, total=20))
    text = client.get("/queue", headers=PART).text

    assert "first" not in text
    assert text.index("the second apple") < text.index("the third apple")
    assert '<progress value="3" max="20"' in text
    assert "<!doctype" not in text


def test_every_kind_is_there(client):
    client.post("/v1/erasures", json=WEAPONS)
    text = client.get("/queue").text

    assert "weapons" in text
    for noun in ("Generations", "Erasures", "Evaluations"):
        assert noun in text


def test_the_reason_why_nothing_moves_is_there(client):
    assert "o inference worker" in client.get("/queue").text


@pytest.mark.parametrize(
    ("noun", "body"), [("generations", APPLE), ("erasures", WEAPONS)], ids=["drawing", "erasing"]
)
def test_a_button_cancels(client, noun, body):
    job = client.post(f"/v1/{noun}", json=body).json()["id"]
    text = client.post(f"/queue/{noun}/{job}/cancellation", headers=PART).text

    assert client.get(f"/v1/{noun}/{job}").json()["state"] == "cancelled"
    assert job not in text


def test_without_scripts_the_button_leads_back(client, generation):
    shown = client.post(f"/queue/generations/{generation['id']}/cancellation")
    assert shown.url.path == "/queue"


def test_jobs_of_others_are_an_admins_to_see(client, bearer):
    mine, admin = bearer("generate"), bearer("admin", tenant="ops")
    client.post("/v1/generations", json={"prompt": "a rival"}, headers=bearer(tenant="rival"))
    client.post("/v1/generations", json={"prompt": "my own"}, headers=mine)

    assert "a rival" not in client.get("/queue", headers=mine).text
    assert "my own" in client.get("/queue", headers=mine).text
    assert "a rival" in client.get("/queue", headers=admin).text
    assert "Erasures" not in client.get("/queue", headers=mine).text.partition("<main")[2]


def test_a_long_queue_is_shown_in_part(client):
    for number in range(30):
        client.post("/v1/generations", json={"prompt": f"apple {number:02}"})
    text = client.get("/queue").text

    assert "apple 00" in text
    assert "apple 24" in text
    assert "apple 25" not in text
    assert "25 or more" in text
