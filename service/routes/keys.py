"""/v1/keys: who may use the service. A secret is in the answer that makes it, and nowhere else."""

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Path
from pydantic import BaseModel, Field

from core.callers import LOCAL, Scope, Tenant
from core.fields import Spec
from core.keys import ApiKey, Label
from service.bodies import require_json
from service.callers import InCaller, may
from service.linking import links
from service.lists import Resource
from service.orders import recorded
from service.origins import refuse_other_sites
from service.problems import refusals
from service.wiring import InParts, Parts

router = APIRouter(prefix="/keys", tags=["keys"], dependencies=[may("admin")])

MAX_LIFE_S = 10 * 366 * 24 * 3600
MAX_OVERLAP_S = 30 * 24 * 3600
DAY_S = 24 * 3600
KeyId = Annotated[str, Path(description="As the list shows it.", max_length=100)]
EXAMPLES = {
    "client": {
        "summary": "For a program that draws, for 90 days",
        "value": {
            "scopes": ["generate"],
            "tenant": "acme",
            "label": "the shop",
            "expires_in_s": 7_776_000,
        },
    },
}


class NewKey(Spec):
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=10)]
    tenant: Tenant = LOCAL
    """Jobs, policy, limits and queue share go by tenant."""
    label: Label = ""
    """A note to tell keys apart."""
    expires_in_s: Annotated[int, Field(strict=True, ge=1, le=MAX_LIFE_S)] | None = None
    """For ever, if it is left out."""


class Rotation(Spec):
    overlap_s: Annotated[int, Field(strict=True, ge=0, le=MAX_OVERLAP_S)] = DAY_S
    """How long the old secret still works."""


class Key(Resource):
    """What is known of a key."""

    object: Literal["api_key"] = "api_key"
    tenant: str
    label: str
    scopes: list[Scope]
    state: Literal["valid", "expired", "revoked"]
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    previous_until: float | None
    """Until then the secret before the last rotation works, too."""

    @classmethod
    def of(cls, key: ApiKey) -> "Key":
        return cls(**_known(key))


class KeyWithSecret(Key):
    key: str
    """The key itself: keep it, it is not to be had again."""


class KeyList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Key]
    """Oldest first; revoked and expired ones, too."""


KeyBody = Annotated[NewKey, Body(openapi_examples=EXAMPLES)]
RotationBody = Annotated[
    Rotation | None, Body(openapi_examples={"at once": {"value": {"overlap_s": 0}}})
]


@router.get("", responses=refusals())
def list_keys(parts: InParts) -> KeyList:
    return KeyList(data=[Key.of(key) for key in parts.keys.all()])


@router.get("/{key_id}", responses=refusals(404, 422))
def read_key(key_id: KeyId, parts: InParts) -> Key:
    return Key.of(parts.keys.get(key_id))


@router.post(
    "",
    status_code=201,
    dependencies=[Depends(require_json)],
    responses={
        201: links(
            *("key_id", "$response.body#/id"),
            read="read_key",
            rotate="rotate_key",
            revoke="revoke_key",
        ),
        **refusals(400, 413, 415, 422),
    },
)
def create_key(body: KeyBody, parts: InParts, caller: InCaller) -> KeyWithSecret:
    """Make a key. The first one closes the service: from then on every request needs one."""
    detail = {"scopes": ", ".join(body.scopes), "label": body.label}
    with recorded(parts.audit, caller, "key.created", body.tenant, detail=detail):
        key, token = parts.keys.create(
            scopes=body.scopes, tenant=body.tenant, label=body.label, life_s=body.expires_in_s
        )
    return KeyWithSecret(**_known(key), key=token)


@router.post(
    "/{key_id}/rotation",
    dependencies=[Depends(refuse_other_sites)],
    responses=refusals(400, 403, 404, 409, 413, 422),
)
def rotate_key(
    key_id: KeyId, parts: InParts, caller: InCaller, body: RotationBody = None
) -> KeyWithSecret:
    """Give a key a new secret; the old one works on for a while."""
    overlap_s = (body or Rotation()).overlap_s
    existing = _existing(key_id, parts)
    with recorded(
        parts.audit, caller, "key.rotated", existing, detail={"overlap": f"{overlap_s} s"}
    ):
        key, token = parts.keys.rotate(existing, overlap_s=overlap_s)
    return KeyWithSecret(**_known(key), key=token)


@router.delete("/{key_id}", responses=refusals(404, 422))
def revoke_key(key_id: KeyId, parts: InParts, caller: InCaller) -> Key:
    """Refuse a key from now on. Its record stays."""
    existing = _existing(key_id, parts)
    with recorded(parts.audit, caller, "key.revoked", existing):
        return Key.of(parts.keys.revoke(existing))


def _existing(key_id: str, parts: Parts) -> str:
    """Raises ApiKeyNotFound: before the audit trail speaks of a key that is none."""
    return parts.keys.get(key_id).id


def _known(key: ApiKey) -> dict[str, Any]:
    return {
        **key.model_dump(include=set(Key.model_fields)),
        "state": key.state(time.time()),
        "previous_until": key.previous_until or None,
    }
