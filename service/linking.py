"""Parts of the OpenAPI document that FastAPI does not write: links, and events."""

from collections.abc import Sequence
from typing import Any


def links(parameter: str, source: str, **operations: str) -> dict[str, Any]:
    """For a route's `responses`.

    Args:
        parameter: of the operations' addresses, such as `generation_id`.
        source: where its value is, such as `$response.body#/id`.
        operations: what one may want to do -> the operation's id.
    """
    return {
        "links": {
            name: {"operationId": operation, "parameters": {parameter: source}}
            for name, operation in operations.items()
        }
    }


def job_links(one: str) -> dict[str, Any]:
    """From an answer that holds a job to what can be asked of it."""
    return links(
        f"{one}_id",
        "$response.body#/id",
        read=f"read_{one}",
        follow=f"follow_{one}",
        cancel=f"cancel_{one}",
    )


def described_event(names: Sequence[str]) -> dict[str, Any]:
    """The schema of each event of a stream, as OpenAPI up to 3.1 has it."""
    return {
        "type": "object",
        "required": ["event", "data"],
        "properties": {
            "id": {"type": "string"},
            "event": {"enum": [*names]},
            "data": {"type": "string", "contentMediaType": "application/json"},
        },
    }
