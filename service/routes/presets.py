"""/v1/presets: lists of concepts that ship with the service, to be named in an erasure."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from core import presets
from core.specs import Concept
from service.callers import known
from service.problems import refusals

router = APIRouter(prefix="/presets", tags=["presets"], dependencies=[known()])


class Preset(BaseModel):
    id: str
    object: Literal["preset"] = "preset"
    concepts: list[Concept]


class PresetList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Preset]


@router.get("", responses=refusals())
def list_presets() -> PresetList:
    return PresetList(
        data=[Preset(id=name, concepts=list(presets.load(name))) for name in presets.names()]
    )
