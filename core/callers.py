"""Who asks: a tenant, what its key allows, and under which request id it asks."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from pydantic import StringConstraints

Scope = Literal["generate", "erase", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

LOCAL = "local"
"""The tenant of an installation without API keys."""

Tenant = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,48}[a-z0-9])?$", max_length=50)
]
"""Part of Redis keys, addresses and metrics, so its letters are few."""


@dataclass(frozen=True)
class Caller:
    tenant: str = LOCAL
    key_id: str = ""
    """Empty where no key was needed."""
    scopes: frozenset[Scope] = frozenset(SCOPES)
    request_id: str = ""

    def may(self, scope: Scope) -> bool:
        """An admin may do everything."""
        return scope in self.scopes or "admin" in self.scopes

    @property
    def sees(self) -> str | None:
        """The tenant whose jobs this caller sees; None: an admin sees those of all."""
        return None if self.may("admin") else self.tenant

    @property
    def name(self) -> str:
        """For the audit trail."""
        return f"key {self.key_id}" if self.key_id else "this machine"
