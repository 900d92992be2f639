"""What a set of concepts to erase may not contain: contradictions, and lists left empty."""

from collections.abc import Iterable, Sequence

from core.errors import ConceptInvalid
from core.phrases import mentions, singulars, without_article
from core.specs import Concept, ErasureSpec


def check_consistent(concepts: Sequence[Concept], protected: Iterable[str]) -> None:
    """No phrase may be sent to two places, kept and erased, or replaced by what is erased.

    Raises:
        ConceptInvalid
    """
    replacement_of: dict[str, Concept] = {}
    for concept in concepts:
        for phrase in concept.words:
            other = replacement_of.setdefault(without_article(phrase), concept)
            if other.replacement != concept.replacement:
                raise ConceptInvalid(
                    f"{phrase!r} is to become both {other.replacement!r} and "
                    f"{concept.replacement!r}; list it under one concept"
                )
    for concept in concepts:
        erased = mentions(concept.replacement, replacement_of)
        if erased is not None:
            raise ConceptInvalid(
                f"the replacement {concept.replacement!r} of {concept.name!r} speaks of "
                f"{erased!r}, which is to be erased; choose something that is to stay"
            )
    erased_as = {form: phrase for phrase in replacement_of for form in singulars(phrase)}
    for phrase in protected:
        erased = next((erased_as[form] for form in singulars(phrase) if form in erased_as), None)
        if erased is not None:
            same = "" if without_article(phrase) == erased else f", as {erased!r} and {phrase!r}"
            raise ConceptInvalid(f"{phrase!r} is both erased and protected{same}; choose one")


def check_captions(captions: Sequence[str], concepts: Sequence[Concept]) -> None:
    """One of a user's own captions at least is preserved.

    Raises:
        ConceptInvalid
    """
    erased = [word for concept in concepts for word in concept.words]
    if captions and all(mentions(caption, erased) is not None for caption in captions):
        raise ConceptInvalid(
            f"textual.captions: all {len(captions)} speak of what is erased ({captions[0]!r} of "
            f"{mentions(captions[0], erased)!r}), so that nothing would be preserved; give some "
            "that do not"
        )


def check_filled_in(spec: ErasureSpec) -> None:
    """Nobody who sends a list of phrases means none; a concept without any leaves it out.

    For specs as users wrote them: one that was stored and read has every field.

    Raises:
        ConceptInvalid
    """
    for concept in spec.concepts:
        for name in ("synonyms", "descriptions"):
            if name in concept.model_fields_set and not getattr(concept, name):
                raise ConceptInvalid(
                    f"the {name} of concept {concept.name!r} are an empty list; name some, or "
                    f"leave `{name}` out to erase the concept by its name alone"
                )
