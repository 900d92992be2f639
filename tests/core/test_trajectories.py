"""Stage 2 leads to every concept, or says that it cannot."""

import pytest

from core.errors import ConceptInvalid
from core.specs import Concept, ErasureSpec
from core.trajectories import reaching_all


def concepts(count: int) -> list[Concept]:
    return [Concept(name=f"weapon {n}", replacement="flower") for n in range(count)]


def spec(**steering: int) -> ErasureSpec:
    return ErasureSpec(base_model="tiny", preset="weapons", steering=steering)


@pytest.mark.parametrize(("count", "drawn"), [(87, 87), (48, 48), (3, 48)])
def test_more_concepts_than_trajectories_get_one_each(count, drawn):
    assert reaching_all(spec(trajectories=48), concepts(count)).steering.trajectories == drawn


def test_a_run_too_short_to_reach_every_concept_is_refused():
    with pytest.raises(ConceptInvalid, match="2 steps of 4 points are too few for 9 concepts"):
        reaching_all(spec(steps=2, batch=4), concepts(9))


def test_without_stage_2_nothing_changes():
    alone = ErasureSpec(base_model="tiny", preset="weapons")
    assert reaching_all(alone, concepts(87)) is alone
