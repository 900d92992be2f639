"""What a form of the page sends: fields as browsers encode them, until a spec judges them."""

from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import Depends, Request
from starlette.datastructures import ImmutableMultiDict
from starlette.exceptions import HTTPException

MAX_FIELDS = 1000


async def _read(request: Request) -> ImmutableMultiDict[str, str]:
    """Raises HTTPException: 400, 415."""
    sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await request.body()
    if body and sent != "application/x-www-form-urlencoded":
        raise HTTPException(415, "a form of the page sends application/x-www-form-urlencoded")
    try:
        fields = parse_qsl(
            body.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS
        )
    except ValueError as error:
        raise HTTPException(
            400, "the form cannot be read: it is not UTF-8, or too long"
        ) from error
    return ImmutableMultiDict(fields)


Form = Annotated[ImmutableMultiDict[str, str], Depends(_read)]


def number(text: str) -> int | float | str:
    """As a number where it is one; the spec says what is wrong with anything else."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def listed(text: str) -> list[str]:
    """The words between commas or line ends."""
    return [word.strip() for word in text.replace("\n", ",").split(",") if word.strip()]
