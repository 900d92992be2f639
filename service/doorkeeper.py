"""Tells who sends a request, from its headers; refuses whoever has no key where one is needed."""

import contextlib

from starlette.datastructures import Headers

from core.addresses import is_loopback
from core.callers import Caller
from core.errors import ApiKeyRefused, StoreUnavailable
from core.keys import KeyStore
from service.credentials import api_key
from service.origins import is_from_another_site
from service.sessions import Sessions, session_id

FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


class Doorkeeper:
    def __init__(self, keys: KeyStore, sessions: Sessions, *, keyless: bool) -> None:
        """
        Args:
            sessions: what a browser sends instead of a key.
            keyless: requests of this machine need no key while none has ever been created.
        """
        self._keys = keys
        self._sessions = sessions
        self._keyless = keyless
        self._keys_exist: bool | None = None

    def lets_nobody_in(self) -> bool:
        """Whether a key is needed where none exists; False if Redis does not say.

        To be asked at the start: Redis may be away at the first request.
        """
        with contextlib.suppress(StoreUnavailable):
            return self.needs_key() and not self._keys.exist()
        return False

    def identify(self, headers: Headers, *, request_id: str, changes: bool = True) -> Caller:
        """
        Args:
            changes: the request is one that may change something.

        Raises:
            ApiKeyRefused, StoreUnavailable.
        """
        if not self.needs_key():
            _require_this_machine(headers)
            return Caller(request_id=request_id)
        token = api_key(headers)
        if token is not None:
            key = self._keys.check(token)
        elif (opened := session_id(headers.get("cookie", ""))) is not None:
            if changes and is_from_another_site(headers):
                raise ApiKeyRefused("a session is for the pages of this site alone")
            key = self._sessions.key(opened)
        else:
            raise ApiKeyRefused("an API key is needed: send `Authorization: Bearer KEY`")
        return Caller(key.tenant, key.id, frozenset(key.scopes), request_id)

    def needs_key(self) -> bool:
        """Once there was a key there is no way back, so that answer is remembered.

        Raises:
            StoreUnavailable: it was never known.
        """
        if self._keyless and not self._keys_exist:
            try:
                self._keys_exist = self._keys.exist()
            except StoreUnavailable:
                # As when it was last known: only what needs no Redis is served meanwhile anyway.
                if self._keys_exist is None:
                    raise
        return not self._keyless or bool(self._keys_exist)


def _require_this_machine(headers: Headers) -> None:
    """The address we listen on lets nobody else in, but a proxy or a browser may bring others.

    Raises:
        ApiKeyRefused.
    """
    if any(name in headers for name in FORWARDED):
        raise ApiKeyRefused(
            "a proxy passes requests of other machines on, and there are no API keys yet; "
            "`trce keys create` makes one"
        )
    # A page of another site may have its name resolve to this machine (DNS rebinding).
    host = headers.get("host", "")
    name, _, port = host.rpartition(":")
    if not is_loopback(name if name and port.isdigit() else host):
        raise ApiKeyRefused(
            "without API keys only this machine is served, under the name localhost or a loopback "
            "address; `trce keys create` makes a key"
        )
