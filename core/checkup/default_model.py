"""What `default` means: clients that name no model are refused while that is not served."""

from core.checkup.check import Check, ok, warning
from core.default_model import DefaultModel
from core.errors import AppError, ModelNotFound
from core.registry import ModelRegistry

NAME = "default model"


def check_default(pointed: DefaultModel, registry: ModelRegistry) -> Check:
    model_id = pointed.current()
    try:
        registry.served(model_id)
    except ModelNotFound:
        because = f"there is no model {model_id}"
    except AppError as error:
        because = error.detail
    else:
        return ok(NAME, f"{model_id}, which is served")
    return warning(
        NAME,
        f"requests that name no model are refused: {because}",
        "promote one with `trce models promote MODEL --default`, or point to one that is served "
        "with `trce models default MODEL`",
    )
