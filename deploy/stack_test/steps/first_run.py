"""The first run: README's commands, from the first to the one that asks whether it is ready."""

import json
import time
from typing import Any

from deploy.stack_test.patience import READY_WITHIN_S, eventually
from deploy.stack_test.stack import OUT, Stack

OURS = ("redis", "service", "inference", "trainer")


def come_up(stack: Stack) -> dict[str, Any]:
    """Without a model that is served it is alive and healthy, and says what it lacks."""
    began = time.monotonic()
    stack.readme("up -d --build")
    stack.wait_healthy(*OURS)
    lacks = ["no model is served; import or promote one"]
    eventually(lambda: stack.clients.missing() == lacks, READY_WITHIN_S, "it lacks something else")
    return {"seconds": round(time.monotonic() - began, 1), "readyz": lacks}


def tell_what_was_set_up(stack: Stack) -> dict[str, Any]:
    said = stack.readme("logs setup")
    lines = [line.partition("| ")[2].strip() for line in said.splitlines() if "| " in line]
    for words in (
        "signing key: there",
        "redis persistence: append-only",
        "models: none is served",
    ):
        assert any(words in line for line in lines), (words, lines)
    return {"said": lines}


def stay_closed_without_a_key(stack: Stack) -> dict[str, Any]:
    answer = stack.clients.http.post("/v1/generations", json={"prompt": "a red apple"})
    assert answer.status_code == 401, answer.text
    stack.readme("trce keys create")
    key = stack.env["TRCE_API_KEY"]
    assert key.startswith("trce_"), "README's command exports no key"
    stack.clients.bring(key)
    return {"without_key": answer.status_code}


def be_hardened(stack: Stack) -> dict[str, Any]:
    found = {}
    for service in OURS:
        host = stack.state(stack.containers(service)[0])["HostConfig"]
        assert host["ReadonlyRootfs"], service
        assert host["Init"], service
        assert host["CapDrop"] == ["ALL"], service
        assert host["Memory"] > 0, service
        assert host["PidsLimit"] > 0, service
        user = stack.compose("exec", "-T", service, "id", "-u").stdout.strip()
        assert user != "0", service
        found[service] = {"uid": int(user), "memory_mb": host["Memory"] >> 20}
    return found


def keep_the_signing_key_from_who_draws(stack: Stack) -> dict[str, Any]:
    """Who takes over an inference worker can neither sign a model nor have a key trusted."""
    read = ["cat", "/data/keys/signing.pem"]
    assert stack.compose("exec", "-T", "trainer", *read).stdout.startswith("-----BEGIN")
    refused = {}
    for words in (
        read,
        ["touch", "/data/keys/trusted/mine.pem"],
        ["touch", "/data/keys/signing.pem"],
        ["ls", "/data/making"],
        ["ls", "/data/checkpoints"],
    ):
        done = stack.compose("exec", "-T", "inference", *words, check=False)
        assert done.returncode != 0, words
        refused[" ".join(words)] = done.stderr.strip().splitlines()[-1]
    return {"refused": refused}


def serve_no_base(stack: Stack) -> dict[str, Any]:
    body = {"model": "emoji", "prompt": "a sharp dagger"}
    answer = stack.clients.http.post("/v1/generations", json=body)
    assert answer.status_code == 409, answer.text
    return {"status": answer.status_code, "detail": answer.json()["detail"]}


def erase_and_promote(stack: Stack) -> dict[str, Any]:
    began = time.monotonic()
    stack.model = stack.readme("trce erase weapons --promote --default").strip()
    seconds = round(time.monotonic() - began, 1)
    model = stack.clients.http.get(f"/v1/models/{stack.model}").raise_for_status().json()
    assert model["status"] == "serving", model
    return {"seconds": seconds, "model": stack.model}


def be_ready(stack: Stack) -> dict[str, Any]:
    said = stack.readme("/readyz")
    assert json.loads(said) == {"status": "ready", "refused_models": [], "warnings": []}, said
    assert stack.clients.http.get("/readyz").status_code == 200
    return {"said": said.strip()}


def draw_by_default(stack: Stack) -> dict[str, Any]:
    """README's request names no model."""
    drawn = json.loads(stack.readme("/v1/generations"))
    assert drawn["state"] == "succeeded", drawn
    assert drawn["model"] == stack.model, drawn
    return {"model": drawn["model"]}


def draw(stack: Stack) -> dict[str, Any]:
    began = time.monotonic()
    picture = stack.clients.picture(stack.clients.generate(stack.model, 7))
    seconds = round(time.monotonic() - began, 2)
    weapon = stack.clients.generate(stack.model, 7, prompt="a sharp dagger")
    (OUT / "apple.png").write_bytes(picture)
    (OUT / "erased.png").write_bytes(stack.clients.picture(weapon))
    return {"seconds": seconds, "bytes": len(picture)}
