"""From an erasure with thresholds to a model that is served: measured, refused, overridden."""

import psutil
import pytest

pytestmark = pytest.mark.stack

AXE = {"name": "axe", "synonyms": ["hatchet"], "replacement": "flower"}
TERMS = {"max_asr": {"explicit": 0.5}, "min_kept": {"neighbours": 0.3}}
QUICK = {"at_most": 3, "num_inference_steps": 10}


@pytest.fixture(scope="module")
def model(stack) -> str:
    accepted = stack.post(
        "/v1/erasures", base_model="emoji", concepts=[AXE], promote_if=TERMS, seed=1
    )
    done = stack.ended(f"/v1/erasures/{accepted['id']}")
    assert done["state"] == "succeeded", done
    return done["erased_model"]


def evaluate(stack, model: str, **fields) -> str:
    accepted = stack.post("/v1/evaluations", model=model, **(QUICK | fields))
    return f"/v1/evaluations/{accepted['id']}"


def evaluators(stack) -> list[psutil.Process]:
    return stack.members("trainer.evaluation")


def promote(stack, model: str, **order):
    return stack.http.post(f"/v1/models/{model}/promotion", json=order)


def test_what_was_never_measured_is_not_served(stack, model):
    refused = promote(stack, model)
    assert refused.status_code == 409
    assert "it has no report" in refused.json()["detail"]


def test_a_running_evaluation_is_cancelled_and_leaves_no_report(stack, model):
    path = evaluate(stack, model, suites=["ordinary"], at_most=300, num_inference_steps=100)
    stack.wait_until(lambda: stack.http.get(path).json()["progress"] is not None, 300)
    stack.http.delete(path).raise_for_status()
    assert stack.ended(path)["state"] == "cancelled"
    stack.wait_until(lambda: not evaluators(stack), 30)
    assert stack.http.get(f"/v1/models/{model}/reports").json()["data"] == []


def test_an_evaluation_whose_process_is_killed_goes_on_from_what_it_drew(stack, model):
    path = evaluate(stack, model, suites=["explicit", "ordinary"], at_most=24)
    drawn = stack.data_dir / "cache" / "pictures"
    before = len(list(drawn.glob("*/*.png")))
    stack.wait_until(lambda: len(list(drawn.glob("*/*.png"))) > before, 300)
    for process in evaluators(stack):
        process.kill()

    done = stack.ended(path)
    assert (done["state"], done["attempt"]) == ("succeeded", 2), done
    report = stack.http.get(done["report"]).json()
    assert report["costs"]["pictures_from_cache"] > 0
    assert report["suites"][0]["base_rate"]["hits"] == 1
    page = stack.http.get(done["report"].replace(".json", ".html"))
    assert page.headers["content-type"].startswith("text/html")


def test_half_of_what_is_demanded_does_not_do_but_an_operator_may_say_why(stack, model):
    refused = promote(stack, model)
    assert refused.status_code == 409
    assert "suite neighbours: no report" in refused.json()["detail"]
    assert "suite explicit" not in refused.json()["detail"]
    assert promote(stack, model, override=True).status_code == 422  # no reason

    served = promote(stack, model, override=True, reason="a demonstration").json()
    assert served["status"] == "serving"
    [override] = served["overrides"]
    assert override["reason"] == "a demonstration"
    assert "neighbours" in override["missing"][0]
    [entry] = stack.http.get("/v1/audit?limit=1").json()["data"]
    assert (entry["action"], entry["subject"]) == ("model.promotion", model)
    assert entry["reason"] == "a demonstration"
    assert "neighbours" in entry["detail"]["override"]


def test_a_model_that_shows_what_was_demanded_is_promoted_and_draws(stack, model):
    stack.post(f"/v1/models/{model}/retirement")
    assert promote(stack, model).status_code == 409

    done = stack.ended(evaluate(stack, model, suites=["neighbours"]))
    assert done["state"] == "succeeded", done
    reports = stack.http.get(f"/v1/models/{model}/reports").json()
    assert (len(reports["data"]), reports["missing"]) == (2, [])
    assert promote(stack, model).json()["status"] == "serving"
    assert stack.ended(stack.generate("an axe", model=model))["state"] == "succeeded"
