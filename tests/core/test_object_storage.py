"""Pictures in a bucket, against a real HTTP server that speaks S3."""

import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from moto.server import ThreadedMotoServer

from core.checkup.pictures import check_pictures
from core.errors import ImageNotFound, PicturesUnavailable
from core.installation import open_pictures
from core.settings import Settings


@pytest.fixture(scope="module")
def server():
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(server, request):
    settings = Settings(
        _env_file=None,
        s3_bucket=request.node.name.replace("_", "-")[:60].lower(),
        s3_endpoint_url=server,
        s3_access_key_id="id",
        s3_secret_access_key="secret",
    )
    store = open_pictures(settings)
    store.make()
    return store


def test_what_is_put_is_got(bucket):
    bucket.put("generations/a1/7/0.png", b"picture")

    assert bucket.get("generations/a1/7/0.png") == b"picture"


def test_a_picture_that_is_not_there_is_not_found(bucket):
    with pytest.raises(ImageNotFound):
        bucket.get("generations/a1/7/0.png")


class NoStore(BaseHTTPRequestHandler):
    """A proxy that knows nothing of a store."""

    def do_PUT(self) -> None:
        self.send_error(404)

    def log_message(self, *_) -> None:
        pass


def test_a_proxy_that_knows_no_store_is_an_outage_and_no_missing_picture():
    with HTTPServer(("127.0.0.1", 0), NoStore) as proxy:
        threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True).start()
        settings = Settings(
            _env_file=None,
            s3_bucket="pictures",
            s3_endpoint_url=f"http://127.0.0.1:{proxy.server_port}",
            s3_access_key_id="id",
            s3_secret_access_key="secret",
        )
        with pytest.raises(PicturesUnavailable, match="404"):
            open_pictures(settings).put("generations/a1/7/0.png", b"picture")
        proxy.shutdown()


def test_deleting_takes_all_below_and_nothing_beside(bucket):
    for key in ("generations/a1/7/0.png", "generations/a1/8/0.png", "generations/a12/7/0.png"):
        bucket.put(key, b"x")

    bucket.delete_below("generations/a1")

    assert bucket.get("generations/a12/7/0.png") == b"x"
    with pytest.raises(ImageNotFound):
        bucket.get("generations/a1/8/0.png")


def test_old_generations_are_told_by_their_newest_picture(bucket):
    bucket.put("generations/a1/7/0.png", b"x")
    bucket.put("generations/b2/7/0.png", b"x")

    assert list(bucket.older_than(3600, now=time.time())) == []
    assert sorted(bucket.older_than(3600, now=time.time() + 7200)) == ["a1", "b2"]


def test_a_bucket_is_made_once(bucket):
    assert bucket.make() is False


def test_the_doctor_finds_it_good(bucket):
    assert check_pictures(bucket).state == "ok"


def test_a_bucket_that_is_not_there_is_a_problem_by_name(server):
    settings = Settings(
        _env_file=None,
        s3_bucket="nobody-made-me",
        s3_endpoint_url=server,
        s3_access_key_id="id",
        s3_secret_access_key="secret",
    )

    check = check_pictures(open_pictures(settings))

    assert check.state == "problem"
    assert "nobody-made-me" in check.found


def test_a_store_that_is_away_may_be_tried_again(monkeypatch):
    monkeypatch.setattr("core.object_storage.TRIES", 1)
    settings = Settings(
        _env_file=None,
        s3_bucket="b",
        s3_endpoint_url="http://127.0.0.1:9",
        s3_access_key_id="id",
        s3_secret_access_key="secret",
    )

    with pytest.raises(PicturesUnavailable, match="does not answer") as told:
        open_pictures(settings).put("generations/a1/7/0.png", b"x")
    assert not told.value.refused
