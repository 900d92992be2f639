"""/v1/aliases: names that mean another model; `default` can be pointed and rolled back."""

from typing import Annotated, Literal

from fastapi import APIRouter, Body, Depends, Path
from pydantic import BaseModel

from core.errors import AliasNotFound, AppError, ModelIsDefault, ModelNotServed, StoreUnavailable
from core.registry import DEFAULT
from core.specs import ModelId
from service.bodies import require_json
from service.callers import InCaller, known, may
from service.orders import Order, OrderBody, recorded
from service.origins import refuse_other_sites
from service.problems import refusals
from service.wiring import InParts, Parts

router = APIRouter(prefix="/aliases", tags=["models"])

Name = Annotated[str, Path(description=f"`{DEFAULT}`: no other name can be pointed elsewhere.")]


class Pointing(Order):
    model: ModelId
    """One that is served."""


PointingBody = Annotated[
    Pointing, Body(openapi_examples={"pointed": {"value": {"model": "emoji-weapons-1a2b3c4d"}}})
]


class Alias(BaseModel):
    id: str
    object: Literal["alias"] = "alias"
    model: str
    """The id of the model that the name means."""
    served: bool
    not_served_because: str | None
    former: list[str]
    """What `default` meant before, newest first: a rollback leads to the first."""

    @classmethod
    def of(cls, name: str, parts: Parts) -> "Alias":
        model_id = parts.registry.resolve(name)
        because = why_not_served(model_id, parts)
        return cls(
            id=name,
            model=model_id,
            served=because is None,
            not_served_because=because,
            former=parts.default_model.history()[1:] if name == DEFAULT else [],
        )


class AliasList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Alias]


@router.get("", dependencies=[known()], responses=refusals())
def list_aliases(parts: InParts) -> AliasList:
    """`default`, then the names that clients have built in (TRCE_MODEL_ALIASES)."""
    return AliasList(data=[Alias.of(name, parts) for name in (DEFAULT, *parts.registry.aliases)])


@router.put(
    "/{alias}",
    dependencies=[may("admin"), Depends(require_json)],
    responses=refusals(400, 404, 409, 413, 415, 422),
)
def point_alias(alias: Name, pointing: PointingBody, parts: InParts, caller: InCaller) -> Alias:
    """Have `default` mean another model, which must be served: a request that names none gets it.

    Jobs that were accepted before are drawn with the model that it meant then.
    """
    _check_is_default(alias)
    model_id = parts.registry.known_as(pointing.model)
    detail = {"before": parts.default_model.current()}
    with recorded(parts.audit, caller, "default.pointed", model_id, order=pointing, detail=detail):
        parts.registry.served(model_id)
        parts.default_model.point(model_id)
    return Alias.of(alias, parts)


@router.post(
    "/{alias}/rollback",
    dependencies=[may("admin"), Depends(refuse_other_sites)],
    responses=refusals(400, 403, 404, 409, 413, 422),
)
def roll_alias_back(
    alias: Name, parts: InParts, caller: InCaller, order: OrderBody = None
) -> Alias:
    """Have `default` mean what it meant before; refused while that model is not served."""
    _check_is_default(alias)
    former = parts.default_model.former()
    detail = {"before": parts.default_model.current()}
    with recorded(parts.audit, caller, "default.rolled_back", former, order=order, detail=detail):
        if because := why_not_served(former, parts):
            raise ModelNotServed(f"`default` meant {former} before: {because}")
        parts.default_model.roll_back(former)
    return Alias.of(alias, parts)


def why_not_served(model_id: str, parts: Parts) -> str | None:
    """Raises StoreUnavailable: nobody knows yet."""
    try:
        parts.registry.served(model_id)
    except StoreUnavailable:
        raise
    except AppError as error:
        return error.detail
    return None


def check_not_default(model_id: str, parts: Parts) -> None:
    """Raises ModelIsDefault, unless nothing else is served that `default` could mean."""
    registry = parts.registry
    if registry.resolve(DEFAULT) != model_id:
        return
    others = [
        one.id for one in registry.all() if one.id != model_id and registry.serving.allows(one)
    ]
    if others:
        raise ModelIsDefault(
            f"`default` means {model_id}, and requests that name no model would be refused: point "
            f"it elsewhere first (`trce models default MODEL`); served, too: {', '.join(others)}"
        )


def _check_is_default(alias: str) -> None:
    """Raises AliasNotFound."""
    if alias != DEFAULT:
        raise AliasNotFound(
            f"only `{DEFAULT}` can be pointed elsewhere; TRCE_MODEL_ALIASES sets other names"
        )
