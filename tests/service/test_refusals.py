"""Whatever is sent: a problem document that helps, never a 500, and nothing left behind."""

import pytest

from tests.service.scenery import APPLE

URL = "/v1/generations"
JSON = {"Content-Type": "application/json"}
BODIES = [
    pytest.param(b"", 422, id="empty"),
    pytest.param(b'{"prompt":', 400, id="cut off"),
    pytest.param(b"prompt=apple", 400, id="no JSON"),
    pytest.param(b'{"prompt": "\xff\xfe"}', 400, id="not UTF-8"),
    pytest.param(b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, id="deep lists"),
    pytest.param(b'{"a":' * 30_000 + b"1" + b"}" * 30_000, 400, id="deep objects"),
    pytest.param(b'{"prompt": "x", "prompt": "y"}', 400, id="a name twice"),
    pytest.param(b'{"prompt": "x", "a": {"b": 1, "c": 2, "b": 1}}', 400, id="a name twice within"),
    pytest.param(b"[]", 422, id="a list"),
    pytest.param(b"null", 422, id="null"),
    pytest.param(b'"text"', 422, id="a text"),
    pytest.param(b"{}", 422, id="no prompt"),
    pytest.param(b'{"prompt": "\\ud800"}', 422, id="lone surrogate"),
    pytest.param(b'{"prompt": "x", "\\udfff": 1}', 422, id="lone surrogate as a name"),
    pytest.param(b'{"prompt": "x\\u0000"}', 422, id="NUL"),
    pytest.param(b'{"prompt": "x", "negative_prompt": "\\u0000"}', 422, id="NUL, negative"),
    pytest.param(b'{"prompt": "x", "guidance_scale": NaN}', 422, id="NaN"),
    pytest.param(b'{"prompt": "x", "guidance_scale": Infinity}', 422, id="Infinity"),
    pytest.param(b'{"prompt": "x", "guidance_scale": -1e999}', 422, id="overflow"),
    pytest.param(b'{"prompt": "x", "seed": NaN}', 422, id="NaN for a whole number"),
    pytest.param(b'{"prompt": "x", "seed": 1e300}', 422, id="huge float for a whole number"),
    pytest.param(b'{"prompt": "x", "seed": ' + b"9" * 5000 + b"}", 400, id="a very long number"),
    pytest.param(b'{"prompt": "x", "seed": ' + b"9" * 4000 + b"}", 422, id="a long number"),
    pytest.param(b'{"prompt": "x", "seed": 9223372036854775807}', 422, id="seed 2^63 - 1"),
]
CHANGES = [
    pytest.param({"prompt": ""}, 422, "prompt", id="empty prompt"),
    pytest.param({"prompt": " \n "}, 422, "prompt", id="blank prompt"),
    pytest.param({"prompt": "x" * 1001}, 422, "1000", id="long prompt"),
    pytest.param({"prompt": 5}, 422, "prompt", id="a number as prompt"),
    pytest.param({"prompt": None}, 422, "prompt", id="null prompt"),
    pytest.param({"kind": "erasure"}, 422, "kind", id="another kind"),
    pytest.param({"n": 0}, 422, "n", id="no pictures"),
    pytest.param({"n": "2"}, 422, "n", id="a text for a number"),
    pytest.param({"n": 2.0}, 422, "n", id="a fraction for a whole number"),
    pytest.param({"n": True}, 422, "n", id="true for a number"),
    pytest.param({"guidance_scale": "5"}, 422, "guidance_scale", id="a text for a fraction"),
    pytest.param({"strict": 1}, 422, "strict", id="a number for true"),
    pytest.param({"output_format": "gif"}, 422, "output_format", id="unknown format"),
    pytest.param({"quality": 0}, 422, "quality", id="no quality"),
    pytest.param({"n": 9}, 422, "8", id="too many pictures"),
    pytest.param({"num_inference_steps": 101}, 422, "100", id="too many steps"),
    pytest.param({"guidance_scale": 31}, 422, "30", id="too much guidance"),
    pytest.param({"seed": -1}, 422, "seed", id="negative seed"),
    pytest.param({"seed": 1.5}, 422, "seed", id="half a seed"),
    pytest.param({"widht": 64}, 422, "widht", id="misspelt field"),
    pytest.param({"width": 100}, 422, "the nearest is 96", id="no multiple"),
    pytest.param({"height": 8}, 422, "the nearest is 16", id="too small for the model"),
    pytest.param({"height": 144}, 422, "the nearest is 128", id="too large for the model"),
    pytest.param({"width": 4096}, 422, "2048", id="too large for any model"),
    pytest.param({"model": "none"}, 404, "/v1/models", id="unknown model"),
    pytest.param({"model": "../safe"}, 422, "model", id="a path as model"),
    pytest.param({"model": "waiting"}, 409, "promote", id="a candidate"),
    pytest.param({"model": "old"}, 409, "promote", id="a retired model"),
    pytest.param({"model": "raw"}, 409, "TRCE_SERVE_UNERASED_BASE", id="the base"),
    pytest.param({"model": "forged"}, 409, "signature", id="an untrusted model"),
]


def assert_refused(response, status):
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["instance"] == response.request.url.path
    assert problem["request_id"] == response.headers["X-Request-Id"]
    assert problem["type"].startswith("urn:problem:")
    assert problem["detail"]


def assert_untouched(queue):
    assert queue.counts.queued("generation") == 0
    assert queue.lists.latest("generation") == []


@pytest.mark.parametrize(("body", "status"), BODIES)
def test_a_body_that_cannot_be_read_is_refused(client, queue, body, status):
    assert_refused(client.post(URL, content=body, headers=JSON), status)
    assert_untouched(queue)


@pytest.mark.parametrize(("change", "status", "says"), CHANGES)
def test_a_request_that_cannot_be_right_says_what_would_be(client, queue, change, status, says):
    response = client.post(URL, json=APPLE | change)

    assert_refused(response, status)
    assert says in response.json()["detail"]
    assert_untouched(queue)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "json", ""])
def test_a_body_of_another_type_is_refused(client, queue, kind):
    response = client.post(URL, content=b'{"prompt": "x"}', headers={"Content-Type": kind})

    assert_refused(response, 415)
    assert_untouched(queue)


@pytest.mark.parametrize("key", [pytest.param("x" * 256, id="long"), pytest.param("é", id="é")])
def test_an_idempotency_key_that_cannot_be_kept_is_refused(client, queue, key):
    response = client.post(URL, json=APPLE, headers={"Idempotency-Key": key.encode()})

    assert_refused(response, 422)
    assert "Idempotency-Key" in response.json()["errors"][0]["field"]
    assert_untouched(queue)


def test_the_sent_text_is_not_sent_back(client):
    response = client.post(URL, json={"prompt": "my secret " * 200, "steps": "my secret"})

    assert_refused(response, 422)
    assert "secret" not in response.text


def test_only_so_many_faults_are_listed(client):
    response = client.post(URL, json=APPLE | {f"field{n}": n for n in range(500)})

    assert_refused(response, 422)
    assert len(response.json()["errors"]) == 20
    assert "and 497 more" in response.json()["detail"]


def test_an_unknown_address_is_a_problem(client):
    assert_refused(client.get("/v1/nothing"), 404)


def test_a_wrong_method_is_a_problem_that_says_which_are_right(client):
    response = client.put(URL, json=APPLE)

    assert_refused(response, 405)
    assert set(response.headers["Allow"].split(", ")) <= {"GET", "POST"}


class TestBodyLimit:
    def test_an_announced_length_over_the_limit_is_refused(self, serve):
        client = serve(max_body_bytes=1000)

        assert_refused(client.post(URL, json=APPLE | {"negative_prompt": "x" * 1000}), 413)

    def test_a_stream_that_goes_over_the_limit_is_refused(self, serve):
        client, chunks = serve(max_body_bytes=1000), (b" " * 100 for _ in range(20))

        assert_refused(client.post(URL, content=chunks, headers=JSON), 413)

    def test_a_stream_within_the_limit_is_read(self, client):
        parts = iter([b'{"prompt"', b': "a red', b' apple"}'])

        assert client.post(URL, content=parts, headers=JSON).status_code == 202

    @pytest.mark.parametrize("length", ["x", "-1", "1.5", "9" * 5000, "²"])
    def test_a_length_that_is_no_length_is_refused(self, client, length):
        headers = JSON | {"Content-Length": length.encode()}

        response = client.post(URL, content=b"{}", headers=headers)

        assert response.status_code in {400, 413}
        assert_refused(response, response.status_code)


class TestBounds:
    def test_a_full_queue_is_a_503_that_says_when_to_come_back(self, serve):
        client = serve(max_queued_generations=2)
        for _ in range(2):
            client.post(URL, json=APPLE)

        response = client.post(URL, json=APPLE)

        assert_refused(response, 503)
        assert response.json()["type"] == "urn:problem:queue-full"
        assert int(response.headers["Retry-After"]) > 0

    def test_one_tenant_with_too_many_jobs_is_a_429(self, serve):
        client = serve(max_open_jobs_per_tenant=2)
        for _ in range(2):
            client.post(URL, json=APPLE)

        response = client.post(URL, json=APPLE)

        assert_refused(response, 429)
        assert response.json()["type"] == "urn:problem:tenant-queue-full"
        assert int(response.headers["Retry-After"]) > 0
