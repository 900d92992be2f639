"""What stage 2's trajectories follow is balanced, seeded, and never what it must not be."""

from trainer.concepts import PromptPair
from trainer.preservation import CaptionGroup
from trainer.trce.following import captions_to_follow, pairs_to_follow


def pairs(concept: str, count: int) -> tuple[PromptPair, ...]:
    return tuple(PromptPair(f"{concept} {n}", "a flower", 1.0) for n in range(count))


PAIRS = {"axe": pairs("axe", 50), "pistol": pairs("pistol", 3), "sword": pairs("sword", 50)}


def test_every_concept_has_its_turn():
    """Also those far down a long list: the reference reads the first twenty and no more."""
    many = {f"concept {n}": pairs(f"concept {n}", 15) for n in range(64)}
    followed = pairs_to_follow(many, 64, seed=0)

    assert {pair.unsafe.rsplit(" ", 1)[0] for pair in followed} == set(many)


def test_a_concept_with_few_pairs_gives_way_to_others():
    followed = [pair.unsafe.split()[0] for pair in pairs_to_follow(PAIRS, 30, seed=0)]

    assert followed.count("pistol") == 3
    assert abs(followed.count("axe") - followed.count("sword")) <= 1


def test_no_pair_comes_twice():
    followed = pairs_to_follow(PAIRS, 1000, seed=0)

    assert len(set(followed)) == len(followed) == 103


def test_the_seed_decides():
    assert pairs_to_follow(PAIRS, 9, seed=1) == pairs_to_follow(PAIRS, 9, seed=1)
    assert pairs_to_follow(PAIRS, 9, seed=1) != pairs_to_follow(PAIRS, 9, seed=2)


def test_captions_speak_of_nothing_erased_and_come_from_every_group():
    groups = [
        CaptionGroup("everyday", tuple(f"a cat {n}" for n in range(20)), 1.0),
        CaptionGroup("empty", ("",), 1.0),
        CaptionGroup("in domain", ("an axe", "two axes on a wall", "a hammer", "a saw"), 1.0),
    ]
    followed = captions_to_follow(groups, 6, erased=["axe"], seed=0)

    assert {"a hammer", "a saw"} < set(followed)
    assert len(followed) == 6
    assert not {"", "an axe", "two axes on a wall"} & set(followed)


def neighbours(count: int, **weights: float) -> list[CaptionGroup]:
    names = [f"tool{n}" for n in range(count)]
    return [
        CaptionGroup(f"neighbour: {name}", tuple(f"{name}, {n}" for n in range(15)), weight)
        for name in names
        if (weight := weights.get(name, 1.0))
    ]


def test_many_neighbours_together_are_one_group():
    everyday = CaptionGroup("everyday", tuple(f"a cat {n}" for n in range(99)), 1.0)
    followed = captions_to_follow([everyday, *neighbours(30)], 60, erased=[], seed=0)

    assert sum(one.startswith("a cat") for one in followed) == 30


def test_neighbours_are_followed_as_often_as_they_weigh():
    groups = neighbours(10, tool3=20.0)
    followed = [captions_to_follow(groups, 10, erased=[], seed=seed) for seed in range(40)]
    heavy = sum(one.startswith("tool3,") for few in followed for one in few)

    # 20 of 29 at the first draw, and less as its fifteen captions are used up.
    assert 200 < heavy < 280
