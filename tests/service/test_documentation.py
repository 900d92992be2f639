"""The OpenAPI document and docs/api.md say what the service does."""

import re
from pathlib import Path

import pytest
from openapi_spec_validator import validate
from openapi_spec_validator.validation.exceptions import OpenAPIValidationError

from core import errors
from core.specs import ErasureSpec
from service.door import OPEN_TO_ALL
from service.problems import STATUS
from tests.service.scenery import WEAPONS

API = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


@pytest.fixture
def document(client):
    return client.get("/openapi.json").json()


@pytest.fixture
def operations(document):
    return [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def test_every_operation_has_an_id_a_tag_and_problems(operations):
    ids = [operation["operationId"] for _, _, operation in operations]

    assert len(set(ids)) == len(ids)
    for path, _, operation in operations:
        assert operation["tags"], path
        refused = {s: r for s, r in operation["responses"].items() if s >= "400"}
        assert "500" in refused
        for response in refused.values():
            assert list(response["content"]) == ["application/problem+json"]


def test_what_needs_a_key_says_so_and_what_takes_a_body_may_time_out(operations):
    for path, _, operation in operations:
        open_to_all = path in OPEN_TO_ALL
        assert ("security" in operation) is not open_to_all, path
        assert ({"401", "403", "503"} <= set(operation["responses"])) is not open_to_all, path
        assert ("408" in operation["responses"]) is ("requestBody" in operation), path


def test_no_schema_is_named_that_is_not_there(document):
    named = {part.split('"')[0] for part in str(document).replace("'", '"').split("schemas/")[1:]}

    assert named <= set(document["components"]["schemas"])
    assert "Problem" in named
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_the_examples_are_valid(document, client, serve):
    served = serve(serve_unerased_base=True, default_model="raw")
    for path in ("/v1/generations", "/v1/erasures"):
        body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        for example in body["examples"].values():
            assert served.post(path, json=example["value"]).status_code == 202


def test_every_route_is_in_the_guide_with_a_curl_line(operations):
    for path, method, _ in operations:
        assert f"`{method.upper()} {path}`" in API
    assert API.count("curl ") >= len(operations)


def test_every_problem_that_has_a_status_is_in_the_guide():
    for kind, status in STATUS.items():
        assert f"| {status} | `{kind.__name__}`" in API, kind


def test_the_documented_erasure_is_a_real_one():
    assert ErasureSpec(**WEAPONS).preset in API
    assert issubclass(errors.KeyReused, errors.Conflict)


def test_the_document_is_valid(document):
    validate(document)
    with pytest.raises(OpenAPIValidationError):
        validate(document | {"paths": {"no-slash": 3}})


def test_every_body_has_an_example(operations):
    for path, _, operation in operations:
        for media_type, body in operation.get("requestBody", {}).get("content", {}).items():
            if media_type == "application/json":
                assert body.get("examples"), path


def test_every_link_leads_to_an_operation_that_takes_what_it_gives(operations):
    taken = {
        operation["operationId"]: {one["name"] for one in operation.get("parameters", [])}
        for _, _, operation in operations
    }
    found = [
        link
        for _, _, operation in operations
        for response in operation["responses"].values()
        for link in response.get("links", {}).values()
    ]

    assert len(found) >= 12
    for link in found:
        assert set(link["parameters"]) <= taken[link["operationId"]]


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_the_pages_need_nothing_from_elsewhere(client, page):
    shown = client.get(page)

    assert shown.status_code == 200
    assert "https://" not in shown.text
    assert "unsafe-inline" not in shown.headers["Content-Security-Policy"].split("style-src")[0]
    files = re.findall(r'(?:src|href|spec-url)="([^"]+)"', shown.text)
    assert files
    for file in files:
        assert client.get(file).status_code == 200


def test_a_method_that_is_not_taken_is_told_all_those_that_are(client):
    refused = client.patch("/v1/policies/acme")

    assert refused.status_code == 405
    assert refused.headers["Allow"] == "DELETE, GET, PUT"
