"""A stack with keys and policies: who is let in, what is withheld, what stands in the logs."""

import json
import os
import subprocess
import sys

import httpx
import pytest

pytestmark = pytest.mark.stack

MARK = "zebrafinch"
"""Part of every request, and of no log."""
URL = "/v1/generations"


@pytest.fixture(scope="module")
def trce(stack):
    """The command, on the stack's installation."""

    def run(*words: str, key: str = "") -> str:
        env = os.environ | {"TRCE_API_KEY": key, "TRCE_DATA_DIR": str(stack.data_dir)}
        env.pop("REDIS_URL", None)
        command = [sys.executable, "-m", "cli.main", *words]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


@pytest.fixture(scope="module")
def admin(stack, trce) -> str:
    """The first key: from here on nobody is let in without one."""
    return trce("keys", "create", "--scope", "admin", "--label", "tests")


@pytest.fixture(scope="module")
def client(stack, trce, admin):
    """A client of the tenant acme, whose policy wants no weapons to be seen."""
    policy = stack.data_dir.parent / "acme.yaml"
    policy.write_text("detectors: [{detector: classifier, thresholds: {weapon: 0.5}}]\n")
    trce("policies", "set", "acme", str(policy), "--url", stack.url, key=admin)
    key = trce("keys", "create", "--scope", "generate", "--tenant", "acme")
    with httpx.Client(
        base_url=stack.url, headers={"Authorization": f"Bearer {key}"}, timeout=60
    ) as client:
        yield client


@pytest.fixture(scope="module")
def drawn(client):
    """What became of a weapon and of an apple; the weapon's request had an id."""
    fields = {"model": "emoji", "seed": 3, "n": 2, "negative_prompt": MARK}
    headers = {"Prefer": "wait=60", "X-Request-Id": "trace-of-a-pistol"}
    return [
        client.post(URL, json=fields | {"prompt": prompt}, headers=headers).json()
        for prompt in ("a pistol", "a red apple")
    ]


def test_strangers_stay_outside(stack, client):
    assert httpx.get(stack.url + URL).status_code == 401
    assert client.get(URL).status_code == 200
    assert client.get("/v1/audit").status_code == 403


def test_weapons_are_withheld_and_apples_are_seen(drawn):
    pistol, apple = drawn

    assert pistol["state"] == apple["state"] == "succeeded"
    assert "content_filtered" in {image["finish_reason"] for image in pistol["images"]}
    assert [image["finish_reason"] for image in apple["images"]] == ["stop", "stop"]
    withheld = next(image for image in pistol["images"] if image["url"] is None)
    assert withheld["finding"]["category"] == "weapon"
    assert withheld["finding"]["policy"].startswith("acme@")


def test_a_picture_is_traced_to_its_model(client, drawn):
    picture = client.get(drawn[1]["images"][0]["url"])
    answer = client.post(
        "/v1/verify", content=picture.content, headers={"Content-Type": "image/png"}
    ).json()

    assert answer["verdict"] == "intact"
    assert (answer["origin"]["model"], answer["origin"]["seed"]) == ("emoji", 3)
    assert answer["origin"]["generation"] == drawn[1]["id"]


def test_the_command_traces_a_picture_too(stack, trce, client, drawn, admin):
    file = stack.data_dir.parent / "apple.png"
    file.write_bytes(client.get(drawn[1]["images"][0]["url"]).content)

    said = trce("verify", str(file), "--url", stack.url, key=admin)
    assert said.startswith("intact: ")
    assert "model emoji" in said


def test_the_operators_deeds_are_on_record(stack, trce, admin, client):
    trail = json.loads(trce("audit", "--json", "--url", stack.url, key=admin))

    assert trail["broken_at"] is None
    assert [entry["action"] for entry in trail["entries"]] == [
        "key.created",
        "policy.written",
        "key.created",
    ]


def test_a_request_can_be_followed_into_the_workers_log_and_nothing_secret_is_there(
    stack, drawn, admin, client
):
    logs = {path.stem: path.read_text() for path in stack.data_dir.glob("logs/*.log")}
    workers = "".join(text for name, text in logs.items() if name.startswith("inference"))

    assert "trace-of-a-pistol" in logs["service"]
    assert "trace-of-a-pistol" in workers
    keys = [admin, client.headers["Authorization"].removeprefix("Bearer ")]
    for name, text in logs.items():
        assert text or name == "broker"
        for secret in (MARK, *(key.split("_", 2)[2] for key in keys)):
            assert secret not in text, name
