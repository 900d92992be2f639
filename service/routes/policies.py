"""/v1/policies: what each tenant may do, and how its prompts and pictures are judged."""

from typing import Annotated, Literal

from fastapi import APIRouter, Body, Depends, Path, Response
from pydantic import BaseModel

from core.callers import Tenant
from core.policies import DEFAULT, Policy, PolicyInForce
from service.bodies import require_json
from service.callers import InCaller, known, may
from service.linking import links
from service.orders import recorded
from service.problems import refusals
from service.wiring import InParts

router = APIRouter(tags=["policies"])

EXAMPLES = {
    "screened": {
        "summary": "Erased models only, prompts screened, two pictures at a time",
        "value": {
            "models": ["*-weapons-*"],
            "prompts": {"presets": ["weapons"], "words": ["napalm"]},
            "limits": {"images_per_request": 2, "requests_per_minute": 60, "images_per_day": 1000},
            "share": 2.0,
        },
    },
}
PolicyBody = Annotated[Policy, Body(openapi_examples=EXAMPLES)]
TenantName = Annotated[Tenant, Path(description=f"A tenant, or `{DEFAULT}` for all others.")]


class TenantPolicy(BaseModel):
    tenant: str
    object: Literal["policy"] = "policy"
    id: str
    """Name and digest: what findings refer to."""
    policy: Policy

    @classmethod
    def of(cls, in_force: PolicyInForce) -> "TenantPolicy":
        return cls(tenant=in_force.name, id=in_force.id, policy=in_force.policy)


class PolicyList(BaseModel):
    object: Literal["list"] = "list"
    data: list[TenantPolicy]


@router.get("/policy", dependencies=[known()], responses=refusals())
def read_own_policy(parts: InParts, caller: InCaller) -> TenantPolicy:
    """The policy that the caller's requests go by: its tenant's, or `default`."""
    return TenantPolicy.of(parts.policies.of(caller.tenant))


@router.get("/policies", dependencies=[may("admin")], responses=refusals())
def list_policies(parts: InParts) -> PolicyList:
    return PolicyList(data=[TenantPolicy.of(one) for one in parts.policies.all()])


@router.get("/policies/{tenant}", dependencies=[may("admin")], responses=refusals(404, 422))
def read_policy(tenant: TenantName, parts: InParts) -> TenantPolicy:
    return TenantPolicy.of(parts.policies.get(tenant))


@router.put(
    "/policies/{tenant}",
    dependencies=[may("admin"), Depends(require_json)],
    responses={
        200: links("tenant", "$response.body#/tenant", read="read_policy", remove="remove_policy"),
        **refusals(400, 413, 415, 422),
    },
)
def write_policy(
    tenant: TenantName, policy: PolicyBody, parts: InParts, caller: InCaller
) -> TenantPolicy:
    """Write or replace a policy. Every process goes by it within a second."""
    detail = {"policy": PolicyInForce(tenant, policy).id}
    with recorded(parts.audit, caller, "policy.written", tenant, detail=detail):
        return TenantPolicy.of(parts.policies.put(tenant, policy))


@router.delete(
    "/policies/{tenant}",
    status_code=204,
    dependencies=[may("admin")],
    responses=refusals(404, 422),
)
def remove_policy(tenant: TenantName, parts: InParts, caller: InCaller) -> Response:
    """From now on the tenant goes by `default`; without that, by what the installation allows."""
    with recorded(parts.audit, caller, "policy.removed", tenant):
        parts.policies.remove(tenant)
    return Response(status_code=204)
