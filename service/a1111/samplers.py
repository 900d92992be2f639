"""A1111's names for schedulers: a sampler, and beside it the schedule of its noise levels."""

from core.schedulers import SCHEDULERS

OWN = "Automatic"
"""As a sampler: the model's own."""
KARRAS_BY_ITSELF = {"dpm++ 2m", "dpm2", "dpm2 a"}
"""Where A1111 takes Karras' levels unless a client says otherwise."""
SCHEDULES = ("Automatic", "Karras")
SAMPLERS = list(dict.fromkeys(one.label for one in SCHEDULERS.values()))

_NAMES = {(one.label.casefold(), one.karras): name for name, one in SCHEDULERS.items()}


def scheduler_named(sampler: str, schedule: str) -> str | None:
    """The public name of a scheduler; None for the model's own.

    "DPM++ 2M Karras" is how clients wrote both in one, once; case counts for nothing.

    Raises:
        ValueError: there is no such sampler, or it has no such schedule.
    """
    label, levels = sampler.casefold(), schedule.casefold()
    if label in {"", OWN.casefold()}:
        return None
    if label.endswith(" karras"):
        label, levels = label.removesuffix(" karras"), "karras"
    if (label, False) not in _NAMES:
        raise ValueError(f"no sampler {sampler!r}; there are {', '.join([OWN, *SAMPLERS])}")
    if levels not in {"", *(one.casefold() for one in SCHEDULES)}:
        raise ValueError(f"no schedule {schedule!r}; there are {', '.join(SCHEDULES)}")
    karras = levels == "karras"
    if karras and (label, True) not in _NAMES:
        raise ValueError(f"{sampler!r} has no schedule {schedule!r}; leave it Automatic")
    return _NAMES[label, karras or label in KARRAS_BY_ITSELF]
