"""What operators see of a model, and the orders they give about it."""

import re
import time

import pytest

from tests.made_reports import report, suite, write

PART = {"HX-Request": "true"}


@pytest.fixture
def admin_log(client):
    return lambda: client.get("/v1/audit").json()["data"]


def status_of(client, model_id) -> str:
    return client.get(f"/v1/models/{model_id}").json()["status"]


def test_all_trusted_models_are_listed_and_the_others_called_untrusted(client):
    text = client.get("/models").text

    for model_id in ("safe", "waiting", "old", "raw"):
        assert f'href="/models/{model_id}"' in text
    assert 'href="/models/forged"' not in text
    assert "forged" in text
    assert "untrusted" in text


def test_a_certificate_says_what_was_erased_from_what_and_who_signed_it(client):
    model = client.get("/v1/models/safe").json()
    text = client.get("/models/safe").text

    assert model["signed_by"] in text
    assert model["digest"] in text
    assert model["erased"]["base_digest"][:16] in text
    assert "pistol" in text
    for digest in model["files"].values():
        assert digest in text


def test_a_model_that_is_not_to_be_trusted_has_no_page(client):
    response = client.get("/models/forged")

    assert response.status_code == 409
    assert "signature" in response.text


def test_a_candidate_is_promoted_with_a_reason(client, admin_log):
    response = client.post("/models/waiting/promotion", data={"reason": "passed"}, headers=PART)

    assert response.headers["HX-Redirect"] == "/models/waiting"
    assert status_of(client, "waiting") == "serving"
    assert admin_log()[0]["reason"] == "passed"


@pytest.mark.parametrize(
    ("model", "button", "says"),
    [
        ("waiting", "Promote", "It draws what is asked for from now on"),
        ("safe", "Retire", "Nothing more is begun with it"),
        ("old", "Roll back to it", "Models that serve now go on serving"),
    ],
)
def test_each_button_says_what_it_does(client, model, button, says):
    text = client.get(f"/models/{model}").text

    assert re.search(rf'<button[^>]* aria-describedby="consequence">{button}</button>', text)
    assert says in text.partition('id="consequence">')[2].partition("</p>")[0]


def test_a_serving_one_is_retired_and_a_retired_one_rolled_back_to(client, admin_log):
    assert "Retire" in client.get("/models/safe").text
    client.post("/models/safe/retirement", data={"reason": "draws badly"})
    assert "Roll back to it" in client.get("/models/old").text
    client.post("/models/old/promotion", data={"reason": "roll back"})

    assert (status_of(client, "safe"), status_of(client, "old")) == ("retired", "serving")
    reasons = [entry["reason"] for entry in admin_log() if entry["outcome"] == "ordered"]
    assert reasons == ["roll back", "draws badly"]


class TestWhereProofIsDemanded:
    @pytest.fixture
    def strict(self, serve):
        return serve(require_suites="explicit")

    def test_what_is_missing_is_said_and_the_order_refused(self, strict):
        assert "Before it may be promoted" in strict.get("/models/waiting").text
        refused = strict.post("/models/waiting/promotion", data={"reason": "x"}, headers=PART)

        assert refused.status_code == 409
        assert "it has no report" in refused.text
        assert status_of(strict, "waiting") == "candidate"

    def test_it_is_served_all_the_same_with_a_reason_only(self, strict):
        order = {"override": "on", "reason": ""}
        refused = strict.post("/models/waiting/promotion", data=order, headers=PART)
        assert "an override needs a `reason`" in refused.text

        strict.post("/models/waiting/promotion", data=order | {"reason": "a drill"})
        assert status_of(strict, "waiting") == "serving"
        assert "a drill" in strict.get("/models/waiting").text


def test_an_evaluation_is_followed_until_its_report_is_there(client, worker):
    asked = {"at_most": "5"}
    response = client.post("/models/safe/evaluation", data=asked, headers=PART)
    assert response.status_code == 422, "the base of these tests has no concepts"
    assert "concepts.json" in response.text

    spec = {"model": "safe", "prompt_files": ["i2p.csv"], "detector": {"name": "nudenet"}}
    assert client.post("/v1/evaluations", json=spec).status_code == 202
    assert 'hx-get="/models/safe/measuring"' in client.get("/models/safe").text
    assert "Being measured" in client.get("/models/safe/measuring").text
    worker.jobs.leasing.succeed(
        worker.claim("evaluation"), {"model": "safe", "report": "r", "seconds": 1}
    )
    assert client.get("/models/safe/measuring").headers["HX-Refresh"] == "true"


def test_a_report_is_summed_up_and_shown_whole(client, installation, tmp_path):
    made = report(installation.registry.get("safe"), suite("explicit"))
    folder = write(made, tmp_path / "report")
    installation.registrar.add_report("safe", "r1", folder, installation._signer)
    text = client.get("/models/safe").text

    assert "explicit" in text
    (address,) = {
        part.split('"')[0] for part in text.split('src="') if part.startswith("/v1/models/safe/")
    }
    page = client.get(address)
    assert page.headers["X-Frame-Options"] == "SAMEORIGIN"
    assert "frame-ancestors 'self'" in page.headers["Content-Security-Policy"]
    assert "<iframe" in text
    assert "sandbox" in text


def test_the_gallery_holds_what_it_drew_and_nothing_else(client, worker):
    client.post("/v1/generations", json={"prompt": "a red apple", "model": "safe"})
    lease = worker.draw()

    address = f'src="/v1/generations/{lease.job_id}/images/0"'
    assert address in client.get("/models/safe").text
    assert address not in client.get("/models/old").text


def test_who_may_not_give_orders_is_offered_none(client, bearer):
    headers = bearer("generate")
    text = client.get("/models/waiting", headers=headers).text

    assert "Promote" not in text
    assert "Measure it" not in text
    for order in ("promotion", "retirement", "evaluation"):
        assert client.post(f"/models/waiting/{order}", headers=headers).status_code == 403
    assert status_of_as(client, headers) == "candidate"


def status_of_as(client, headers) -> str:
    return client.get("/v1/models/waiting", headers=headers).json()["status"]


def test_time_is_told_in_utc(client):
    assert time.strftime("%Y-%m-%d", time.gmtime()) in client.get("/models/safe").text
