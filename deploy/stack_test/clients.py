"""What clients of the stack under test do, over HTTP."""

import time
from typing import Any

import httpx

from deploy.stack_test.patience import (
    JOB_WITHIN_S,
    READY_WITHIN_S,
    TAKEN_WITHIN_S,
    eventually,
)

PNG = b"\x89PNG"
AWAY = {502, 503}


class Clients:
    def __init__(self, url: str) -> None:
        self.url = url
        self.http = httpx.Client(base_url=url, timeout=30)

    def bring(self, key: str) -> None:
        """From now on requests have this API key."""
        self.http.headers["Authorization"] = f"Bearer {key}"

    def wait_ready(self) -> None:
        eventually(lambda: self.http.get("/readyz").is_success, READY_WITHIN_S, "not ready")

    def missing(self) -> list[str]:
        """What /readyz says is missing; nothing when it is ready."""
        return list(self.http.get("/readyz").json().get("missing", []))

    def post(self, path: str, body: dict[str, Any], **headers: str) -> dict[str, Any]:
        """Tries again while the service is being replaced, with the same idempotency key."""
        headers = {"Idempotency-Key": f"stack-{time.time_ns()}"} | headers
        answers: list[httpx.Response] = []

        def is_taken() -> bool:
            answers.append(self.http.post(path, json=body, headers=headers))
            return answers[-1].status_code not in AWAY

        eventually(is_taken, TAKEN_WITHIN_S, f"POST {path} is not taken")
        return dict(answers[-1].raise_for_status().json())

    def generate(self, model: str, number: int, **fields: object) -> str:
        """Ask for a picture; the address of its generation."""
        body = {"model": model, "prompt": "a red apple", "seed": number} | fields
        return f"/v1/generations/{self.post('/v1/generations', body)['id']}"

    def erase(self, **fields: object) -> str:
        """Ask for an erasure; its address."""
        return f"/v1/erasures/{self.post('/v1/erasures', {'base_model': 'emoji'} | fields)['id']}"

    def ended(self, path: str) -> dict[str, Any]:
        jobs: list[dict[str, Any]] = []

        def has_ended() -> bool:
            jobs.append(self.http.get(path).raise_for_status().json())
            return jobs[-1]["state"] in {"succeeded", "failed", "cancelled"}

        eventually(has_ended, JOB_WITHIN_S, f"{path} does not end")
        return jobs[-1]

    def succeeded(self, path: str) -> dict[str, Any]:
        """Raises RuntimeError: it ended in another way."""
        job = self.ended(path)
        if job["state"] != "succeeded":
            raise RuntimeError(f"{path}: {job}")
        return job

    def picture(self, path: str) -> bytes:
        """The first one of a generation, once it has ended."""
        url = self.succeeded(path)["images"][0]["url"]
        picture = self.http.get(url).raise_for_status().content
        assert picture.startswith(PNG), url
        return picture
