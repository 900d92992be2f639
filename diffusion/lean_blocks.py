"""The blocks of a UNet and a VAE, computed with fewer passes through memory.

diffusers' own forwards serve every model there ever was, and training. Drawing needs less: sums
and activations are written where an operand was, tokens keep the layout of the convolutions around
them, and on a CPU texts are padded to a number of keys that its attention takes whole. What is
computed is the same, to the rounding; parameters and their names stay, and so do blocks of kinds
that are not known here.

CPU time of a pass of the shipped model, of diffusers': 0.85 with 2 rows, 0.86 with 32; of its VAE
0.96 (`python -m benchmarks.serving --only blocks`).
"""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock, FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

from diffusion.text_memory import RememberingLinear


def make_lean(module: nn.Module) -> None:
    """Let the blocks in a UNet or VAE that are known here compute in their lean way.

    It is for drawing: what they read is never written to, what they compute may be. Texts are
    padded by the projections that remember them (`diffusion/text_memory.py`).
    """
    on_cpu = next(module.parameters()).device.type == "cpu"
    for block in module.modules():
        if type(block) is ResnetBlock2D and _plain_resnet(block):
            block.__class__ = LeanResnet
        elif type(block) is Transformer2DModel and _plain_transformer(block):
            block.__class__ = LeanTransformer
            for one in block.transformer_blocks:
                _make_lean_block(one, pads=on_cpu)


def _make_lean_block(block: BasicTransformerBlock, *, pads: bool) -> None:
    block.__class__ = LeanTransformerBlock
    block.ff.__class__ = LeanFeedForward
    for attention in (block.attn1, block.attn2):
        attention.__class__ = LeanAttention
    for projection in (block.attn2.to_k, block.attn2.to_v):
        if isinstance(projection, RememberingLinear):
            projection.pads = pads


class LeanResnet(ResnetBlock2D):
    def forward(self, input_tensor: Tensor, temb: Tensor | None = None) -> Tensor:
        """(n, c, h, w) and, of a UNet, (n, d) of its timesteps -> (n, out, h, w)."""
        hidden = self.conv1(F.silu(self.norm1(input_tensor), inplace=True))
        if temb is not None:
            hidden.add_(self.time_emb_proj(F.silu(temb))[:, :, None, None])
        hidden = self.conv2(F.silu(self.norm2(hidden), inplace=True))
        shortcut = self.conv_shortcut
        added: Tensor = hidden.add_(input_tensor if shortcut is None else shortcut(input_tensor))
        return added


def _plain_resnet(block: ResnetBlock2D) -> bool:
    return (
        type(block.nonlinearity) is nn.SiLU
        and block.time_embedding_norm != "scale_shift"
        and not block.skip_time_act
        and block.upsample is None
        and block.downsample is None
        and block.output_scale_factor == 1
    )


class LeanTransformer(Transformer2DModel):
    """Its 1 x 1 convolutions are linear maps of tokens, which lie as (n, h, w, c) in memory."""

    def forward(
        self, hidden_states: Tensor, encoder_hidden_states: Tensor, **others: Any
    ) -> tuple[Tensor]:
        """(n, c, h, w) and (n, tokens, d) of texts -> (n, c, h, w), alone in a tuple."""
        unusual = [name for name, one in others.items() if isinstance(one, Tensor) or one]
        assert not unusual, f"no lean block has masks, or options: {unusual}"
        n, c, h, w = hidden_states.shape
        tokens = self.norm(hidden_states).permute(0, 2, 3, 1).reshape(n, h * w, c)
        tokens = _mapped(tokens, self.proj_in)
        for block in self.transformer_blocks:
            tokens = block(tokens, encoder_hidden_states=encoder_hidden_states)
        tokens = _mapped(tokens, self.proj_out)
        grid = tokens.view(n, h, w, c).permute(0, 3, 1, 2)
        if hidden_states.is_contiguous():
            # Convolutions around it would lay out their weights anew for each pass.
            grid = grid.contiguous()
        return (grid.add_(hidden_states),)


def _plain_transformer(block: Transformer2DModel) -> bool:
    return bool(block.is_input_continuous) and all(map(_plain_block, block.transformer_blocks))


class LeanTransformerBlock(BasicTransformerBlock):
    def forward(self, hidden_states: Tensor, *, encoder_hidden_states: Tensor) -> Tensor:
        """(n, h w, c) and (n, tokens, d) -> (n, h w, c)."""
        attended = self.attn1(self.norm1(hidden_states)).add_(hidden_states)
        read = self.attn2(self.norm2(attended), encoder_hidden_states=encoder_hidden_states)
        read.add_(attended)
        fed: Tensor = self.ff(self.norm3(read)).add_(read)
        return fed


def _plain_block(block: BasicTransformerBlock) -> bool:
    return (
        type(block) is BasicTransformerBlock
        and block.norm_type == "layer_norm"
        and block.pos_embed is None
        and not block.only_cross_attention
        and block.attn2 is not None
        and block._chunk_size is None  # noqa: SLF001  (there is no other name for it)
        and _plain_attention(block.attn1)
        and _plain_attention(block.attn2)
        and block.attn2.is_cross_attention
        and type(block.ff) is FeedForward
        and type(block.ff.net[0]) is GEGLU
    )


class LeanFeedForward(FeedForward):
    def forward(self, hidden_states: Tensor) -> Tensor:
        """(n, tokens, c) -> the same."""
        values, gates = _mapped(hidden_states, self.net[0].proj).chunk(2, dim=-1)
        return _mapped(F.gelu(gates).mul_(values), self.net[2])


class LeanAttention(Attention):
    def forward(
        self, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None
    ) -> Tensor:
        """(n, queries, c), to itself or to (n, tokens, d) -> (n, queries, c)."""
        read = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = self.to_q(hidden_states), self.to_k(read), self.to_v(read)
        n, queries, width = query.shape
        mask = None if key.shape[1] == read.shape[1] else _mask(read.shape[1], key)
        query, key, value = (
            one.view(n, -1, self.heads, width // self.heads).transpose(1, 2)
            for one in (query, key, value)
        )
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return _mapped(attended.transpose(1, 2).reshape(n, queries, width), self.to_out[0])


def _plain_attention(block: Attention) -> bool:
    absent = ("group_norm", "spatial_norm", "norm_q", "norm_k", "norm_cross", "add_k_proj")
    return (
        type(block) is Attention
        and all(getattr(block, name) is None for name in absent)
        and block.scale_qk
        and not block.residual_connection
        and block.rescale_output_factor == 1
        and block.inner_kv_dim == block.inner_dim
    )


def _mask(tokens: int, keys: Tensor) -> Tensor:
    """(1, 1, 1, keys), to be added to scores: keys beyond a text's tokens have no weight."""
    mask = keys.new_zeros(1, 1, 1, keys.shape[1])
    mask[..., tokens:] = -torch.inf
    return mask


def _mapped(tokens: Tensor, projection: nn.Linear | nn.Conv2d) -> Tensor:
    """(n, tokens, c) through a linear map, or a convolution with a kernel of 1 x 1."""
    weight, bias = projection.weight.flatten(1), projection.bias
    if bias is None or tokens.device.type != "cpu":
        return F.linear(tokens, weight, bias)
    # A CPU's product would begin with a copy of the bias for each token.
    return F.linear(tokens, weight).add_(bias)
