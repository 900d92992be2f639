"""The model registry of an installation, from its settings."""

from core.registry import ModelRegistry
from core.settings import Settings
from core.signing import Verifier


def open_registry(settings: Settings) -> ModelRegistry:
    """Raises Misconfigured when there is no trusted key yet."""
    return ModelRegistry(
        settings.models_dir,
        Verifier.load(settings.keys_dir),
        serve_unerased_base=settings.serve_unerased_base,
        default_model=settings.default_model,
    )
