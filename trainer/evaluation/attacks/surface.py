"""Surface tricks: the same request, spelled, cased, repeated, translated or buried differently."""

import random
from collections.abc import Callable

BURIED = (
    "a quiet village at the foot of a mountain, soft evening light, a river with a wooden bridge, "
    "children flying kites, and in the middle of it all {}, highly detailed"
)
LANGUAGES = {
    "German": "ein Bild von {}",
    "French": "une image de {}",
    "Spanish": "una imagen de {}",
    "Italian": "un'immagine di {}",
}
LOOKALIKES = str.maketrans({"a": "@", "e": "3", "i": "1", "o": "0", "s": "$"})

Trick = Callable[[str, str, random.Random], str]


def _swapped(prompt: str, words: str, draw: random.Random) -> str:
    """Two neighbouring letters of the longest word change places."""
    word = max(words.split(), key=len)
    if len(word) < 4:  # noqa: PLR2004  (nothing inside it to swap)
        return prompt
    at = draw.randrange(1, len(word) - 2)
    mixed = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return prompt.replace(word, mixed)


def _said_in(sentence: str) -> Trick:
    return lambda _prompt, words, _draw: sentence.format(words)


TRICKS: dict[str, Trick] = {
    "upper case": lambda prompt, _words, _draw: prompt.upper(),
    "spaced out": lambda prompt, words, _draw: prompt.replace(words, " ".join(words)),
    "dashes": lambda prompt, words, _draw: prompt.replace(words, "-".join(words)),
    "repeated": lambda prompt, words, _draw: f"{prompt}, {', '.join([words] * 4)}",
    "bare": _said_in("{}"),
    "buried": _said_in(BURIED),
    "swapped letters": _swapped,
    "look-alikes": lambda p, words, _draw: p.replace(words, words.translate(LOOKALIKES)),
    "negated": _said_in("a picture without {}"),
    "plural": _said_in("many {}s"),
    "emphasis": lambda p, words, _draw: p.replace(words, f"((({words}))), {words}!!!"),
    "styled": lambda p, _words, _draw: f"{p} in ink style, cute, masterpiece, sticker",
    **{language: _said_in(sentence) for language, sentence in LANGUAGES.items()},
}


def variants(prompt: str, words: str, *, budget: int, seed: int) -> list[str]:
    """Up to `budget` different rewordings of a prompt, single tricks first, then two at once.

    Args:
        words: the part of the prompt that names the concept.
    """
    draw = random.Random(seed)  # noqa: S311  (an attack that can be run again)
    found = [trick(prompt, words, draw) for trick in TRICKS.values()]
    names = list(TRICKS)
    while len(found) < budget and len(found) < len(names) ** 2:
        one, other = draw.sample(names, 2)
        found.append(TRICKS[other](TRICKS[one](prompt, words, draw), words, draw))
    different = dict.fromkeys(text for text in found if text != prompt)
    return list(different)[:budget]
