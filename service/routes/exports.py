"""/v1/models/{id}/export: an erased model to take elsewhere."""

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from core.errors import Invalid
from service.archives import ModelArchive
from service.callers import may
from service.problems import refusals
from service.wiring import InParts

MEDIA_TYPE = "application/x-tar"

router = APIRouter(prefix="/models/{model_id}/export", tags=["models"])


@router.get(
    "",
    dependencies=[may("admin")],
    response_class=StreamingResponse,
    responses={200: {"content": {MEDIA_TYPE: {}}}, **refusals(400, 403, 404, 409, 422)},
)
def export_model(model_id: str, parts: InParts) -> StreamingResponse:
    """The signed folder of an erased model as a tar file, every file checked.

    Its `unet/` is an ordinary diffusers folder, to be put in the place of the base's own; beside
    it are the erasure alone, the model card and the signed manifest. A single file and a LoRA are
    made by `trce models export` on the host.
    """
    registry = parts.registry
    manifest = registry.get(registry.resolve(model_id))
    if manifest.edit is None:
        raise Invalid(f"{manifest.id} is a base model; export what was erased from it")
    archive = ModelArchive(registry.path(manifest.id), manifest)
    headers = {
        "Content-Disposition": f'attachment; filename="{manifest.id}.tar"',
        "Content-Length": str(archive.size),
    }
    return StreamingResponse(iter(archive), media_type=MEDIA_TYPE, headers=headers)
