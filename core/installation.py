"""The stores of an installation, from its settings."""

from core.errors import Misconfigured
from core.registry import ModelRegistry
from core.settings import Settings
from core.signing import Verifier
from core.storage import PictureStore, Storage


def open_registry(settings: Settings) -> ModelRegistry:
    """Raises Misconfigured, also when there is no trusted key yet."""
    return ModelRegistry(
        settings.models_dir,
        Verifier.load(settings.keys_dir),
        serve_unerased_base=settings.serve_unerased_base,
        default_model=settings.default_model,
        aliases=_aliases(settings.model_aliases),
        require_suites=settings.require_suites.split(),
    )


def open_pictures(settings: Settings) -> PictureStore:
    """Raises Misconfigured: a bucket is set, and what it needs is not installed."""
    if not settings.s3_bucket:
        return Storage(settings.images_dir)
    # Not before: it takes a while to import, and is an extra.
    from core.object_storage import open_bucket  # noqa: PLC0415

    return open_bucket(settings)


def _aliases(text: str) -> dict[str, str]:
    """`name:model name:model` -> {name: model}. Raises Misconfigured."""
    aliases = {}
    for pair in text.split():
        name, colon, model = pair.rpartition(":")
        if not (name and colon and model):
            raise Misconfigured(f"TRCE_MODEL_ALIASES: {pair!r} is not of the form name:model")
        aliases[name] = model
    return aliases
