"""Stage 1, in memory: a text encoder and concepts in, the map of text space out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.progress import Reporter
from core.specs import Concept, ErasureSpec, TextualOptions
from diffusion.erasure import Erasure
from diffusion.model_concepts import ModelConcepts
from diffusion.prompts import PromptEncoder
from trainer.concepts import prompt_pairs, words_move
from trainer.earlier import Earlier
from trainer.preservation import Kept, caption_groups, read_groups
from trainer.reporting import counter
from trainer.trce.gathering import gather_statistics
from trainer.trce.statistics import Statistics
from trainer.trce.textual import TextualEdit, text_map


@dataclass(frozen=True)
class Solution:
    """Stage 1, and everything it was solved from."""

    edit: TextualEdit | None
    """None when no concept is left to erase."""
    pooled_edit: TextualEdit | None
    """Of pooled embeddings; SDXL alone has them."""
    strength: float
    statistics: Mapping[str, Statistics]
    kept: Kept

    @property
    def erasure(self) -> Erasure:
        maps = [
            None if edit is None else edit.at_strength(self.strength).float()
            for edit in (self.edit, self.pooled_edit)
        ]
        return Erasure(text_map=maps[0], pooled_map=maps[1])

    @property
    def relative_change(self) -> float:
        """||T - I|| / ||I||, at full strength."""
        return self.edit.relative_change if self.edit else 0.0

    @property
    def figures(self) -> dict[str, float]:
        """What is kept in the manifest; nothing when nothing was solved for."""
        if self.edit is None:
            return {}
        solved = [edit for edit in (self.edit, self.pooled_edit) if edit is not None]
        return {
            "condition_number": max(edit.condition for edit in solved),
            "relative_change": self.edit.relative_change,
            "words": Statistics.total(self.statistics.values()).weight,
        }


def solve(
    encoder: PromptEncoder | None,
    concepts: Sequence[Concept],
    spec: ErasureSpec,
    *,
    known: ModelConcepts | None,
    report: Reporter,
    cache: Path | None,
    earlier: Earlier | None = None,
) -> Solution:
    """Stage 1 in memory.

    Args:
        encoder: None when what is known from `earlier` suffices.
        known: what the base says it can draw; what is not erased of it is preserved.
        earlier: what is known already of some of the concepts, and of what is preserved.

    Raises:
        SingularEdit
    """
    options = spec.textual
    if encoder is None:
        assert earlier is not None
        advance = counter(report, "solving", 1)
        kept = earlier.kept.protecting(options.protect)
        solution = solve_again(earlier.statistics, kept, concepts, options)
        advance(1)
        return solution
    groups = caption_groups(
        known=known, protect=options.protect, seed=spec.seed, own=options.captions
    )
    advance = counter(report, "reading captions", sum(len(group.captions) for group in groups))
    kept = read_groups(
        encoder,
        groups,
        erased=words_of(concepts),
        cache=cache,
        advance=advance,
        known=earlier.kept if earlier else None,
    )
    taken = earlier or Earlier(frozenset(), {}, kept)
    pairs = prompt_pairs([one for one in concepts if one.name not in taken.concepts])
    advance = counter(report, "reading concepts", sum(map(len, pairs.values())))
    fresh = gather_statistics(
        encoder,
        pairs,
        which=options.eot_tokens,
        words_of=[one.name for one in concepts if words_move(one, options)],
        advance=advance,
    )

    advance = counter(report, "solving", 1)
    solution = solve_again({**taken.statistics, **fresh}, kept, concepts, options)
    advance(1)
    return solution


def solve_again(
    statistics: Mapping[str, Statistics],
    kept: Kept,
    concepts: Sequence[Concept],
    options: TextualOptions,
) -> Solution:
    """Stage 1 from what was summed up before: no prompt is read, so it takes milliseconds.

    Raises:
        SingularEdit
    """
    words = words_of(concepts)
    # In one order, so that the order of merging makes no bit of a difference.
    total = (
        Statistics.total(statistics[name] for name in sorted(statistics)) if statistics else None
    )
    pooled = total.pooled if total else None
    return Solution(
        edit=_solved(total, kept, words, options),
        pooled_edit=_solved(pooled, kept.pooled, words, options),
        strength=options.strength,
        statistics=statistics,
        kept=kept,
    )


def _solved(
    total: Statistics | None, kept: Kept | None, words: Sequence[str], options: TextualOptions
) -> TextualEdit | None:
    if total is None or kept is None:
        return None
    K = kept.moment(words)  # noqa: N806  (the paper's letter)
    return text_map(total, K, preserve=options.preserve, ridge=options.ridge)


def words_of(concepts: Sequence[Concept]) -> list[str]:
    return [word for concept in concepts for word in concept.words]
