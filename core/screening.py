"""The screen of prompts: refuses those that name what a policy lists.

It looks for words, so it is a first line and no more: who describes a thing without naming it
passes, and the picture is then for the erased model and the detectors. Spelling tricks that
cost nothing to undo are undone: case, width, accents set apart, invisible characters, hyphens.
"""

import re
import unicodedata
from functools import lru_cache

from core import presets
from core.errors import PromptRefused
from core.findings import Finding
from core.phrases import with_plural
from core.policies import PolicyInForce, PromptScreen

WORDS = "words"
"""The category of a policy's own words, and the name of this detector."""


def screen(prompt: str, policy: PolicyInForce) -> None:
    """Raises PromptRefused when the prompt names what the policy does not allow."""
    plain = _plain(prompt)
    for category, pattern in _patterns(policy.policy.prompts):
        if pattern.search(plain):
            finding = Finding(stage="prompt", detector=WORDS, category=category, policy=policy.id)
            raise PromptRefused(
                f"prompt: the policy in force allows no prompt about {category}; describe "
                "something else",
                finding,
            )


@lru_cache(maxsize=64)
def _patterns(rules: PromptScreen) -> tuple[tuple[str, re.Pattern[str]], ...]:
    """(category, what matches it) for each list of words."""
    lists = {
        name: [word for concept in presets.load(name) for word in concept.words]
        for name in rules.presets
    }
    if rules.words:
        lists[WORDS] = list(rules.words)
    return tuple((category, _pattern(words)) for category, words in lists.items())


def _pattern(words: list[str]) -> re.Pattern[str]:
    """Any of the words, and its plural, as whole words.

    Not the singular of a plural: who lists `spirits` does not mean every `spirit`.
    """
    spelled = {_plain(word) for word in words} - {""}
    if not spelled:
        return re.compile(r"(?!)")  # matches nothing
    either = "|".join(map(with_plural, sorted(spelled)))
    return re.compile(rf"(?<!\w)(?:{either})(?!\w)")


def _plain(text: str) -> str:
    """Lower case, without accents and invisible characters; whatever parts words is one space."""
    decomposed = unicodedata.normalize("NFKD", text)
    seen = (char for char in decomposed if unicodedata.category(char) not in {"Cf", "Mn"})
    return re.sub(r"[\W_]+", " ", "".join(seen).casefold()).strip()
