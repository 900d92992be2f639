"""Addresses of other servers, as settings name them.

What is wrong with one is told without the address itself, which may hold a password.
"""

from urllib.parse import SplitResult, urlsplit

WEB = ("http", "https")
REDIS = ("redis", "rediss", "unix")


def check_web_url(given: str, example: str) -> None:
    """Raises ValueError: no scheme, no host, or a port that is none."""
    _split(given, WEB, example)


def check_origin(given: str) -> None:
    """A web site as browsers name it in `Origin`, or `*`, all of them.

    Raises:
        ValueError: it would match no site.
    """
    example = "https://app.example.org"
    if given == "*":
        return
    parts = _split(given, WEB, example)
    if given != f"{parts.scheme}://{parts.netloc.lower()}":
        raise ValueError(
            f"a web site is its scheme, host and port alone, in small letters, as in {example}"
        )


def check_redis_url(given: str) -> None:
    """Raises ValueError: redis-py could not connect there, or would use another database."""
    example = "redis://redis:6379/0"
    parts = _split(given, REDIS, example)
    database = parts.path.strip("/")
    if parts.scheme != "unix" and database and not database.isdecimal():
        raise ValueError(f"after the host stands the number of a database, as in {example}")


def without_password(url: str) -> str:
    """To be shown; also without its query, which may hold one."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _split(given: str, schemes: tuple[str, ...], example: str) -> SplitResult:
    if not given.startswith(tuple(f"{scheme}://" for scheme in schemes)):
        begins = " or ".join(f"{scheme}://" for scheme in schemes)
        raise ValueError(f"it begins with {begins}, as in {example}")
    try:
        parts = urlsplit(given)
        port = parts.port
    except ValueError:
        # Not its own words: they may quote a part of a password.
        port = 0
    if port == 0:
        raise ValueError(
            f"its port is not a number from 1 to 65535, as in {example}; in a password, / is "
            "written %2F, # %23, ? %3F and @ %40"
        )
    if parts.scheme == "unix" and not parts.path:
        raise ValueError("the path of a socket is missing, as in unix:///run/redis.sock?db=0")
    if parts.scheme != "unix" and not parts.hostname:
        raise ValueError(f"its host is missing, as in {example}")
    return parts
