"""The OpenAPI document: FastAPI's, with our problem documents in place of its own errors."""

from typing import Any

from fastapi import FastAPI

from service.door import OPEN_TO_ALL
from service.problems import MEDIA_TYPE, Problem, refusals

DESCRIPTION = """
Text to image on Stable Diffusion models from which concepts can be erased.

Ask for pictures at `/v1/generations`, have concepts erased at `/v1/erasures`, promote the
result at `/v1/models/{id}/promotion`. Every error is an RFC 9457 problem document.
"""
TAGS = [
    {"name": "generations", "description": "Pictures of a prompt."},
    {"name": "openai", "description": "For clients of OpenAI's Images API."},
    {"name": "a1111", "description": "For clients of the A1111 web UI."},
    {"name": "huggingface", "description": "For Hugging Face's InferenceClient."},
    {"name": "erasures", "description": "Models from which concepts are erased."},
    {"name": "evaluations", "description": "What erased models still draw, measured."},
    {"name": "dead letters", "description": "Jobs that used up their attempts."},
    {"name": "models", "description": "What is installed, and what is served."},
    {"name": "presets", "description": "Concept lists that ship with the service."},
    {"name": "webhooks", "description": "Your servers are told when jobs have ended."},
    {"name": "verify", "description": "Where a picture comes from."},
    {"name": "policies", "description": "What tenants may do, and how pictures are judged."},
    {"name": "keys", "description": "Who may use the service, and for what."},
    {"name": "audit", "description": "What operators did, and why."},
    {"name": "health", "description": "For load balancers and supervisors."},
]
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
    "basic": {"type": "http", "scheme": "basic", "description": "The password is an API key."},
}
BEHIND_THE_DOOR = (401, 403, 503)
"""What any address that needs a key may answer."""
UNUSED = ("HTTPValidationError", "ValidationError")


class Api(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """Made once."""
        if self.openapi_schema is not None:
            return self.openapi_schema
        document = super().openapi()
        schemas = document["components"]["schemas"]
        for name in UNUSED:
            schemas.pop(name, None)
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(problem.pop("$defs"))
        schemas["Problem"] = problem
        document["components"]["securitySchemes"] = SCHEMES
        for path, methods in document["paths"].items():
            for operation in methods.values():
                _replace_validation(operation["responses"])
                if path not in OPEN_TO_ALL:
                    _require_key(operation)
        return document


def _replace_validation(responses: dict[str, Any]) -> None:
    """FastAPI declares its own 422 wherever there is a parameter."""
    declared = responses.get("422")
    if declared is not None and MEDIA_TYPE not in declared["content"]:
        responses["422"] = refusals(422)[422]


def _require_key(operation: dict[str, Any]) -> None:
    operation["security"] = [{name: []} for name in SCHEMES]
    late = (408,) if "requestBody" in operation else ()
    for status in (*BEHIND_THE_DOOR, *late):
        operation["responses"].setdefault(str(status), refusals(status)[status])
