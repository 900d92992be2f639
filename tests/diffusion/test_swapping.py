import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import ModelUnsupported
from diffusion.swapping import SwappableUNet

NAMES = ["conv_in.bias", "conv_out.bias", "time_embedding.linear_1.bias", "conv_out.weight"]


def changed(unet, names, value):
    return {name: torch.full_like(unet.get_parameter(name), value) for name in names}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.lists(st.sets(st.sampled_from(NAMES)), max_size=6))
def test_whatever_was_worn_before_the_unet_is_the_base_with_the_last_erasure(unet, worn):
    base = copy.deepcopy(unet.state_dict())
    swappable = SwappableUNet(unet)
    for number, names in enumerate(worn):
        tensors = changed(unet, sorted(names), number + 0.1)
        swappable.wear(tensors)
        for name, tensor in unet.state_dict().items():
            assert torch.equal(tensor, tensors.get(name, base[name])), name

    swappable.wear({})
    assert all(torch.equal(base[name], tensor) for name, tensor in unet.state_dict().items())


def test_weights_stay_where_they_are_in_memory(unet):
    """A captured graph reads from fixed addresses."""
    places = {name: tensor.data_ptr() for name, tensor in unet.state_dict().items()}
    swappable = SwappableUNet(unet)
    swappable.wear(changed(unet, NAMES, 1.0))
    swappable.wear({})

    assert {name: tensor.data_ptr() for name, tensor in unet.state_dict().items()} == places


def test_a_foreign_erasure_is_refused_and_what_was_worn_stays_on(unet):
    swappable = SwappableUNet(unet)
    worn = changed(unet, NAMES[:1], 3.0)
    swappable.wear(worn)
    with pytest.raises(ModelUnsupported):
        swappable.wear({"conv_out.bias": torch.zeros(4), "nowhere": torch.zeros(1)})

    assert torch.equal(unet.get_parameter(NAMES[0]), worn[NAMES[0]])
    assert unet.get_parameter("conv_out.bias").abs().sum() > 0
