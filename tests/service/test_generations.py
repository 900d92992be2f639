import threading
import time

import pytest

from core.progress import Progress
from tests.service.scenery import APPLE, PNG, eventually

URL = "/v1/generations"
KEY = {"Idempotency-Key": "a key of mine"}


class TestAsking:
    def test_the_answer_says_where_to_poll_and_when(self, client):
        response = client.post(URL, json=APPLE)

        assert response.status_code == 202
        assert response.headers["Location"] == f"{URL}/{response.json()['id']}"
        assert int(response.headers["Retry-After"]) > 0
        assert response.json()["state"] == "queued"

    def test_what_the_client_left_open_is_decided_and_shown(self, client):
        request = client.post(URL, json=APPLE).json()["request"]

        assert request["model"] == "safe"
        assert (request["width"], request["height"]) == (64, 64)
        assert 0 <= request["seed"] < 2**32

    def test_what_the_client_chose_stays(self, client):
        chosen = APPLE | {"seed": 2**53, "width": 128, "height": 16, "n": 3, "model": "safe"}

        request = client.post(URL, json=chosen).json()["request"]

        assert chosen.items() <= request.items()

    def test_two_requests_get_two_seeds(self, client):
        seeds = {client.post(URL, json=APPLE).json()["request"]["seed"] for _ in range(3)}

        assert len(seeds) == 3

    def test_an_accepted_one_can_be_claimed_as_it_was_shown(self, client, worker, generation):
        lease = worker.claim()

        assert lease.job_id == generation["id"]
        assert lease.spec.model_dump(mode="json") == generation["request"]

    def test_a_base_model_is_served_where_the_operator_says_so(self, serve):
        client = serve(serve_unerased_base=True)

        assert client.post(URL, json=APPLE | {"model": "raw"}).status_code == 202


class TestIdempotency:
    def test_a_retry_gets_the_same_job(self, client, queue):
        first = client.post(URL, json=APPLE, headers=KEY)
        again = client.post(URL, json=APPLE, headers=KEY)

        assert again.status_code == 202
        assert again.json() == first.json()
        assert queue.counts.queued("generation") == 1

    def test_the_same_request_spelt_otherwise_is_the_same(self, client):
        first = client.post(URL, json=APPLE, headers=KEY)
        again = client.post(URL, json={"n": 1} | APPLE, headers=KEY)

        assert again.json()["id"] == first.json()["id"]

    def test_another_payload_under_the_key_is_refused(self, client, queue):
        client.post(URL, json=APPLE, headers=KEY)

        response = client.post(URL, json={"prompt": "a pear"}, headers=KEY)

        assert response.status_code == 422
        assert response.json()["type"] == "urn:problem:key-reused"
        assert queue.counts.queued("generation") == 1

    def test_a_retry_finds_its_job_though_the_model_has_been_retired(self, client):
        first = client.post(URL, json=APPLE, headers=KEY)
        client.post("/v1/models/safe/retirement")

        again = client.post(URL, json=APPLE, headers=KEY)

        assert again.json()["id"] == first.json()["id"]

    def test_a_key_of_generations_means_nothing_to_erasures(self, client):
        client.post(URL, json=APPLE, headers=KEY)
        erasure = {"base_model": "raw", "preset": "weapons"}

        assert client.post("/v1/erasures", json=erasure, headers=KEY).status_code == 202

    def test_many_retries_at_once_make_one_job(self, client, queue):
        ids = []

        def post():
            ids.append(client.post(URL, json=APPLE, headers=KEY).json()["id"])

        threads = [threading.Thread(target=post) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(set(ids)) == 1
        assert queue.counts.queued("generation") == 1


class TestWaiting:
    def test_a_finished_one_is_answered_at_once_with_200(self, client, worker):
        def draw():
            eventually(lambda: worker.jobs.counts.queued("generation"))
            worker.draw()

        drawing = threading.Thread(target=draw)
        drawing.start()
        response = client.post(URL, json=APPLE, headers={"Prefer": "wait=20"})
        drawing.join()

        assert response.status_code == 200
        assert response.json()["state"] == "succeeded"
        assert response.headers["Preference-Applied"] == "wait=20"
        assert "Retry-After" not in response.headers

    def test_one_that_takes_longer_is_answered_with_202(self, client):
        began = time.monotonic()

        response = client.post(URL, json=APPLE, headers={"Prefer": "wait=1"})

        assert response.status_code == 202
        assert response.json()["state"] == "queued"
        assert 1 <= time.monotonic() - began < 5

    def test_nobody_waits_for_a_process_that_was_told_to_stop(self, client, parts):
        threading.Timer(0.2, parts.closing.set).start()

        response = client.post(URL, json=APPLE, headers={"Prefer": "wait=60"})

        assert response.status_code == 202


class TestReading:
    def test_a_running_one_shows_how_far_it_is(self, client, worker, generation):
        lease = worker.claim()
        worker.jobs.leasing.report(lease, Progress(stage="denoise", done=3, total=20))

        read = client.get(f"{URL}/{generation['id']}").json()

        assert read["state"] == "running"
        assert read["attempt"] == 1
        assert read["started_at"] >= read["created_at"]
        progress = Progress(stage="denoise", done=3, total=20)
        assert read["progress"] == progress.model_dump()

    def test_a_waiting_one_shows_how_many_go_before_it(self, client, worker):
        ids = [client.post(URL, json=APPLE).json()["id"] for _ in range(3)]

        assert [client.get(f"{URL}/{one}").json()["ahead"] for one in ids] == [0, 1, 2]
        worker.claim()
        assert [client.get(f"{URL}/{one}").json()["ahead"] for one in ids] == [None, 0, 1]

    def test_a_failed_one_says_why(self, client, worker, generation):
        worker.jobs.leasing.fail(worker.claim(), "the model draws no apples")

        read = client.get(f"{URL}/{generation['id']}").json()

        assert read["state"] == "failed"
        assert read["reason"] == "the model draws no apples"
        assert read["finished_at"] >= read["started_at"]

    @pytest.mark.parametrize(
        "name",
        [
            pytest.param("0" * 32, id="unknown"),
            pytest.param("1", id="too short"),
            pytest.param("F" * 32, id="upper case"),
            pytest.param("%00", id="NUL"),
            pytest.param("%ED%A0%80", id="surrogate"),
            pytest.param("a" * 2000, id="long"),
            pytest.param("*", id="pattern"),
        ],
    )
    def test_an_unknown_id_is_not_found(self, client, name):
        for response in (client.get(f"{URL}/{name}"), client.delete(f"{URL}/{name}")):
            assert response.status_code == 404
            assert response.json()["type"] == "urn:problem:job-not-found"

    def test_an_erasure_is_no_generation(self, client):
        erasure = client.post("/v1/erasures", json={"base_model": "raw", "preset": "weapons"})

        url = f"{URL}/{erasure.json()['id']}"

        assert client.get(url).status_code == 404
        assert client.delete(url).status_code == 404
        assert client.get(erasure.headers["Location"]).json()["state"] == "queued"


class TestListing:
    def test_pages_together_hold_everything_once_newest_first(self, client):
        ids = [client.post(URL, json=APPLE).json()["id"] for _ in range(5)]

        pages, after = [], None
        while True:
            page = client.get(URL, params={"limit": 2} | ({"after": after} if after else {}))
            pages.append([one["id"] for one in page.json()["data"]])
            after = page.json()["last_id"]
            if not page.json()["has_more"]:
                break

        assert list(map(len, pages)) == [2, 2, 1]
        assert sorted(one for page in pages for one in page) == sorted(ids)

    def test_an_empty_list_is_a_list(self, client):
        assert client.get(URL).json() == {
            "object": "list",
            "data": [],
            "first_id": None,
            "last_id": None,
            "has_more": False,
        }

    @pytest.mark.parametrize("limit", ["0", "101", "-1", "x", "9" * 5000])
    def test_a_limit_out_of_bounds_is_refused(self, client, limit):
        response = client.get(URL, params={"limit": limit})

        assert response.status_code == 422
        assert response.json()["errors"][0]["field"] == "limit"

    def test_an_unknown_cursor_is_not_found(self, client):
        assert client.get(URL, params={"after": "0" * 32}).status_code == 404
        assert client.get(URL, params={"after": "\x00"}).status_code == 404


class TestCancelling:
    def test_a_queued_one_ends_at_once(self, client, queue, generation):
        response = client.delete(f"{URL}/{generation['id']}")

        assert response.status_code == 200
        assert response.json()["state"] == "cancelled"
        assert queue.counts.queued("generation") == 0

    def test_a_running_one_is_told(self, client, worker, generation):
        lease = worker.claim()

        response = client.delete(f"{URL}/{generation['id']}")

        assert response.json()["state"] == "running"
        assert response.json()["cancelling"]
        assert worker.jobs.leasing.beat([(lease.job_id, lease.token)], lease_s=9) == {
            lease.job_id: "cancelled"
        }

    def test_a_request_can_be_repeated(self, client, generation):
        url = f"{URL}/{generation['id']}"

        first, again = client.delete(url), client.delete(url)

        assert again.status_code == 200
        assert again.json() == first.json()
        assert again.json()["state"] == "cancelled"

    def test_one_that_has_ended_stays_as_it_is(self, client, worker, generation):
        worker.draw()

        response = client.delete(f"{URL}/{generation['id']}")

        assert response.status_code == 409
        assert response.json()["type"] == "urn:problem:job-ended"
        assert client.get(f"{URL}/{generation['id']}").json()["state"] == "succeeded"


class TestPictures:
    def test_each_picture_has_an_address_and_a_seed(self, client, worker):
        made = client.post(URL, json=APPLE | {"n": 2, "seed": 7}).json()
        lease = worker.draw(slots=2)

        images = client.get(f"{URL}/{lease.job_id}").json()["images"]

        assert [image["seed"] for image in images] == [7, 8]
        assert [image["finish_reason"] for image in images] == ["stop", "stop"]
        for index, image in enumerate(images):
            picture = client.get(image["url"])
            assert picture.content == PNG + str(index).encode()
            assert picture.headers["Content-Type"] == "image/png"
            assert "immutable" in picture.headers["Cache-Control"]
        assert made["id"] == lease.job_id

    def test_a_picture_that_the_client_has_is_not_sent_again(self, client, worker, generation):
        worker.draw()
        url = f"{URL}/{generation['id']}/images/0"
        etag = client.get(url).headers["ETag"]

        again = client.get(url, headers={"If-None-Match": f'"other", W/{etag}'})

        assert again.status_code == 304
        assert again.content == b""
        assert client.get(url, headers={"If-None-Match": '"other"'}).status_code == 200

    @pytest.mark.parametrize(
        ("index", "status"),
        [
            pytest.param("1", 404, id="one too far"),
            pytest.param("-1", 404, id="negative"),
            pytest.param("9" * 30, 404, id="huge"),
            pytest.param("x", 422, id="no number"),
        ],
    )
    def test_there_is_no_other_picture(self, client, worker, generation, index, status):
        worker.draw()

        assert client.get(f"{URL}/{generation['id']}/images/{index}").status_code == status

    def test_a_picture_that_is_not_drawn_yet_is_a_conflict(self, client, worker, generation):
        url = f"{URL}/{generation['id']}/images/0"

        assert client.get(url).status_code == 409
        worker.claim()
        response = client.get(url)
        assert response.status_code == 409
        assert response.json()["type"] == "urn:problem:image-not-ready"
        assert response.headers["Retry-After"] == "1"

    def test_a_failed_one_has_no_pictures(self, client, worker, generation):
        worker.jobs.leasing.fail(worker.claim(), "no")

        assert client.get(f"{URL}/{generation['id']}/images/0").status_code == 404

    def test_a_picture_that_was_deleted_is_not_found(self, client, parts, worker, generation):
        worker.draw()
        parts.storage.delete_below(f"generations/{generation['id']}")

        assert client.get(f"{URL}/{generation['id']}/images/0").status_code == 404


class TestDeadlines:
    def test_one_with_a_deadline_says_when_it_is_given_up(self, client, queue):
        accepted = client.post(URL, json=APPLE | {"deadline_s": 30}).json()

        assert accepted["deadline"] == pytest.approx(accepted["created_at"] + 30, abs=0.01)
        assert not accepted["late"]
        assert "deadline_s" not in accepted["request"]
        assert client.post(URL, json=APPLE).json()["deadline"] is None

    def test_one_that_was_not_begun_by_then_has_failed_and_says_why(self, client, worker):
        made = client.post(URL, json=APPLE | {"deadline_s": 1}).json()
        path = f"{URL}/{made['id']}"

        # The service's own sweeper sees to it: there is no worker.
        eventually(lambda: client.get(path).json()["state"] == "failed")

        failed = client.get(path).json()
        assert failed["late"]
        assert failed["reason"] == "its deadline passed before it was begun"
        assert failed["images"][0]["finish_reason"] == "error"
        assert failed["finished_at"] - failed["deadline"] < 2

    @pytest.mark.parametrize("deadline", [0, -1, 0.5, "30", True, 1e9, None])
    def test_a_deadline_out_of_bounds_is_refused(self, client, deadline):
        response = client.post(URL, json=APPLE | {"deadline_s": deadline})

        assert response.status_code == (202 if deadline is None else 422)

    def test_another_deadline_is_another_payload(self, client):
        client.post(URL, json=APPLE | {"deadline_s": 30}, headers=KEY)

        assert client.post(URL, json=APPLE, headers=KEY).status_code == 422

    @pytest.mark.parametrize(
        ("address", "body"),
        [
            ("/v1/erasures", {"base_model": "raw", "preset": "weapons"}),
            (
                "/v1/evaluations",
                {"model": "safe", "prompt_files": ["i2p.csv"], "detector": {"name": "nudenet"}},
            ),
        ],
    )
    def test_long_jobs_have_deadlines_too(self, client, address, body):
        accepted = client.post(address, json=body | {"deadline_s": 3600}).json()

        assert accepted["deadline"] > accepted["created_at"]


class TestExpiry:
    def test_one_that_is_forgotten_is_gone_and_one_that_never_was_is_not_found(self, serve):
        client = serve(keep_generations_s=0.05)
        path = client.post(URL, json=APPLE).headers["Location"]
        client.delete(path)
        eventually(lambda: client.get(path).status_code != 200)

        for response in (
            client.get(path),
            client.delete(path),
            client.get(f"{path}/images/0"),
            client.get(f"{path}/events"),
        ):
            assert response.status_code == 410
            assert response.json()["type"] == "urn:problem:job-expired"
        assert client.get(f"{URL}/{'0' * 32}").status_code == 404
        assert client.get(path.replace("generations", "erasures")).status_code == 404

    def test_an_id_is_known_to_whoever_serves(self, serve):
        first, second = serve(keep_generations_s=0.05), serve()
        path = first.post(URL, json=APPLE).headers["Location"]
        first.delete(path)

        eventually(lambda: second.get(path).status_code == 410)
