"""How many trajectories stage 2 needs for what it is to be trained away from."""

from collections.abc import Sequence

from core.errors import ConceptInvalid
from core.specs import Concept, ErasureSpec


def reaching_all(spec: ErasureSpec, concepts: Sequence[Concept]) -> ErasureSpec:
    """The spec, with a trajectory to each concept at least: what none leads to would stay.

    Raises:
        ConceptInvalid: there is no concept to train for, or more than points in the whole run.
    """
    steering = spec.steering
    if steering is None:
        return spec
    if not concepts:
        raise ConceptInvalid("steering: no concept is left to erase; leave it out")
    if len(concepts) > steering.steps * steering.batch:
        raise ConceptInvalid(
            f"steering: {steering.steps} steps of {steering.batch} points are too few for "
            f"{len(concepts)} concepts; each is to be reached once at least"
        )
    enough = max(steering.trajectories, len(concepts))
    return spec.model_copy(
        update={"steering": steering.model_copy(update={"trajectories": enough})}
    )
