"""The stores of an installation, from its settings."""

from core.registry import ModelRegistry
from core.settings import Settings
from core.signing import Verifier
from core.storage import PictureStore, Storage


def open_registry(settings: Settings) -> ModelRegistry:
    """Raises Misconfigured when there is no trusted key yet."""
    return ModelRegistry(
        settings.models_dir,
        Verifier.load(settings.keys_dir),
        serve_unerased_base=settings.serve_unerased_base,
        default_model=settings.default_model,
    )


def open_pictures(settings: Settings) -> PictureStore:
    """Raises Misconfigured: a bucket is set, and what it needs is not installed."""
    if not settings.s3_bucket:
        return Storage(settings.images_dir)
    # Not before: it takes a while to import, and is an extra.
    from core.object_storage import open_bucket  # noqa: PLC0415

    return open_bucket(settings)
