"""Policies and the screen of prompts."""

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from core.errors import PolicyNotFound, PolicyUnreadable, PromptRefused
from core.policies import FRESH_FOR_S, KEY, Policy, PolicyInForce, PolicyStore
from core.screening import screen

SCREENED = Policy.model_validate({"prompts": {"presets": ["weapons"], "words": ["pipe bomb"]}})


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def client(redis_url):
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def policies(client, clock):
    return PolicyStore(client, now=clock)


class TestStore:
    def test_without_any_policy_everything_that_is_served_is_allowed(self, policies):
        in_force = policies.of("acme")

        assert in_force.name == "default"
        assert in_force.policy == Policy()
        assert in_force.policy.allows_model("anything")

    def test_a_tenants_own_policy_goes_before_the_default_one(self, policies):
        policies.put("default", Policy(share=2))
        policies.put("acme", Policy(share=3))

        assert policies.of("acme").policy.share == 3
        assert policies.of("rival").policy.share == 2
        policies.remove("acme")
        assert policies.of("acme").policy.share == 2

    def test_a_change_holds_in_other_processes_soon(self, policies, client, clock):
        assert policies.of("acme").policy.share == 1
        PolicyStore(client).put("acme", Policy(share=5))
        assert policies.of("acme").policy.share == 1

        clock.at += FRESH_FOR_S
        assert policies.of("acme").policy.share == 5

    def test_a_policy_of_another_version_lets_nothing_through(self, policies, client):
        client.hset(KEY, "acme", '{"models": ["*"], "of_tomorrow": true}')

        with pytest.raises(PolicyUnreadable, match="acme"):
            policies.of("acme")

    def test_its_id_changes_with_what_it_says(self, policies):
        before = policies.put("acme", Policy())
        after = policies.put("acme", Policy(share=2))

        assert before.id != after.id
        assert before.id.startswith("acme@")
        assert policies.of("acme").id == after.id

    def test_what_is_not_there_is_not_found(self, policies):
        for verb in (policies.get, policies.remove):
            with pytest.raises(PolicyNotFound):
                verb("acme")


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"modles": ["*"]}, id="misspelt"),
        pytest.param({"models": []}, id="no model at all"),
        pytest.param({"models": ["../x"]}, id="a path"),
        pytest.param({"prompts": {"presets": ["none"]}}, id="unknown preset"),
        pytest.param({"limits": {"steps": 0}}, id="no steps"),
        pytest.param({"limits": {"steps": "20"}}, id="a text for a number"),
        pytest.param({"limits": {"images_per_day": 0}}, id="no pictures"),
        pytest.param({"share": 0}, id="no share"),
        pytest.param({"share": float("nan")}, id="NaN"),
        pytest.param({"priority": 3}, id="priority"),
        pytest.param({"priority": False}, id="priority that is no number"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValidationError):
        Policy.model_validate(wrong)


class TestModels:
    @pytest.mark.parametrize(
        ("patterns", "allowed"),
        [
            (["*"], True),
            (["emoji-weapons-1a2b"], True),
            (["emoji-weapons-*"], True),
            (["emoji-weapons"], False),
            (["other", "*-1a2?"], True),
            (["emoji"], False),
        ],
    )
    def test_ids_and_patterns(self, patterns, allowed):
        assert Policy(models=tuple(patterns)).allows_model("emoji-weapons-1a2b") is allowed


def is_refused(prompt: str, policy: Policy) -> bool:
    try:
        screen(prompt, PolicyInForce("acme", policy))
    except PromptRefused:
        return True
    return False


class TestScreen:
    @pytest.mark.parametrize(
        "prompt",
        [
            "a pistol on a table",
            "Pistols",
            "A PISTOL!",
            "ｐｉｓｔｏｌ",
            "a pís\u0301tol",
            "a pis\u200btol",
            "the pistol's owner",
            "_pistol_",
            "a pipe bomb",
            "a pipe-bomb",
            "pipe\n  bombs",
            "two knives in a drawer",
        ],
    )
    def test_what_names_a_listed_thing_is_refused(self, prompt):
        with pytest.raises(PromptRefused) as refused:
            screen(prompt, PolicyInForce("acme", SCREENED))

        finding = refused.value.finding
        assert (finding.stage, finding.detector) == ("prompt", "words")
        assert finding.category in {"weapons", "words"}
        assert finding.policy.startswith("acme@")
        assert prompt not in str(refused.value)

    @pytest.mark.parametrize(
        "prompt", ["a pistachio", "an epistol", "pipe and bombast", "a red apple"]
    )
    def test_other_words_pass(self, prompt):
        assert not is_refused(prompt, SCREENED)

    @settings(deadline=None)
    @given(st.text(max_size=200))
    def test_what_is_refused_stays_so_whatever_comes_after_it(self, prompt):
        assert is_refused(f"{prompt} and a cat", SCREENED) or not is_refused(prompt, SCREENED)

    @settings(deadline=None)
    @given(st.text(max_size=30), st.text(max_size=30))
    def test_a_listed_word_is_found_between_whatever_stands_around_it(self, before, after):
        with pytest.raises(PromptRefused):
            screen(f"{before} pistol {after}", PolicyInForce("acme", SCREENED))

    def test_a_policy_without_words_screens_nothing(self):
        assert not is_refused("a pistol", Policy())

    def test_a_listed_plural_is_not_taken_for_its_singular(self):
        policy = Policy.model_validate({"prompts": {"words": ["spirits", "cherry brandy"]}})

        assert is_refused("a bottle of spirits", policy)
        assert is_refused("two cherry brandies", policy)
        assert not is_refused("the spirit of adventure", policy)

    def test_a_word_without_letters_matches_nothing(self):
        policy = Policy.model_validate({"prompts": {"words": ["!!!", "axe"]}})

        assert not is_refused("a red apple !!!", policy)
        assert is_refused("an axe", policy)

    def test_only_words_without_letters_match_nothing(self):
        policy = Policy.model_validate({"prompts": {"words": ["!!!"]}})

        assert not is_refused("a red apple", policy)
