"""The models that there are before a run begins: a base, and two that were erased from it."""

from core.manifests import Manifest
from core.registry import ModelRegistry
from core.signing import Signer
from tests.erased_models import add_erased

MODEL, MAPPED, CHANGED = "tiny", "tiny-mapped", "tiny-changed"
KIND_OF_MODEL = {MODEL: "base", MAPPED: "text map", CHANGED: "changed weights"}


def add_variants(base: Manifest, registry: ModelRegistry, signer: Signer) -> list[Manifest]:
    """Make both of a base, sign and promote them."""
    return [
        add_erased(model_id, base, registry, signer, seed=seed, changes_weights=changes)
        for seed, (model_id, changes) in enumerate([(MAPPED, False), (CHANGED, True)])
    ]
