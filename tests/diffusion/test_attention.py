import pytest
from diffusers import UNet2DConditionModel
from torch import nn

from core.errors import ModelUnsupported
from diffusion.attention import GROUPS, parameter_names, text_projections


def test_every_cross_attention_has_a_key_and_a_value_projection(unet, tiny):
    projections = text_projections(unet)

    layers = [name for name, _ in unet.named_modules() if name.endswith("attn2")]
    assert set(projections) == {f"{layer}.to_{part}" for layer in layers for part in "kv"}


def test_nothing_else_reads_the_text(unet, encoder):
    """With every text projection at zero, the prompt makes no difference."""
    import torch

    for projection in text_projections(unet).values():
        projection.weight.zero_()
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))[:1].expand(
        2, -1, -1, -1
    )
    dog, axe = unet(x, 500, encoder.encode_all(["a dog", "an axe"]).embeddings).sample

    torch.testing.assert_close(dog, axe)


def test_a_projection_with_a_bias_is_refused(unet):
    """A map of the text could not be folded into it."""
    name, projection = next(iter(text_projections(unet).items()))
    projection.bias = nn.Parameter(projection.weight[:, 0].clone())

    with pytest.raises(ModelUnsupported, match=name):
        text_projections(unet)


def test_a_unet_without_text_is_refused():
    plain = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        mid_block_type=None,
        up_block_types=("UpBlock2D",),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=24,
    )
    with pytest.raises(ModelUnsupported, match="no cross-attention"):
        text_projections(plain)


def test_no_parameter_is_in_two_groups_and_none_of_the_groups_is_empty(unet):
    names = [name for group in GROUPS for name in parameter_names(unet, group)]
    assert len(names) == len(set(names))
    assert all(parameter_names(unet, group) for group in GROUPS)
