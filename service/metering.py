"""Counts the requests that ask for work, and tells clients what is left of their allowance."""

from fastapi import Depends, Request
from fastapi.params import Depends as Dependency

from core.errors import StoreUnavailable
from service.callers import InCaller
from service.wiring import InParts


def metered() -> Dependency:
    """A dependency of every route that makes jobs, after the one that checks the scope.

    The door (`service.door`) puts the allowance into the headers of whatever is answered.
    """
    dependency = Depends(spend)
    assert isinstance(dependency, Dependency)
    return dependency


def spend(request: Request, caller: InCaller, parts: InParts) -> None:
    """Count one request for work.

    Raises:
        RateLimited, PolicyUnreadable.
    """
    try:
        allowance = parts.rates.spend(caller.tenant, parts.policies.of(caller.tenant))
    except StoreUnavailable:
        return  # nothing can be accepted now, so there is nothing to count
    request.state.allowance = allowance
    if allowance is not None:
        allowance.check()
