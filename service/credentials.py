"""The API key in a request: `Authorization: Bearer KEY`, or Basic with the key as password.

Clients of A1111 servers send Basic; the user name says nothing here.
"""

import base64
import binascii

from starlette.datastructures import Headers

from core.errors import ApiKeyRefused

MAX_CHARS = 1000


def api_key(headers: Headers) -> str | None:
    """The key as sent; None when there is no Authorization at all.

    Raises:
        ApiKeyRefused: there is one, but no key can be read from it.
    """
    sent = headers.getlist("authorization")
    if not sent:
        return None
    if len(sent) > 1:
        raise ApiKeyRefused("several Authorization headers were sent; send one")
    scheme, _, credentials = sent[0].strip().partition(" ")
    credentials = credentials.strip()
    if len(credentials) > MAX_CHARS:
        raise ApiKeyRefused("the Authorization header is too long to hold an API key")
    match scheme.lower():
        case "bearer" if credentials and " " not in credentials:
            return credentials
        case "bearer":
            raise ApiKeyRefused("send the key as `Authorization: Bearer KEY`")
        case "basic":
            return _password(credentials)
        case _:
            raise ApiKeyRefused(
                "the Authorization header is of an unknown kind; send `Bearer KEY`, or Basic with "
                "the key as password"
            )


def _password(credentials: str) -> str:
    try:
        user_and_password = base64.b64decode(credentials, validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise ApiKeyRefused("Basic credentials must be Base64 of `user:KEY` in UTF-8") from error
    _, colon, password = user_and_password.partition(":")
    if not colon or not password:
        raise ApiKeyRefused("Basic credentials must be Base64 of `user:KEY`; the key is missing")
    return password
