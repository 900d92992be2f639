"""A small erasure by both stages, of the tiny model."""

from core.specs import ErasureSpec


def both_stages(**steering: int) -> ErasureSpec:
    """
    Args:
        steering: settings of stage 2, beside those that are the same everywhere.
    """
    return ErasureSpec.model_validate(
        {
            "base_model": "tiny",
            "concepts": [
                {"name": "axe", "synonyms": ["hatchet"], "replacement": "flower"},
                {"name": "pistol", "replacement": "dog"},
            ],
            "textual": {"preserve": 0.002, "ridge": 1e-4, "eot_tokens": "first"},
            "steering": {"steps": 6, "learning_rate": 1e-3, "kept_trajectories": 2} | steering,
        }
    )
