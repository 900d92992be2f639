"""The queue shows what has not ended, in its order, to whom it belongs; and cancels."""

import json
import re

import httpx
import pytest
from typer.testing import CliRunner

from cli.main import app
from core.progress import Progress
from tests.service.scenery import APPLE, WEAPONS

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


def test_the_focus_outlives_the_swap_of_every_second(client):
    """htmx gives it back to what has an id alone."""
    client.post("/v1/generations", json=APPLE)
    client.post("/v1/erasures", json=WEAPONS)
    detector = {"name": "nudenet", "convention": "core-0.5"}
    measured = {"model": "waiting", "prompt_files": ["i2p.csv"], "detector": detector}
    client.post("/v1/evaluations", json=measured)
    text = client.get("/queue", headers=PART).text
    focusable = re.findall(r"<(?:a|button)\b[^>]*>", text)
    ids = [found for one in focusable for found in re.findall(r' id="([^"]+)"', one)]

    assert len(focusable) == 6
    assert len(set(ids)) == 6


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


class TestOfATenant:
    """Its old jobs are there whatever has ended since, in the order in which they will begin."""

    @pytest.fixture
    def mine(self, bearer):
        return bearer("generate", "erase")

    @pytest.fixture
    def asked(self, client, mine):
        def asked(prompt: str, **headers) -> str:
            body = {"prompt": prompt}
            return client.post("/v1/generations", json=body, headers=mine | headers).json()["id"]

        return asked

    def test_an_old_job_that_waits_is_there_after_many_that_ended(self, client, mine, asked):
        waits = asked("the old apple")
        for number in range(30):
            client.delete(f"/v1/generations/{asked(f'apple {number:02}')}", headers=mine)
        asked("the young apple")
        text = client.get("/queue", headers=mine).text

        assert text.index("the old apple") < text.index("the young apple")
        assert "apple 29" not in text
        listed = client.get("/v1/generations?unfinished=true", headers=mine).json()
        assert [one["request"]["prompt"] for one in listed["data"]] == [
            "the old apple",
            "the young apple",
        ]
        assert (listed["first_id"], listed["has_more"]) == (waits, False)

    def test_what_runs_stands_first(self, client, mine, asked, worker):
        asked("the old apple")
        worker.claim()
        asked("the young apple")
        text = client.get("/queue", headers=mine).text

        assert text.index("the old apple") < text.index("the young apple")
        assert "running" in text

    def test_jobs_of_others_do_not_take_its_places(self, client, mine, asked, bearer):
        for number in range(30):
            body = {"prompt": f"apple {number:02}"}
            client.post("/v1/generations", json=body, headers=bearer(tenant="rival"))
        asked("my own")

        assert "my own" in client.get("/queue", headers=mine).text

    def test_its_page_of_them_is_one(self, client, mine, asked):
        first, _ = asked("one"), asked("two")
        page = client.get("/v1/generations?unfinished=true&limit=1", headers=mine).json()
        assert ([one["id"] for one in page["data"]], page["has_more"]) == ([first], True)

        refused = client.get(f"/v1/generations?unfinished=true&after={first}", headers=mine)
        assert refused.status_code == 422

    def test_the_command_finds_it(self, start, monkeypatch, bearer, parts):
        admin = bearer("admin")
        address, _ = start()
        monkeypatch.setenv("TRCE_API_KEY", admin["Authorization"].removeprefix("Bearer "))
        with httpx.Client(base_url=address, headers=admin) as http:
            waits = http.post("/v1/generations", json=APPLE).json()["id"]
            for _ in range(120):
                later = http.post("/v1/generations", json=APPLE).json()["id"]
                http.delete(f"/v1/generations/{later}")
            run = CliRunner().invoke
            assert waits in run(app, ["jobs", "list", "--url", address]).output
            done = run(app, ["jobs", "cancel", waits[:12], "--url", address])
            assert done.exit_code == 0, done.output
            assert http.get(f"/v1/generations/{waits}").json()["state"] == "cancelled"
            many = [http.post("/v1/generations", json=APPLE).json()["id"] for _ in range(105)]
            done = run(app, ["jobs", "cancel", many[-1], "--url", address])
            assert done.exit_code == 0, done.output

    @pytest.mark.parametrize(
        ("scope", "mine", "others"),
        [("generate", "generations", "erasures"), ("erase", "erasures", "generations")],
    )
    def test_the_command_shows_and_cancels_what_the_key_has_a_scope_for(
        self, start, monkeypatch, bearer, scope, mine, others
    ):
        bodies = {"generations": APPLE, "erasures": WEAPONS}
        address, _ = start()
        key = bearer(scope)
        monkeypatch.setenv("TRCE_API_KEY", key["Authorization"].removeprefix("Bearer "))
        run = CliRunner().invoke
        with httpx.Client(base_url=address, headers=bearer("generate", "erase")) as http:
            seen, unseen = (
                http.post(f"/v1/{kind}", json=bodies[kind]).json()["id"] for kind in (mine, others)
            )
            listed = run(app, ["jobs", "list", "--json", "--url", address])
            assert listed.exit_code == 0, listed.output
            assert [one["id"] for one in json.loads(listed.output)] == [seen]
            assert run(app, ["jobs", "cancel", unseen, "--url", address]).exit_code != 0
            done = run(app, ["jobs", "cancel", seen, "--url", address])
            assert done.exit_code == 0, done.output
            assert http.get(f"/v1/{others}/{unseen}").json()["state"] == "queued"
