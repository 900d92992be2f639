"""Pictures and models in a bucket: real processes against a real HTTP server that speaks S3.

What the trainer of one host made, the worker of another fetches and draws with; that one has
nothing of its own but the keys that docs/operations.md says it needs.
"""

import contextlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer
from PIL import Image

from cli.stack.broker import broker_url
from core.redis_connection import connect
from core.workers import WorkerRoll
from tests.live_stack import Stack

pytestmark = pytest.mark.stack

BUCKET = "trce"
KEYS = ("trusted", "pictures")
PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def store() -> Iterator[dict[str, str]]:
    """The settings of a store that is empty, without even the bucket."""
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield {
        "TRCE_S3_ENDPOINT_URL": f"http://{host}:{port}",
        "TRCE_S3_BUCKET": BUCKET,
        "TRCE_S3_ACCESS_KEY_ID": "id",
        "TRCE_S3_SECRET_ACCESS_KEY": "secret",
        "TRCE_S3_MODELS": "true",
    }
    running.stop()


@pytest.fixture(scope="module")
def stack(store) -> Iterator[Stack]:
    """The first host."""
    with tempfile.TemporaryDirectory(prefix="trce-") as folder:
        running = Stack(Path(folder) / "data", "--inference-workers", "1", **store)
        running.start()
        yield running
        running.interrupt()
        running.http.close()


@pytest.fixture(scope="module")
def model(stack) -> str:
    """Erased by its trainer, promoted by its service."""
    erasure = stack.ended(stack.erase_axes())
    assert erasure["state"] == "succeeded", erasure
    stack.post(f"/v1/models/{erasure['erased_model']}/promotion")
    return erasure["erased_model"]


@pytest.fixture(scope="module")
def drawn_here(stack, model) -> dict:
    """By the first host, before there is another."""
    return stack.ended(stack.generate(model=model, seed=7, strict=True))


def keys_below(store: dict[str, str], prefix: str) -> set[str]:
    client = boto3.client(
        "s3",
        endpoint_url=store["TRCE_S3_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id="id",
        aws_secret_access_key="secret",
    )
    found = client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
    client.close()
    return {one["Key"] for one in found}


def pixels(stack: Stack, job: dict) -> bytes:
    picture = stack.http.get(job["images"][0]["url"]).raise_for_status().content
    with Image.open(io.BytesIO(picture)) as image:
        return image.tobytes()


def pictures_of(path: str, store: dict[str, str]) -> set[str]:
    return keys_below(store, f"generations/{path.rsplit('/', 1)[1]}/")


@contextlib.contextmanager
def asleep(stack: Stack) -> Iterator[None]:
    """The inference worker of the first host stands still, with all its processes."""
    (worker,) = stack.members("worker inference")
    family = [worker, *worker.children(recursive=True)]
    for process in family:
        process.suspend()
    try:
        yield
    finally:
        for process in family:
            process.resume()


@pytest.fixture
def other_host(stack, drawn_here, store, beating) -> Iterator[Path]:
    """Its data folder; its worker beats."""
    with tempfile.TemporaryDirectory(prefix="trce-") as folder:
        data = Path(folder) / "data"
        for name in KEYS:
            shutil.copytree(stack.data_dir / "keys" / name, data / "keys" / name)
        env = (
            os.environ
            | store
            | {
                "REDIS_URL": broker_url(stack.data_dir / "broker"),
                "TRCE_DATA_DIR": str(data),
                "TRCE_DEVICE": "cpu",
                "TRCE_LEASE_S": "5",
                "OMP_NUM_THREADS": "1",
            }
        )
        with (Path(folder) / "log").open("wb") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "worker", "inference", "--name", "7"],
                env=env,
                stdout=log,
                stderr=log,
            )
        try:
            stack.wait_until(lambda: "inference-7" in beating(), 120)
            yield data
        finally:
            worker.terminate()
            worker.wait(60)


@pytest.fixture
def beating(stack) -> Iterator[Callable[[], set[str]]]:
    """Names the inference workers that beat, without their hosts."""
    with connect(broker_url(stack.data_dir / "broker")) as client:
        roll = WorkerRoll(client)
        yield lambda: {name.split("@")[0] for name in roll.present("inference", within_s=5)}


def test_pictures_are_in_the_bucket_and_nowhere_else(stack, store):
    path = stack.generate(n=2)
    job = stack.ended(path)

    assert job["state"] == "succeeded", job
    assert len(pictures_of(path, store)) == 2
    for image in job["images"]:
        assert stack.http.get(image["url"]).content.startswith(PNG)
    assert not [one for one in (stack.data_dir / "images").rglob("*") if one.is_file()]


def test_a_model_is_in_the_bucket_when_its_erasure_has_ended(stack, store, model):
    assert f"models/{model}/manifest.json" in keys_below(store, "models/")
    assert keys_below(store, "files/")


def test_another_host_fetches_it_and_draws_the_same_picture(
    stack, store, model, drawn_here, other_host
):
    assert not (other_host / "models" / model).exists()

    with asleep(stack):
        path = stack.generate(model=model, seed=7, strict=True)
        theirs = stack.ended(path)

    assert theirs["state"] == "succeeded", theirs
    assert (other_host / "models" / model / "manifest.json").is_file()
    assert not (other_host / "keys" / "signing.pem").exists()
    assert len(pictures_of(path, store)) == 1
    assert pixels(stack, drawn_here) == pixels(stack, theirs)


def test_a_store_that_does_not_answer_is_found_at_the_start(store):
    with tempfile.TemporaryDirectory(prefix="trce-") as folder:
        gone = store | {"TRCE_S3_ENDPOINT_URL": "http://127.0.0.1:1"}
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", "up", "--data-dir", f"{folder}/data"],
            env=os.environ | gone | {"TRCE_PORT": "0"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    assert done.returncode == 2, done.stderr
    assert "picture store: the bucket trce does not answer" in done.stderr
    assert "TRCE_S3_" in done.stderr
