"""What a method measured of itself, in words and units that people read."""

from collections.abc import Mapping

WORDS = {
    "map_prompt_seconds": "Added to each prompt",
    "base_step_seconds": "One step of the base",
    "erased_step_seconds": "One step of this model",
    "peak_memory_bytes": "Memory it took to make",
    "artifact_bytes": "What a worker swaps in",
    "unet_bytes": "UNet, whole",
    "parameters_changed": "Weights changed",
    "samples_seconds": "Spent on samples on the way",
    "condition": "Condition of the closed form",
}
MB, GB = 1e6, 1e9


def facts(figures: Mapping[str, float]) -> list[tuple[str, str]]:
    """Name and value of each, in their order."""
    return [(_words(name), _value(name, value)) for name, value in figures.items()]


def _words(name: str) -> str:
    plain = name.removesuffix("_bytes").removesuffix("_seconds").replace("_", " ").capitalize()
    return WORDS.get(name, plain)


def _value(name: str, value: float) -> str:
    if name.endswith("_bytes"):
        return f"{value / GB:.2f} GB" if value >= GB else f"{value / MB:,.1f} MB"
    if name.endswith("_seconds"):
        return f"{value:,.1f} s" if value >= 1 else f"{value * 1e3:.3g} ms"
    if value == int(value) or abs(value) >= 1000:  # noqa: PLR2004
        return f"{value:,.0f}"
    return f"{value:.3g}"
