"""`trce signing`: the key that signs models, and the keys whose signatures are accepted."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cli.answers import Json, answer
from cli.auditing import recorded
from cli.byte_bars import byte_bar, size_of
from cli.stack.borrowed import borrowed_redis
from core.installation import open_registry
from core.key_folder import KeyFolder
from core.registrar import Registrar
from core.settings import Settings
from core.signing import Signer
from core.status_serials import StatusSerials

app = typer.Typer(
    help="Rotate and revoke the keys that sign models. Takes effect while everything runs.",
    no_args_is_help=True,
)

DataDir = Annotated[Path | None, typer.Option(help="The installation's data folder.")]
Pictures = Annotated[
    bool, typer.Option("--pictures", help="The keys that sign pictures, not those for models.")
]


@app.command("list")
def list_keys(pictures: Pictures = False, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Every key, and what its signature counts for."""
    settings = _settings(data_dir)
    keys = KeyFolder(settings.picture_keys_dir if pictures else settings.keys_dir)
    signs = Signer.load(keys.folder).key_id
    table, found = Table("key", "state", "models"), []
    models = [] if pictures else open_registry(settings).all()
    revoked = keys.revoked()
    for one in sorted({*keys.trusted(), *revoked}, key=lambda one: (one != signs, one)):
        state = "revoked" if one in revoked else "signs" if one == signs else "trusted"
        signed = [model.id for model in models if model.signed_by == one]
        table.add_row(one, state, ", ".join(signed))
        found.append({"key": one, "state": state, "models": signed})
    answer(table, found, as_json=as_json)


@app.command()
def rotate(
    resign: Annotated[
        bool,
        typer.Option(
            help="Sign the models that are trusted now again with the new key. Not when the old "
            "one was stolen: then the thief's models are among them."
        ),
    ] = True,
    pictures: Pictures = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Sign with a new key from now on. What the old one signed is accepted until it is revoked."""
    settings = _settings(data_dir)
    keys = KeyFolder(settings.picture_keys_dir if pictures else settings.keys_dir)
    old = Signer.load(keys.folder).key_id
    signed = []
    with borrowed_redis(settings) as client:
        with recorded(settings, "signing-key.rotated", old):
            new = keys.rotate()
        if resign and not pictures:
            registry = open_registry(settings, StatusSerials(client))
            models = [manifest.id for manifest in registry.all()]
            with byte_bar("signing", size_of(map(registry.path, models)), as_json=as_json):
                for model_id in models:
                    Registrar(registry).sign_again(model_id, Signer.load(settings.keys_dir))
                    signed.append(model_id)
    words = [f"key {new} signs; {old} is trusted until `trce signing revoke {old}`"]
    words += [f"{model} is signed by {new}" for model in signed]
    answer(words, {"signs": new, "trusted": old, "models": signed}, as_json=as_json)


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(help="A key's id, as `trce signing list` shows it.")],
    pictures: Pictures = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Accept no longer what a key signed: models signed by it are served no more, at once."""
    settings = _settings(data_dir)
    keys = KeyFolder(settings.picture_keys_dir if pictures else settings.keys_dir)
    with recorded(settings, "signing-key.revoked", key):
        keys.revoke(key)
    untrusted = {} if pictures else open_registry(settings).untrusted()
    lost = [f"{name} is not served: {reason}" for name, reason in untrusted.items()]
    answer(
        [f"key {key} is revoked", *lost], {"revoked": key, "untrusted": untrusted}, as_json=as_json
    )


@app.command()
def resign(
    models: Annotated[
        list[str] | None, typer.Argument(help="Ids of models; every trusted one if none is named.")
    ] = None,
    vouch: Annotated[
        bool,
        typer.Option(
            "--vouch",
            help="Sign the models that are named whoever signed them before: you answer for them.",
        ),
    ] = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Sign models with the key that signs now, after checking the digest of every file."""
    if vouch and not models:
        raise typer.BadParameter("--vouch: name the models that you answer for")
    settings = _settings(data_dir)
    signer = Signer.load(settings.keys_dir)
    action = "model.vouched" if vouch else "model.signed-again"
    with borrowed_redis(settings) as client:
        registry = open_registry(settings, StatusSerials(client))
        named = models or [manifest.id for manifest in registry.all()]
        with byte_bar("signing", size_of(map(registry.path, named)), as_json=as_json):
            for model_id in named:
                with recorded(settings, action, model_id):
                    Registrar(registry).sign_again(model_id, signer, vouched=vouch)
    words = [f"{model_id} is signed by {signer.key_id}" for model_id in named]
    answer(words, {"signs": signer.key_id, "models": named}, as_json=as_json)


def _settings(data_dir: Path | None) -> Settings:
    return Settings(data_dir=data_dir) if data_dir else Settings()
