import pytest

from tests.service.scenery import APPLE

URL = "/v1/models"


def test_the_list_has_the_shape_that_openai_clients_expect(client):
    listed = client.get(URL).json()

    assert listed["object"] == "list"
    for model in listed["data"]:
        assert model["object"] == "model"
        assert isinstance(model["created"], int)
        assert isinstance(model["owned_by"], str)


def test_the_list_says_what_is_served_and_why_the_rest_is_not(client):
    models = {model["id"]: model for model in client.get(URL).json()["data"]}

    assert set(models) == {"raw", "safe", "waiting", "old"}
    assert [name for name, model in models.items() if model["served"]] == ["safe"]
    assert models["safe"]["not_served_because"] is None
    assert "nothing was erased" in models["raw"]["not_served_because"]
    assert "promote" in models["waiting"]["not_served_because"]
    assert [name for name, model in models.items() if model["is_default"]] == ["safe"]


def test_an_untrusted_folder_is_named_with_the_reason_and_is_no_model(client):
    listed = client.get(URL).json()

    assert listed["untrusted"].keys() == {"forged"}
    assert "signature" in listed["untrusted"]["forged"]
    response = client.get(f"{URL}/forged")
    assert response.status_code == 409
    assert response.json()["type"] == "urn:problem:untrusted-model"


def test_a_model_shows_what_was_erased_and_from_what(client):
    raw, safe = (client.get(f"{URL}/{name}").json() for name in ("raw", "safe"))

    assert raw["erased"] is None
    assert safe["erased"]["base_model"] == "raw"
    assert safe["erased"]["base_digest"] == raw["digest"]
    assert [concept["name"] for concept in safe["erased"]["concepts"]] == ["pistol"]
    assert safe["drawing"] == {"native_px": 64, "multiple_px": 16, "max_px": 128}
    assert set(safe["files"]) == {"weights.safetensors"}


def test_the_default_model_can_be_asked_for_by_that_name(client):
    assert client.get(f"{URL}/default").json()["id"] == "safe"


@pytest.mark.parametrize("name", ["waiting", "old"])
def test_a_promoted_model_is_served_from_then_on(client, name):
    request = APPLE | {"model": name}
    assert client.post("/v1/generations", json=request).status_code == 409

    promoted = client.post(f"{URL}/{name}/promotion")

    assert promoted.status_code == 200
    assert promoted.json()["status"] == "serving"
    assert client.post("/v1/generations", json=request).status_code == 202


def test_a_retired_model_is_served_no_more(client):
    assert client.post(f"{URL}/safe/retirement").json()["served"] is False

    assert client.post("/v1/generations", json=APPLE).status_code == 409


def test_promoting_twice_is_promoting_once(client):
    client.post(f"{URL}/waiting/promotion")

    assert client.post(f"{URL}/waiting/promotion").status_code == 200


def test_a_candidate_cannot_retire(client):
    response = client.post(f"{URL}/waiting/retirement")

    assert response.status_code == 409
    assert response.json()["type"] == "urn:problem:status-unreachable"


def test_a_model_whose_files_were_changed_is_not_promoted(client, installation):
    (installation.models / "waiting" / "weights.safetensors").write_text("other weights")

    response = client.post(f"{URL}/waiting/promotion")

    assert response.status_code == 409
    assert "weights.safetensors" in response.json()["detail"]
    assert client.get(f"{URL}/waiting").json()["status"] == "candidate"


def test_an_untrusted_model_cannot_be_promoted(client):
    assert client.post(f"{URL}/forged/promotion").status_code == 409


@pytest.mark.parametrize("verb", ["promotion", "retirement"])
def test_a_web_page_of_another_site_gives_no_orders(client, verb):
    elsewhere = {"Sec-Fetch-Site": "cross-site", "Origin": "https://elsewhere.example"}

    response = client.post(f"{URL}/safe/{verb}", headers=elsewhere)

    assert response.status_code == 403
    assert client.get(f"{URL}/safe").json()["status"] == "serving"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("none", id="unknown"),
        pytest.param(".incoming", id="the folder of models being made"),
        pytest.param("..", id="upwards"),
        pytest.param("..%2F..%2Fetc", id="a path"),
        pytest.param("%00", id="NUL"),
        pytest.param("%ED%A0%80", id="surrogate"),
        pytest.param("a" * 300, id="long"),
        pytest.param("Safe", id="upper case"),
    ],
)
def test_an_unknown_model_is_not_found(client, name):
    assert client.get(f"{URL}/{name}").status_code == 404
    assert client.post(f"{URL}/{name}/promotion").status_code == 404


def test_presets_are_listed_with_their_concepts(client):
    presets = {preset["id"]: preset for preset in client.get("/v1/presets").json()["data"]}

    assert presets["weapons"]["concepts"][0]["replacement"]
