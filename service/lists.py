"""The shape of every list of jobs: newest first, continued with `?after=<last_id>`."""

from typing import Generic, Literal, TypeVar

from pydantic import BaseModel


class Resource(BaseModel):
    id: str


Item = TypeVar("Item", bound=Resource)


class Page(BaseModel, Generic[Item]):
    object: Literal["list"] = "list"
    data: list[Item]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, data: list[Item], *, has_more: bool) -> "Page[Item]":
        return cls(
            data=data,
            first_id=data[0].id if data else None,
            last_id=data[-1].id if data else None,
            has_more=has_more,
        )
