"""`trce keys`: who may use the service. Speaks to Redis, for whoever runs the installation."""

import getpass
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cli.answers import Json, answer
from cli.stack.borrowed import borrowed_redis
from core.audit import AuditTrail
from core.callers import LOCAL, SCOPES
from core.errors import Invalid
from core.keys import ApiKey, KeyStore
from core.settings import Settings
from core.signing import Signer, Verifier

app = typer.Typer(help="Create, list, rotate and revoke API keys.", no_args_is_help=True)

KeyId = Annotated[str, typer.Argument(help="A key's id, as `trce keys list` shows it.")]
DataDir = Annotated[Path | None, typer.Option(help="The installation's data folder.")]
UNITS_S = {"m": 60, "h": 3600, "d": 86400}


@app.command()
def create(
    scope: Annotated[
        list[str] | None,
        typer.Option(help=f"What it allows, of {', '.join(SCOPES)}; may be repeated."),
    ] = None,
    tenant: Annotated[
        str, typer.Option(help="Whose it is: jobs, policy, limits and queue share go by tenant.")
    ] = LOCAL,
    label: Annotated[str, typer.Option(help="A note to tell keys apart.")] = "",
    expires: Annotated[
        str | None, typer.Option(help="For how long it is valid, as 12h or 90d; for ever if not.")
    ] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Make a key and print it: it is shown this once.

    The first one closes the service: from then on every request needs a key, on this machine too.
    """
    life_s = None if expires is None else duration_s(expires)
    scopes = ", ".join(scope or ["generate"])
    with _keys(data_dir, "key.created", tenant, scopes=scopes, label=label) as keys:
        key, token = keys.create(
            scopes=scope or ["generate"], tenant=tenant, label=label, life_s=life_s
        )
    _tell(f"key {key.id} of tenant {key.tenant} allows {', '.join(key.scopes)}; keep it safe:")
    answer(token, _shown(key) | {"token": token}, as_json=as_json)


@app.command("list")
def list_keys(as_json: Json = False, data_dir: DataDir = None) -> None:
    """Every key there ever was, without its secret."""
    with _keys(data_dir) as keys:
        found = keys.all()
    table = Table("key", "tenant", "scopes", "state", "created", "expires", "label")
    for key in found:
        table.add_row(
            *(key.id, key.tenant, ", ".join(key.scopes), _state(key)),
            *(_date(key.created_at), _date(key.expires_at), key.label),
        )
    answer(table, [_shown(key) for key in found], as_json=as_json)


@app.command()
def revoke(key_id: KeyId, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Refuse a key from now on."""
    with _keys(data_dir, "key.revoked", key_id) as keys:
        key = keys.revoke(key_id)
    answer(f"{key.id} is revoked", _shown(key), as_json=as_json)


@app.command()
def rotate(
    key_id: KeyId,
    overlap: Annotated[
        str, typer.Option(help="How long the old secret still works, as 1h; 0m: not at all.")
    ] = "24h",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Give a key a new secret and print it: it is shown this once."""
    overlap_s = duration_s(overlap)
    with _keys(data_dir, "key.rotated", key_id, overlap=overlap) as keys:
        key, token = keys.rotate(key_id, overlap_s=overlap_s)
    until = f"until {_date(key.previous_until)}" if overlap_s else "no longer"
    _tell(f"key {key.id} has a new secret; the old one works {until}:")
    answer(token, _shown(key) | {"token": token}, as_json=as_json)


def duration_s(text: str) -> int:
    """`90d`, `12h`, `30m` in seconds.

    Raises:
        Invalid.
    """
    match = re.fullmatch(r"(\d{1,5})([mhd])", text)
    if match is None:
        raise Invalid(f"{text!r} is no duration; write minutes, hours or days: 30m, 12h, 90d")
    return int(match[1]) * UNITS_S[match[2]]


@contextmanager
def _keys(
    data_dir: Path | None, action: str = "", subject: str = "", **detail: str
) -> Iterator[KeyStore]:
    """The keys of an installation; what is done to them is written down first."""
    settings = Settings(data_dir=data_dir) if data_dir else Settings()
    with borrowed_redis(settings) as client:
        if not action:
            yield KeyStore(client)
            return
        signer = Signer.load_or_create(settings.keys_dir)
        trail = AuditTrail(client, signer, Verifier.load(settings.keys_dir))
        who = f"{getpass.getuser()} at {socket.gethostname()}"
        with trail.recording(action, subject, actor=who, tenant=LOCAL, detail=detail):
            yield KeyStore(client)


def _shown(key: ApiKey) -> dict[str, Any]:
    """All of a key but what its secret can be known by."""
    secret = {"digest", "previous_digest"}
    return key.model_dump(exclude=secret) | {"state": _state(key)}


def _state(key: ApiKey) -> str:
    return key.state(datetime.now(UTC).timestamp())


def _tell(what: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(what)


def _date(at: float | None) -> str:
    return "" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
