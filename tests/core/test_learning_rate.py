"""The default learning rate is for small models; for others it is refused at the door."""

import json
import os

import pytest

from core.errors import Invalid, UntrustedModel
from core.learning_rate import MANY_PARAMETERS, check_learning_rate
from core.specs import ErasureSpec
from tests.models_on_disk import ModelsOnDisk


@pytest.fixture
def base(tmp_path):
    """A folder whose UNet has so many parameters, in a sparse file."""

    def make(parameters: int, name: str = "diffusion_pytorch_model.safetensors"):
        (tmp_path / "unet").mkdir(exist_ok=True)
        told = {"w": {"dtype": "F16", "shape": [parameters], "data_offsets": [0, 2 * parameters]}}
        header = json.dumps(told).encode()
        with (tmp_path / "unet" / name).open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(8 + len(header) + 2 * parameters)
        return tmp_path

    return make


def spec(steering) -> ErasureSpec:
    return ErasureSpec.model_validate(
        {"base_model": "sd", "preset": "weapons", "steering": steering}
    )


def test_the_default_for_a_large_model_is_refused_with_what_to_give(base):
    large = base(MANY_PARAMETERS + 1)
    with pytest.raises(Invalid, match="published-sd1"):
        check_learning_rate(spec({}), large, None)
    stored = ErasureSpec.model_validate_json(spec({}).model_dump_json())
    with pytest.raises(Invalid, match="100 million"):
        check_learning_rate(stored, large, None)


@pytest.mark.parametrize("steering", [None, "published-sd1", {"learning_rate": 1e-5}])
def test_another_rate_or_none_is_taken(base, steering):
    check_learning_rate(spec(steering), base(MANY_PARAMETERS + 1), None)


def test_a_small_model_has_the_default(base, tmp_path):
    base(MANY_PARAMETERS // 2)
    check_learning_rate(spec({}), base(MANY_PARAMETERS // 2, "model.fp16.safetensors"), None)
    check_learning_rate(spec({}), tmp_path / "not here", None)


def test_a_pipe_among_the_weights_is_refused_and_waited_for_by_nobody(tmp_path):
    models = ModelsOnDisk(tmp_path)
    manifest = models.add("sd")
    weights = models.folder / "sd" / "unet" / "weights.safetensors"
    weights.unlink()
    os.mkfifo(weights)

    with pytest.raises(UntrustedModel, match="not a plain file"):
        check_learning_rate(spec({}), models.folder / "sd", manifest)
