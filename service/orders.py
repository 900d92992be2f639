"""Orders of operators: what they may give as a reason, and that each is written down first."""

from contextlib import AbstractContextManager
from typing import Annotated, Self

from fastapi import Body
from pydantic import StrictBool, StringConstraints, model_validator

from core.audit import AuditTrail
from core.callers import Caller
from core.fields import Spec, Text


class Order(Spec):
    reason: Annotated[Text, StringConstraints(max_length=500)] = ""
    """Goes into the audit trail."""


class Promotion(Order):
    override: StrictBool = False
    """Serve it whatever it lacks; then a reason is needed."""
    default: StrictBool = False
    """From then on the model name `default` means it, too."""

    @model_validator(mode="after")
    def _says_why(self) -> Self:
        if self.override and not self.reason:
            raise ValueError("an override needs a `reason`, which is recorded")
        return self


OrderBody = Annotated[
    Order | None, Body(openapi_examples={"why": {"value": {"reason": "passed all suites"}}})
]

PromotionBody = Annotated[
    Promotion | None,
    Body(
        openapi_examples={
            "why": {"value": {"reason": "passed all suites"}},
            "default": {"value": {"reason": "passed all suites", "default": True}},
            "override": {"value": {"reason": "a drill, ends at noon", "override": True}},
        }
    ),
]


def recorded(
    audit: AuditTrail,
    caller: Caller,
    action: str,
    subject: str,
    *,
    order: Order | None = None,
    detail: dict[str, str] | None = None,
) -> AbstractContextManager[None]:
    return audit.recording(
        action,
        subject,
        actor=caller.name,
        tenant=caller.tenant,
        reason=order.reason if order else "",
        detail=detail,
        request_id=caller.request_id,
    )
