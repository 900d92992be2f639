"""Errors as OpenAI's clients read them: a member `error` with all four of their keys."""

from pydantic import BaseModel

from core.findings import Finding

# What our errors are called there; any other keeps its own name.
CODES = {
    "model-not-found": "model_not_found",
    "api-key-refused": "invalid_api_key",
    "rate-limited": "rate_limit_exceeded",
    "tenant-queue-full": "rate_limit_exceeded",
    "quota-spent": "insufficient_quota",
    "prompt-refused": "moderation_blocked",
    "pictures-blocked": "moderation_blocked",
    "still-drawing": "job_still_running",
}
TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}
SERVER_ERROR = 500
PASSING = frozenset({408, 429, 503})
"""Statuses of what may go well when it is sent again."""


class OpenAIError(BaseModel):
    message: str
    type: str
    param: str | None
    code: str
    finding: Finding | None = None
    """For `moderation_blocked`: the stage, the category and the policy."""


def openai_error(
    kind: str, status: int, message: str, *, param: str | None, finding: Finding | None
) -> OpenAIError:
    """
    Args:
        kind: the last part of the problem's type, such as `model-not-found`.
    """
    other = "server_error" if status >= SERVER_ERROR else "invalid_request_error"
    return OpenAIError(
        message=message,
        type=TYPES.get(status, other),
        param=param,
        code=CODES.get(kind, kind.replace("-", "_")),
        finding=finding,
    )


def may_retry(status: int) -> str:
    """For `x-should-retry`: their clients retry conflicts and every 5xx unless told otherwise."""
    return "true" if status in PASSING else "false"
