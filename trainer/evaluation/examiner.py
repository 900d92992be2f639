"""The same questions, with the same seeds, to every model; the judge marks the answers."""

from collections.abc import Sequence

from PIL import Image

from core.rates import Rate
from diffusion.erasure import Erasure
from diffusion.judge import Judge
from trainer.evaluation.drawing import Studio
from trainer.evaluation.prompt_sets import PromptSet


class Examiner:
    def __init__(
        self,
        studio: Studio,
        judge: Judge,
        group: str,
        *,
        erased: Sequence[PromptSet],
        others: PromptSet,
    ) -> None:
        self._studio = studio
        self._judge = judge
        self._group = group
        self._erased = erased
        self._others = others

    def examine(self, erasure: Erasure) -> dict[str, Rate]:
        """Set name -> rate: of pictures that show the group; last, of others drawn right."""
        rates = {
            prompts.name: Rate.of(self._judge.shows(self._draw(prompts, erasure), self._group))
            for prompts in self._erased
        }
        names = self._judge.names(self._draw(self._others, erasure))
        answers = [question.answer for question in self._others.questions]
        right = [name == answer for name, answer in zip(names, answers, strict=True)]
        return {**rates, self._others.name: Rate.of(right)}

    def _draw(self, prompts: PromptSet, erasure: Erasure) -> list[Image.Image]:
        return self._studio.draw([question.prompt for question in prompts.questions], erasure)
