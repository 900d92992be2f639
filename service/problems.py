"""Errors become HTTP here, and nowhere else: RFC 9457 problem documents from one table."""

import json
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from core import errors
from core.errors import AppError
from core.findings import Finding
from service.envelopes import OpenAIError, may_retry, openai_error

# The nearest class in an error's ancestry decides. What is not listed is our fault: 500.
STATUS: dict[type[AppError], int] = {
    errors.Invalid: 422,
    errors.KeyReused: 422,
    errors.NotFound: 404,
    errors.JobExpired: 410,
    errors.Conflict: 409,
    errors.UntrustedModel: 409,
    errors.ApiKeyRefused: 401,
    errors.ScopeMissing: 403,
    errors.ModelNotAllowed: 403,
    errors.TenantQueueFull: 429,
    errors.RateLimited: 429,
    errors.QuotaSpent: 429,
    errors.TooManyStreams: 429,
    errors.QueueFull: 503,
    errors.StoreUnavailable: 503,
    errors.PicturesUnavailable: 503,
    errors.ModelsUnavailable: 503,
    errors.DrawingFailed: 500,
    errors.StillDrawing: 504,
}
RETRY_AFTER_S: dict[type[AppError], int] = {
    errors.ImageNotReady: 1,
    errors.StoreUnavailable: 2,
    errors.PicturesUnavailable: 2,
    errors.ModelsUnavailable: 2,
}
# RFC 9110 wants a 401 to say how to authenticate. Basic is not offered: a browser would ask for
# a password; clients of A1111 servers send it unasked.
FOUND = (errors.PromptRefused, errors.PicturesBlocked)
CHALLENGE = 'Bearer realm="trce"'
MEDIA_TYPE = "application/problem+json"
OPENAI_IMAGES = "/v1/images/"
READ_BY_OPENAI = (OPENAI_IMAGES, "/v1/models")
READ_BY_HUGGING_FACE = "/hf/"
MAX_FIELD_PROBLEMS = 20
MAX_FIELD_CHARS = 100

# What FastAPI says -> what helps.
CLEARER = {
    "Not Found": "no such address; /docs lists what there is",
    "Method Not Allowed": "this address does not take this method; the Allow header lists those",
    "There was an error parsing the body": "the body cannot be read: send JSON in UTF-8, "
    "not deeply nested, with numbers of ordinary length",
}


class FieldProblem(BaseModel):
    """What is wrong with one field, and what would be right."""

    field: str
    problem: str


class Problem(BaseModel):
    """An error, as RFC 9457 describes one."""

    type: str
    """Names the kind of error; stable, unlike the texts."""
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
    errors: list[FieldProblem] = []
    """For a 422: each field that is not acceptable."""
    missing: list[str] = []
    """For a service that is not ready: what it waits for."""
    refused_models: list[str] = []
    """For a service that is not ready: models that fail their checks."""
    finding: Finding | None = None
    """For a prompt or pictures that are refused: what the policy objects to."""
    error: OpenAIError | str | None = None
    """The same once more, where clients of other servers look for it."""


def answer_with_problems(app: FastAPI) -> None:
    """Make every error of `app` a problem document; `service.access` sees to unexpected ones."""
    app.add_exception_handler(AppError, _from_app_error)
    app.add_exception_handler(RequestValidationError, _from_validation)
    app.add_exception_handler(HTTPException, _from_http_exception)


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may refuse with these statuses (and, as all may, 500)."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        for status in (*statuses, 500)
    }


def problem(
    path: str,
    status: int,
    detail: str,
    *,
    title: str | None = None,
    headers: Mapping[str, str] | None = None,
    fields: list[FieldProblem] | None = None,
    missing: list[str] | None = None,
    refused_models: list[str] | None = None,
    finding: Finding | None = None,
) -> Response:
    """The response that tells a client what went wrong."""
    title = title or HTTPStatus(status).phrase
    if status == HTTPStatus.UNPROCESSABLE_ENTITY and path.startswith(OPENAI_IMAGES):
        status = HTTPStatus.BAD_REQUEST  # OpenAI knows no 422
    document = Problem(
        type="urn:problem:" + re.sub(r"[^a-z]+", "-", title.lower()),
        title=title,
        status=status,
        detail=detail,
        instance=path,
        request_id=structlog.contextvars.get_contextvars().get("request_id", ""),
        errors=fields or [],
        missing=missing or [],
        refused_models=refused_models or [],
        finding=finding,
    )
    headers = dict(headers or {})
    if path.startswith(READ_BY_OPENAI):
        headers["x-should-retry"] = may_retry(document.status)
        param = fields[0].field if fields else None
        kind = document.type.rpartition(":")[2]
        document.error = openai_error(kind, document.status, detail, param=param, finding=finding)
    elif path.startswith(READ_BY_HUGGING_FACE):
        document.error = detail
    # json.dumps writes ASCII, so no text, a lone surrogate for one, can break the answer.
    content = json.dumps(document.model_dump(exclude_defaults=True))
    return Response(content, status, headers, media_type=MEDIA_TYPE)


def from_app_error(path: str, error: AppError) -> Response:
    """The response to an error with a name; one without a status is raised again."""
    family = type(error).__mro__
    status = next((STATUS[kind] for kind in family if kind in STATUS), None)
    if status is None:
        raise error
    wait_s = next((RETRY_AFTER_S[kind] for kind in family if kind in RETRY_AFTER_S), None)
    if isinstance(error, errors.Busy):
        wait_s = error.retry_after_s
    headers = {} if wait_s is None else {"Retry-After": str(wait_s)}
    if isinstance(error, errors.StillDrawing):
        headers["Location"] = f"/v1/generations/{error.job_id}"
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = CHALLENGE
    return problem(
        path,
        status,
        error.detail,
        title=_words(type(error).__name__),
        headers=headers,
        finding=error.finding if isinstance(error, FOUND) else None,
    )


def describe(path: str, error: AppError) -> str:
    """The document of an error that comes too late for a status, in a stream."""
    body = from_app_error(path, error).body
    return bytes(body).decode()


def _from_app_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, AppError)
    request.app.state.parts.metrics.refusal(error)
    return from_app_error(request.url.path, error)


def _from_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if found[0]["type"] == "json_invalid":
        reason = f"{found[0]['ctx']['error']} at character {found[0]['loc'][-1]}"
        return problem(request.url.path, 400, f"the body is not JSON: {reason}")
    fields = field_problems(found)
    detail = "; ".join(f"{one.field}: {one.problem}" for one in fields[:3])
    if len(found) > len(fields[:3]):
        detail += f"; and {len(found) - 3} more"
    return problem(request.url.path, 422, detail, title="Invalid request", fields=fields)


def methods_taken(document: Mapping[str, Any], path: str) -> list[str]:
    """Those that an address takes, as the OpenAPI document has them."""
    return sorted(
        method.upper()
        for template, methods in document["paths"].items()
        if compile_path(template)[0].match(path)
        for method in methods
    )


def _from_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = CLEARER.get(error.detail, error.detail)
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        # The router names the methods of the first route that fits, and there may be others.
        taken = methods_taken(request.app.openapi(), request.url.path)
        headers["Allow"] = ", ".join(taken) or headers.get("Allow", "")
    return problem(request.url.path, error.status_code, detail, headers=headers)


def field_problems(found: Sequence[Mapping[str, Any]]) -> list[FieldProblem]:
    """What pydantic found in the fields of a request, in words for whoever sent it."""
    return [_field_problem(one) for one in found[:MAX_FIELD_PROBLEMS]]


def _field_problem(error: Mapping[str, Any]) -> FieldProblem:
    """Never repeats what was sent: a prompt does not belong into an error."""
    place = [str(part) for part in error["loc"]]
    field = ".".join(place[1:]) or place[0]
    match error["type"]:
        case "extra_forbidden":
            text = "there is no such field; leave it out"
        case "missing" if len(place) == 1:
            text = "a JSON object is required"
        case "string_unicode":
            text = "must be Unicode text; surrogates come in pairs only"
        case "model_attributes_type":
            text = "a JSON object is required"
        case "string_pattern_mismatch" if error["ctx"]["pattern"] == r"^[^\x00]*$":
            text = "may not contain the NUL character"
        case _:
            text = str(error["msg"]).removeprefix("Value error, ")
    return FieldProblem(field=field[:MAX_FIELD_CHARS], problem=text)


def _words(name: str) -> str:
    """JobNotFound -> Job not found."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", name).capitalize()
