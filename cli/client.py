"""Speaks to a running service over HTTP, in its native API."""

import json
import os
import re
import time
import uuid
from collections.abc import Callable
from typing import Any, Self

import httpx

from core.errors import AppError, Misconfigured
from core.evaluation import EvaluationSpec
from core.specs import ErasureSpec, GenerationSpec

POLL_S = 0.15
PATIENCE_S = 60.0
"""How long the service may be busy, or away while it is restarted, before a client gives up."""
STRANGERS_PATIENCE_S = 10.0
"""How long it may be away where nothing has answered yet: perhaps nothing was ever started."""
RETRY_S = 0.5
IN_A_KEY = re.compile(r"[!-~]+")
BUSY = {httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE}

Resource = dict[str, Any]


class ServiceRefused(AppError):
    """The service answered with a problem; the message is its detail."""


class ScopeLacking(ServiceRefused):
    """The key's scopes do not allow what was asked for."""


class ServiceUnreachable(AppError):
    pass


class JobFailed(AppError):
    pass


class Client:
    def __init__(self, url: str, *, api_key: str | None = None) -> None:
        """
        Args:
            api_key: where the service needs one; TRCE_API_KEY if not given.

        Raises:
            Misconfigured: it cannot be sent.
        """
        key = api_key or os.environ.get("TRCE_API_KEY")
        if key and not IN_A_KEY.fullmatch(key):
            raise Misconfigured(
                "TRCE_API_KEY holds a character that no key has; set it to what "
                "`trce keys create` printed, and nothing else"
            )
        headers = {"Authorization": f"Bearer {key}"} if key else None
        self._http = httpx.Client(base_url=url, timeout=70, headers=headers)
        self._url = url
        self._has_answered = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str) -> Resource:
        return self._object("GET", path)

    def post(self, path: str, body: Resource | None = None) -> Resource:
        return self._object("POST", path, body)

    def put(self, path: str, body: Resource) -> Resource:
        return self._object("PUT", path, body)

    def discard(self, path: str) -> None:
        """DELETE where nothing is answered."""
        self._call("DELETE", path)

    def delete(self, path: str) -> Resource:
        return self._object("DELETE", path)

    def generate(self, spec: GenerationSpec) -> Resource:
        """Queue it; the generation as it was accepted."""
        return self.post("/v1/generations", spec.model_dump(mode="json", exclude_none=True))

    def erase(self, spec: ErasureSpec) -> Resource:
        return self.post("/v1/erasures", spec.model_dump(mode="json", exclude_none=True))

    def evaluate(self, spec: EvaluationSpec) -> Resource:
        return self.post("/v1/evaluations", spec.model_dump(mode="json", exclude_none=True))

    def file(self, path: str) -> bytes:
        """What lies at an address, as it is."""
        return self._call("GET", path).content

    def image(self, generation: Resource, index: int) -> bytes:
        return self._call("GET", generation["images"][index]["url"]).content

    def verify(self, picture: bytes, media_type: str) -> Resource:
        """Where a picture comes from."""
        return self._object("POST", "/v1/verify", picture, media_type=media_type)

    def wait(
        self,
        path: str,
        *,
        on_change: Callable[[Resource], None] = lambda _: None,
        every_s: float = POLL_S,
    ) -> Resource:
        """Poll a job until it has ended.

        Raises:
            JobFailed: it ended in any state but succeeded.
        """
        while True:
            job = self.get(path)
            on_change(job)
            match job["state"]:
                case "succeeded":
                    return job
                case "failed" | "cancelled":
                    raise JobFailed(f"{job['id']} {job['state']}: {job.get('reason') or ''}")
            time.sleep(every_s)

    def _object(
        self,
        method: str,
        path: str,
        body: Resource | bytes | None = None,
        *,
        media_type: str = "application/json",
    ) -> Resource:
        """Raises ServiceRefused, ServiceUnreachable, the latter where another server answers."""
        response = self._call(method, path, body, media_type=media_type)
        try:
            return dict(response.json())
        except (ValueError, TypeError) as error:
            raise ServiceUnreachable(
                f"what answers at {self._url} is no TRCE service; correct --url or TRCE_URL"
            ) from error

    def _call(
        self,
        method: str,
        path: str,
        body: Resource | bytes | None = None,
        *,
        media_type: str = "application/json",
    ) -> httpx.Response:
        """Tries again while the service is away or busy: the key makes a repeated POST harmless.

        A service that names a time (Retry-After) is asked again then, if that is not too long.

        Raises:
            ServiceRefused, ServiceUnreachable.
        """
        began = time.monotonic()
        headers = {"Idempotency-Key": uuid.uuid4().hex} if method == "POST" else {}
        if body is not None:
            headers["Content-Type"] = media_type
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        while True:
            try:
                response = self._http.request(method, path, content=data, headers=headers)
            except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
                raise ServiceUnreachable(f"{self._url} is no address: {error}") from error
            except httpx.TransportError as error:
                pause = RETRY_S
                patience_s = PATIENCE_S if self._has_answered else STRANGERS_PATIENCE_S
                if time.monotonic() + pause > began + patience_s:
                    raise ServiceUnreachable(
                        f"no service answers at {self._url} ({error}); `trce up` starts one"
                    ) from error
            else:
                self._has_answered = True
                pause = _pause_s(response)
                is_late = time.monotonic() + pause > began + PATIENCE_S
                if response.status_code not in BUSY or is_late:
                    return _checked(response)
            time.sleep(pause)


def _pause_s(response: httpx.Response) -> float:
    """As long as the service asks for; a date, which ours never sends, counts as nothing."""
    asked = response.headers.get("Retry-After", "")
    return max(RETRY_S, float(asked)) if asked.isdecimal() else RETRY_S


def _checked(response: httpx.Response) -> httpx.Response:
    if response.is_success:
        return response
    refused = ServiceRefused
    try:
        problem = response.json()
        detail = problem.get("detail") or problem.get("title")
        if problem.get("type") == "urn:problem:scope-missing":
            refused = ScopeLacking
    except (ValueError, AttributeError):
        detail = response.text[:200]
    if response.status_code == httpx.codes.UNAUTHORIZED:
        detail = f"{detail} (this command takes the key from TRCE_API_KEY)"
    raise refused(f"{response.status_code}: {detail}")
