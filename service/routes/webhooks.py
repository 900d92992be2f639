"""/v1/webhooks: what deliveries to your servers are signed with."""

from typing import Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from service.callers import InCaller, known
from service.orders import recorded
from service.origins import refuse_other_sites
from service.problems import refusals
from service.wiring import InParts

router = APIRouter(prefix="/webhooks", tags=["webhooks"], dependencies=[known()])


class WebhookSecret(BaseModel):
    object: Literal["webhook_secret"] = "webhook_secret"
    secret: str
    """`whsec_` and Base64, as every library of Standard Webhooks takes it."""


@router.get("/secret", responses=refusals())
def read_webhook_secret(parts: InParts, caller: InCaller) -> WebhookSecret:
    """Your tenant's, made when it is first asked for."""
    return WebhookSecret(secret=parts.webhook_secrets.current(caller.tenant))


@router.post(
    "/secret/rotation",
    dependencies=[Depends(refuse_other_sites)],
    responses=refusals(403),
)
def rotate_webhook_secret(parts: InParts, caller: InCaller) -> WebhookSecret:
    """Make a new one. For a day deliveries are signed with the old one, too."""
    with recorded(parts.audit, caller, "webhook_secret.rotated", caller.tenant):
        return WebhookSecret(secret=parts.webhook_secrets.rotate(caller.tenant))
