"""/v1/models: what is installed, what is served and why the rest is not; promote and retire.

The list has the shape OpenAI clients expect, with fields of our own beside theirs.
"""

import time
from typing import Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from core.edits import Edit
from core.errors import ModelNotServed
from core.manifests import Drawing, Manifest, ModelStatus, Override
from core.registry import DEFAULT, ModelRegistry
from core.specs import Concept
from core.thresholds import PromoteIf
from service.callers import InCaller, known, may
from service.orders import OrderBody, PromotionBody, recorded
from service.origins import refuse_other_sites
from service.problems import refusals
from service.routes.aliases import Pointing, check_not_default, point_alias
from service.wiring import InParts

router = APIRouter(prefix="/models", tags=["models"])


class Erased(BaseModel):
    """What was erased, from what, and how."""

    base_model: str
    base_digest: str
    method: str
    concepts: list[Concept]
    seed: int
    seconds: float
    figures: dict[str, float]

    @classmethod
    def of(cls, edit: Edit) -> "Erased":
        # As objects: a manifest's were checked when it was read, and are not checked again.
        return cls(
            base_model=edit.base_model,
            base_digest=edit.base_digest,
            method=edit.method,
            concepts=list(edit.concepts),
            seed=edit.seed,
            seconds=edit.seconds,
            figures=edit.figures,
        )


class Model(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    """Unix time in whole seconds."""
    owned_by: str = "local"
    kind: Literal["base", "erased"]
    family: str
    status: ModelStatus
    served: bool
    not_served_because: str | None
    is_default: bool
    """The model name `default` means this one."""
    drawing: Drawing
    erased: Erased | None
    """Null for a base model."""
    digest: str
    """SHA-256 over all files: names the weights, whatever the status."""
    files: dict[str, str]
    """Path -> SHA-256."""
    promote_if: PromoteIf | None
    """What a report must show before it is served."""
    reports: list[str]
    """Ids, oldest first; `/v1/models/{id}/reports` tells more."""
    overrides: list[Override]
    """Promotions without what was demanded."""
    signed_by: str
    """The id of the trusted key whose signature was checked just now."""

    @classmethod
    def of(cls, manifest: Manifest, registry: ModelRegistry) -> "Model":
        assert manifest.signature is not None  # the registry returns signed ones only
        because = _why_not_served(manifest, registry)
        edit = manifest.edit
        return cls(
            id=manifest.id,
            kind=manifest.kind,
            family=manifest.family,
            status=manifest.status,
            files=manifest.files,
            promote_if=manifest.promote_if,
            overrides=list(manifest.overrides),
            created=int(manifest.created_at),
            served=because is None,
            not_served_because=because,
            is_default=registry.resolve(DEFAULT) == manifest.id,
            drawing=manifest.drawing,
            erased=None if edit is None else Erased.of(edit),
            digest=manifest.content_digest,
            reports=sorted(
                manifest.reports, key=lambda name: (manifest.reports[name].created_at, name)
            ),
            signed_by=manifest.signature.key_id,
        )


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]
    untrusted: dict[str, str]
    """Models that fail their checks, here or in a worker that was to load them -> why. They are
    never served."""


@router.get("", dependencies=[known()], responses=refusals())
def list_models(parts: InParts) -> ModelList:
    """Every trusted model, oldest first, and the untrusted folders by name."""
    trusted, refused = parts.refused.survey()
    models = [Model.of(manifest, parts.registry) for manifest in trusted]
    return ModelList(data=models, untrusted=refused)


@router.get("/{model_id}", dependencies=[known()], responses=refusals(404, 409))
def read_model(model_id: str, parts: InParts) -> Model:
    registry = parts.registry
    return Model.of(registry.get(registry.resolve(model_id)), registry)


@router.post(
    "/{model_id}/promotion",
    dependencies=[may("admin"), Depends(refuse_other_sites)],
    responses=refusals(400, 403, 404, 409, 413, 422),
)
def promote_model(
    model_id: str, parts: InParts, caller: InCaller, order: PromotionBody = None
) -> Model:
    """Serve a candidate or retired model, after checking the digest of every file.

    A model that lacks a report which its `promote_if` or this installation demands is refused,
    and told what is missing. `override` serves it all the same: its reason, and what was missing,
    are recorded in the manifest and in the audit trail. `default` has requests that name no
    model drawn with it from then on.
    """
    resolved = _existing(model_id, parts)
    override, detail = None, None
    if order is not None and order.override:
        missing = tuple(parts.registry.serving.missing(parts.registry.get(resolved)))
        detail = {"override": "; ".join(missing)}
        override = Override(
            at=round(time.time(), 3), actor=caller.name, reason=order.reason, missing=missing
        )
    with recorded(parts.audit, caller, "model.promotion", resolved, order=order, detail=detail):
        promoted = _move(resolved, ModelStatus.SERVING, parts, override=override)
    if order is None or not order.default:
        return promoted
    point_alias(DEFAULT, Pointing(model=resolved, reason=order.reason), parts, caller)
    return read_model(resolved, parts)


@router.post(
    "/{model_id}/retirement",
    dependencies=[may("admin"), Depends(refuse_other_sites)],
    responses=refusals(400, 403, 404, 409, 413, 422),
)
def retire_model(
    model_id: str, parts: InParts, caller: InCaller, order: OrderBody = None
) -> Model:
    """Stop serving a model; its files stay.

    The one that `default` means is refused as long as another could take its place.
    """
    resolved = _existing(model_id, parts)
    with recorded(parts.audit, caller, "model.retirement", resolved, order=order):
        check_not_default(resolved, parts)
        return _move(resolved, ModelStatus.RETIRED, parts)


def _existing(model_id: str, parts: InParts) -> str:
    """The id behind a name. Raises ModelNotFound, UntrustedModel."""
    return parts.registry.get(parts.registry.resolve(model_id)).id


def _move(
    model_id: str, status: ModelStatus, parts: InParts, *, override: Override | None = None
) -> Model:
    manifest = parts.registrar.set_status(model_id, status, parts.signer, override=override)
    return Model.of(manifest, parts.registry)


def _why_not_served(manifest: Manifest, registry: ModelRegistry) -> str | None:
    try:
        registry.serving.check(manifest)
    except ModelNotServed as error:
        return error.detail
    return None
