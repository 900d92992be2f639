"""What a client wishes of a job beside the work itself. Workers and models know nothing of it."""

from typing import Annotated, Any

from pydantic import Field, StringConstraints

from core.evaluation import EvaluationSpec
from core.fields import Spec
from core.specs import ErasureSpec, GenerationSpec

MAX_DEADLINE_S = 30 * 24 * 3600
MAX_URL_CHARS = 2000


DeadlineS = Annotated[float, Field(strict=True, ge=1, le=MAX_DEADLINE_S, allow_inf_nan=False)]


class Delivery(Spec):
    deadline_s: DeadlineS | None = None
    """Give the job up if it has not ended this many seconds after it was accepted."""

    webhook: (
        Annotated[str, StringConstraints(max_length=MAX_URL_CHARS, pattern=r"^https?://[!-~]+$")]
        | None
    ) = None
    """The address of your own server to POST to when the job has ended."""

    @property
    def wishes(self) -> dict[str, Any]:
        """Those that were expressed."""
        return self.model_dump(mode="json", include=set(Delivery.model_fields), exclude_none=True)


NO_WISHES = Delivery()


class GenerationRequest(GenerationSpec, Delivery):
    @property
    def spec(self) -> GenerationSpec:
        return GenerationSpec(**_without_wishes(self))


class ErasureRequest(ErasureSpec, Delivery):
    @property
    def spec(self) -> ErasureSpec:
        return ErasureSpec(**_without_wishes(self))


class EvaluationRequest(EvaluationSpec, Delivery):
    @property
    def spec(self) -> EvaluationSpec:
        return EvaluationSpec(**_without_wishes(self))


def _without_wishes(request: Spec) -> dict[str, Any]:
    """What was sent of the spec: what was not sent stays unset."""
    chosen = request.model_fields_set - set(Delivery.model_fields)
    return {name: getattr(request, name) for name in chosen}
