"""The stores of an installation, and what is cleared away of them, from its settings."""

import redis

from core.default_model import DefaultModel
from core.errors import Misconfigured
from core.leavings import Leavings
from core.model_folder import INCOMING
from core.model_mirror import ModelMirror
from core.redis_connection import connect
from core.registrar import LOCKS
from core.registry import ModelRegistry
from core.settings import Settings
from core.signing import Verifier
from core.status_serials import StatusSerials
from core.storage import PictureStore, Storage


def open_registry(settings: Settings, serials: StatusSerials | None = None) -> ModelRegistry:
    """
    Args:
        serials: what refuses manifests that were put back; without it they are as good as any.

    Raises:
        Misconfigured: also when there is no trusted key yet.
    """
    return _registry(settings, serials, None)


def open_serving_registry(
    settings: Settings, pointed: DefaultModel | None = None
) -> ModelRegistry:
    """For whoever serves models, or decides on them: refuses manifests that were put back.

    Args:
        pointed: what `default` means, if the caller has it already.

    Raises:
        Misconfigured.
    """
    if settings.redis_url is None:
        raise Misconfigured("REDIS_URL is not set; `trce up` starts a Redis and sets it")
    # Not patient: whoever asks waits meanwhile. Resting: until it has answered once everybody asks
    # it, one after the other, and each would wait for one that says nothing.
    client = connect(settings.redis_url, retry_s=0, rest_s=1.0)
    pointed = pointed or open_default_model(settings, client)
    return _registry(settings, StatusSerials(client), pointed)


def open_default_model(settings: Settings, client: redis.Redis) -> DefaultModel:
    return DefaultModel(client, setting=settings.default_model)


def _registry(
    settings: Settings, serials: StatusSerials | None, pointed: DefaultModel | None
) -> ModelRegistry:
    verifier = Verifier.load(settings.keys_dir)
    return ModelRegistry(
        settings.models_dir,
        verifier,
        serve_unerased_base=settings.serve_unerased_base,
        default_model=settings.default_model,
        aliases=_aliases(settings.model_aliases),
        making=settings.making_dir,
        require_suites=settings.require_suites.split(),
        serials=serials,
        pointed=pointed,
        mirror=_mirror(settings, verifier) if settings.s3_models else None,
    )


def _mirror(settings: Settings, verifier: Verifier) -> ModelMirror:
    # As with pictures, see below.
    from core.object_storage import s3_client  # noqa: PLC0415

    settings.models_dir.mkdir(parents=True, exist_ok=True)
    return ModelMirror(s3_client(settings), settings.s3_bucket, settings.models_dir, verifier)


def open_pictures(settings: Settings) -> PictureStore:
    """Raises Misconfigured: a bucket is set, and what it needs is not installed."""
    if not settings.s3_bucket:
        return Storage(settings.images_dir)
    # Not before: it takes a while to import, and is an extra.
    from core.object_storage import open_bucket  # noqa: PLC0415

    return open_bucket(settings)


def leavings_of(settings: Settings) -> Leavings:
    return Leavings(
        *(settings.models_dir / INCOMING, settings.making_dir),
        locks=settings.models_dir / LOCKS,
        cache=settings.cache_dir,
    )


def _aliases(text: str) -> dict[str, str]:
    """`name:model name:model` -> {name: model}. Raises Misconfigured."""
    aliases = {}
    for pair in text.split():
        name, colon, model = pair.rpartition(":")
        if not (name and colon and model):
            raise Misconfigured(f"TRCE_MODEL_ALIASES: {pair!r} is not of the form name:model")
        aliases[name] = model
    return aliases
