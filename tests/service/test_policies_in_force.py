"""Policies as clients and operators meet them."""

import pytest

from tests.service.scenery import APPLE, WEAPONS
from tests.service.test_refusals import assert_refused, assert_untouched

URL = "/v1/generations"


@pytest.fixture
def policy(client):
    """Write the policy of the tenant that needs no key."""

    def write(tenant: str = "local", **fields) -> dict:
        response = client.put(f"/v1/policies/{tenant}", json=fields)
        assert response.status_code == 200, response.text
        return response.json()

    return write


class TestAdministration:
    def test_a_policy_is_written_read_listed_and_removed(self, client, policy):
        written = policy("acme", share=2.0)

        assert client.get("/v1/policies/acme").json() == written
        assert client.get("/v1/policies").json()["data"] == [written]
        assert client.delete("/v1/policies/acme").status_code == 204
        assert_refused(client.get("/v1/policies/acme"), 404)
        assert_refused(client.delete("/v1/policies/acme"), 404)

    def test_everyone_may_read_the_own_one(self, client, policy, bearer):
        policy("acme", share=2.0)
        own = client.get("/v1/policy", headers=bearer("generate"))

        assert own.json()["tenant"] == "acme"
        assert own.json()["policy"]["share"] == 2.0

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
    def test_only_an_admin_changes_them(self, client, bearer, method):
        headers = bearer("generate", "erase")

        assert_refused(client.request(method, "/v1/policies/acme", json={}, headers=headers), 403)

    @pytest.mark.parametrize(
        ("tenant", "body"),
        [("acme", {"modles": []}), ("No%20Name", {}), ("acme", {"prompts": {"presets": ["x"]}})],
    )
    def test_what_cannot_be_is_not_written(self, client, tenant, body):
        assert_refused(client.put(f"/v1/policies/{tenant}", json=body), 422)
        assert client.get("/v1/policies").json()["data"] == []


class TestAdmission:
    def test_a_model_that_is_not_allowed_is_a_403(self, client, policy, queue):
        policy(models=["other-*"])
        response = client.post(URL, json=APPLE)

        assert_refused(response, 403)
        assert response.json()["type"] == "urn:problem:model-not-allowed"
        assert_untouched(queue)

    @pytest.mark.parametrize(
        ("limits", "change", "says"),
        [
            ({"images_per_request": 2}, {"n": 3}, "n: your policy allows at most 2"),
            ({"steps": 10}, {}, "num_inference_steps: your policy allows at most 10"),
            ({"side_px": 32}, {}, "width, height: your policy allows at most 32"),
        ],
    )
    def test_limits_of_a_request(self, client, policy, queue, limits, change, says):
        policy(limits=limits)
        response = client.post(URL, json=APPLE | change)

        assert_refused(response, 422)
        assert response.json()["detail"] == says
        assert_untouched(queue)

    def test_a_screened_prompt_is_refused_with_what_was_found(self, client, policy, queue):
        written = policy(prompts={"presets": ["weapons"]})
        response = client.post(URL, json={"prompt": "a pistol"})

        assert_refused(response, 422)
        problem = response.json()
        assert problem["type"] == "urn:problem:prompt-refused"
        assert problem["finding"] == {
            "stage": "prompt",
            "detector": "words",
            "category": "weapons",
            "policy": written["id"],
        }
        assert_untouched(queue)
        assert client.post(URL, json=APPLE).status_code == 202

    def test_what_was_accepted_before_stays_accepted(self, client, policy):
        headers = {"Idempotency-Key": "k"}
        first = client.post(URL, json={"prompt": "a pistol"}, headers=headers)
        policy(prompts={"presets": ["weapons"]})

        again = client.post(URL, json={"prompt": "a pistol"}, headers=headers)
        assert again.json()["id"] == first.json()["id"]

    def test_open_jobs_of_a_tenant_are_bounded_by_its_policy(self, client, policy):
        policy(limits={"open_jobs": 1})
        assert client.post(URL, json=APPLE).status_code == 202

        assert_refused(client.post(URL, json=APPLE), 429)

    def test_a_larger_share_is_served_more_often(self, client, policy, bearer, worker):
        policy("large", share=3.0)
        policy("small", share=1.0)
        large, small = bearer(tenant="large"), bearer(tenant="small")
        for _ in range(8):
            client.post(URL, json=APPLE, headers=small)
            client.post(URL, json=APPLE, headers=large)

        first = [worker.claim().tenant for _ in range(8)]
        assert first.count("large") == 6

    def test_priority_goes_before_shares(self, client, policy, bearer, worker):
        policy("urgent", priority=0, share=0.1)
        for tenant in ("plain", "urgent"):
            client.post(URL, json=APPLE, headers=bearer(tenant=tenant))

        assert worker.claim().tenant == "urgent"


class TestRates:
    def test_the_allowance_is_told_with_every_answer(self, client, policy):
        policy(limits={"requests_per_minute": 5})

        headers = client.post(URL, json=APPLE).headers
        assert headers["x-ratelimit-limit-requests"] == "5"
        assert headers["x-ratelimit-remaining-requests"] == "4"
        assert headers["RateLimit-Policy"] == '"requests";q=5;w=60'
        assert client.post(URL, json={}).headers["x-ratelimit-remaining-requests"] == "3"
        assert "x-ratelimit-limit-requests" not in client.get(URL).headers

    def test_beyond_it_is_a_429_that_says_when_to_come_back(self, client, policy):
        policy(limits={"requests_per_minute": 2})
        for _ in range(2):
            assert client.post(URL, json=APPLE).status_code == 202

        refused = client.post(URL, json=APPLE)
        assert_refused(refused, 429)
        assert refused.json()["type"] == "urn:problem:rate-limited"
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        assert client.get(URL).status_code == 200
        assert client.post("/v1/erasures", json=WEAPONS).status_code == 429

    def test_tenants_do_not_use_up_each_others(self, client, policy, bearer):
        policy("default", limits={"requests_per_minute": 1})
        one, two = bearer(tenant="one"), bearer(tenant="two")

        assert client.post(URL, json=APPLE, headers=one).status_code == 202
        assert client.post(URL, json=APPLE, headers=one).status_code == 429
        assert client.post(URL, json=APPLE, headers=two).status_code == 202

    def test_without_a_limit_nothing_is_said(self, client):
        headers = client.post(URL, json=APPLE).headers

        assert not [name for name in headers if "ratelimit" in name.lower()]


class TestQuotas:
    def test_pictures_of_a_day_are_counted_as_they_are_accepted(self, client, policy):
        policy(limits={"images_per_day": 5})
        assert client.post(URL, json=APPLE | {"n": 4}).status_code == 202

        refused = client.post(URL, json=APPLE | {"n": 2})
        assert_refused(refused, 429)
        assert refused.json()["type"] == "urn:problem:quota-spent"
        assert 0 < int(refused.headers["Retry-After"]) <= 24 * 3600
        assert client.post(URL, json=APPLE).status_code == 202

    def test_refusals_and_replays_cost_nothing(self, client, policy):
        policy(limits={"images_per_day": 2})
        for _ in range(3):
            client.post(URL, json=APPLE | {"width": 100})
            client.post(URL, json=APPLE, headers={"Idempotency-Key": "once"})

        assert client.post(URL, json=APPLE).status_code == 202
