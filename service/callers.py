"""The caller of a request, as the door identified it, and what it may do.

The dependencies here wait for nothing, and are coroutines all the same: FastAPI would send plain
functions through its threads, one hop for each.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.params import Depends as Dependency

from core.callers import Caller, Scope
from core.errors import ScopeMissing


async def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


InCaller = Annotated[Caller, Depends(_caller)]


def may(scope: Scope) -> Dependency:
    """A dependency of every route behind the door: callers without the scope get a 403."""

    async def check_scope(caller: InCaller) -> None:
        if not caller.may(scope):
            raise ScopeMissing(
                f"this needs an API key with the scope `{scope}`; this one has "
                f"{', '.join(f'`{one}`' for one in sorted(caller.scopes))}"
            )

    return _dependency(check_scope)


def known() -> Dependency:
    """A dependency of routes that any caller may use, whatever its scopes."""
    return _dependency(allow_any_scope)


async def allow_any_scope(_: InCaller) -> None:
    """The door has seen to it that there is a caller."""


def _dependency(check: Callable[[Caller], Awaitable[None]]) -> Dependency:
    dependency = Depends(check)
    assert isinstance(dependency, Dependency)
    return dependency
