"""A1111's names for schedulers: a sampler, and beside it the schedule of its noise levels."""

from core.schedulers import FLAGS, SCHEDULERS

OWN = "Automatic"
"""As a sampler: the model's own."""
KARRAS_BY_ITSELF = {"dpm++ 2m", "dpm2", "dpm2 a"}
"""Where A1111 takes Karras' levels unless a client says otherwise."""
SCHEDULES = ("Automatic", *(levels.capitalize() for levels in FLAGS))
SAMPLERS = list(dict.fromkeys(one.label for one in SCHEDULERS.values()))

_NAMES: dict[tuple[str, str], str] = {
    (one.label.casefold(), one.levels): name for name, one in SCHEDULERS.items()
}


def scheduler_named(sampler: str, schedule: str) -> str | None:
    """The public name of a scheduler; None for the model's own.

    "DPM++ 2M Karras" and "... Exponential" are how clients wrote both in one, once; case counts
    for nothing.

    Raises:
        ValueError: there is no such sampler, or it has no such schedule.
    """
    label, levels = sampler.casefold(), schedule.casefold() or "automatic"
    if label in {"", OWN.casefold()}:
        return None
    for told in FLAGS:
        if label.endswith(f" {told}"):
            label, levels = label.removesuffix(f" {told}"), told
    if (label, "automatic") not in _NAMES:
        raise ValueError(f"no sampler {sampler!r}; there are {', '.join([OWN, *SAMPLERS])}")
    if levels not in {one.casefold() for one in SCHEDULES}:
        raise ValueError(f"no schedule {schedule!r}; there are {', '.join(SCHEDULES)}")
    if levels == "automatic" and label in KARRAS_BY_ITSELF:
        levels = "karras"
    if (label, levels) not in _NAMES:
        raise ValueError(
            f"{sampler!r} has no schedule {levels.capitalize()!r}; leave it Automatic"
        )
    return _NAMES[label, levels]
