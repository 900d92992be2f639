"""Which model a request gets that names none: pointed, promoted to, rolled back, written down."""

import re

import pytest
from typer.testing import CliRunner

from cli.main import app
from core.manifests import ModelStatus
from core.workers import WorkerRoll
from tests.service.scenery import APPLE

URL = "/v1/aliases/default"


@pytest.fixture
def better(installation):
    """Another model that is served."""
    return installation.add_erased("better", base=installation.registry.get("raw")).id


def drawn_by(client) -> str:
    return client.post("/v1/generations", json=APPLE).json()["model"]


def meant(client) -> dict:
    (alias,) = [one for one in client.get("/v1/aliases").json()["data"] if one["id"] == "default"]
    return alias


def test_a_request_that_names_no_model_gets_the_one_it_is_pointed_to(client, better):
    assert drawn_by(client) == "safe"
    answer = client.put(URL, json={"model": better})

    assert answer.json() == meant(client)
    assert (meant(client)["model"], meant(client)["former"]) == (better, ["safe"])
    assert drawn_by(client) == better
    models = client.get("/v1/models").json()["data"]
    assert [one["id"] for one in models if one["is_default"]] == [better]


@pytest.mark.parametrize("name", ["dall-e-3", "gpt-image-1"])
def test_names_that_clients_have_built_in_follow_it(client, better, name):
    client.put(URL, json={"model": better})

    named = client.post("/v1/generations", json={**APPLE, "model": name}).json()
    assert named["model"] == better
    listed = {one["id"]: one["model"] for one in client.get("/v1/aliases").json()["data"]}
    assert listed[name] == better


def test_it_is_rolled_back(client, better):
    client.put(URL, json={"model": better})
    back = client.post(f"{URL}/rollback").json()

    assert (back["model"], back["former"]) == ("safe", [])
    assert drawn_by(client) == "safe"
    refused = client.post(f"{URL}/rollback")
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:problem:never-pointed")


def test_what_was_accepted_before_keeps_its_model(client, better, worker):
    before = client.post("/v1/generations", json=APPLE).json()["id"]
    client.put(URL, json={"model": better})

    assert worker.draw().spec.model == "safe"
    assert client.get(f"/v1/generations/{before}").json()["model"] == "safe"


@pytest.mark.parametrize("model", ["waiting", "old", "raw"])
def test_a_model_that_is_not_served_is_refused(client, model):
    refused = client.put(URL, json={"model": model})

    assert (refused.status_code, refused.json()["type"]) == (409, "urn:problem:model-not-served")
    assert drawn_by(client) == "safe"


def test_a_model_that_is_none_or_another_name_is_not_found(client):
    assert client.put(URL, json={"model": "nowhere"}).status_code == 404
    other = client.put("/v1/aliases/dall-e-3", json={"model": "safe"})
    assert (other.status_code, other.json()["type"]) == (404, "urn:problem:alias-not-found")


def test_it_is_not_rolled_back_to_what_is_not_served(client, better, installation):
    client.put(URL, json={"model": better})
    client.post("/v1/models/safe/retirement")
    refused = client.post(f"{URL}/rollback")

    assert refused.status_code == 409
    assert "safe" in refused.json()["detail"]
    assert meant(client)["model"] == better


def test_a_promotion_may_point_it(client):
    client.post("/v1/models/old/promotion")
    assert meant(client)["model"] == "safe"
    promoted = client.post("/v1/models/waiting/promotion", json={"default": True, "reason": "ok"})

    assert promoted.json()["is_default"] is True
    assert meant(client)["model"] == "waiting"


def test_a_promotion_that_is_refused_points_nothing(client, installation):
    (installation.models / "waiting" / "weights.safetensors").write_text("others")
    refused = client.post("/v1/models/waiting/promotion", json={"default": True})

    assert refused.status_code == 409
    assert meant(client)["model"] == "safe"


def test_the_model_that_it_means_is_not_retired_while_another_could_be_meant(client, better):
    refused = client.post("/v1/models/safe/retirement")

    assert (refused.status_code, refused.json()["type"]) == (409, "urn:problem:model-is-default")
    assert better in refused.json()["detail"]
    assert drawn_by(client) == "safe"
    client.put(URL, json={"model": better})
    assert client.post("/v1/models/safe/retirement").json()["status"] == ModelStatus.RETIRED


def test_the_last_model_that_is_served_can_always_be_retired(client):
    assert client.post("/v1/models/safe/retirement").status_code == 200


def test_it_is_written_down_who_pointed_it_and_why(client, better):
    client.put(URL, json={"model": better, "reason": "draws better"})
    client.post(f"{URL}/rollback", json={"reason": "it does not"})
    newest, older = client.get("/v1/audit").json()["data"]

    assert (older["action"], older["subject"], older["reason"], older["detail"]) == (
        *("default.pointed", "better", "draws better"),
        {"before": "safe"},
    )
    assert (newest["action"], newest["subject"], newest["reason"]) == (
        *("default.rolled_back", "safe"),
        "it does not",
    )


def test_only_an_admin_points_it_and_everybody_sees_it(client, bearer, better):
    mine, admin = bearer("generate"), bearer("admin")

    assert client.get("/v1/aliases", headers=mine).status_code == 200
    assert client.put(URL, json={"model": better}, headers=mine).status_code == 403
    assert client.post(f"{URL}/rollback", headers=mine).status_code == 403
    assert client.put(URL, json={"model": better}, headers=admin).status_code == 200


def test_readiness_says_that_it_means_what_is_not_served(serve, better):
    client = serve(default_model="raw")
    WorkerRoll(client.app.state.parts.client).beat("inference-0@here")
    ready = client.get("/readyz")

    assert ready.status_code == 200
    (warning,) = ready.json()["warnings"]
    assert "raw" in warning
    assert "trce models default" in warning
    client.put(URL, json={"model": better})
    assert client.get("/readyz").json()["warnings"] == []


class TestPage:
    def test_buttons_point_it_and_roll_it_back(self, client, better):
        text = client.get("/models").text
        assert "Roll back" not in text
        assert re.findall(r"<option>([^<]*)</option>", text) == [better]
        client.post("/models/default", data={"model": better})

        assert meant(client)["model"] == better
        assert "Roll back" in client.get("/models").text
        client.post("/models/default/rollback")
        assert meant(client)["model"] == "safe"

    def test_a_promotion_may_point_it(self, client):
        assert 'name="default"' in client.get("/models/waiting").text
        client.post("/models/waiting/promotion", data={"default": "on"})

        assert meant(client)["model"] == "waiting"

    def test_it_says_that_nothing_is_served_by_default(self, serve):
        assert "They are refused now" in serve(default_model="raw").get("/models").text

    def test_whoever_is_no_admin_sees_no_button(self, client, bearer, better):
        text = client.get("/models", headers=bearer("generate")).text

        assert "safe" in text
        assert "Make default" not in text


def test_the_command_shows_points_and_rolls_back(start, better):
    address, _ = start()

    def trce(*words: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, ["models", "default", *words, "--url", address])
        assert (result.exit_code != 0) == (code != 0), result.output
        return f"{result.output}{result.exception or ''}"

    assert "default means safe" in trce()
    assert "default means better\nbefore: safe" in trce(better, "--reason", "draws better")
    assert "default means safe" in trce("--rollback")
    assert "never pointed" in trce("--rollback", code=1)
    assert "not both" in trce(better, "--rollback", code=1)
