"""Memory that is computed is memory that is taken."""

import pytest
import torch

from core.model_files import ModelFiles
from core.settings import SHIPPED_MODELS
from diffusion.footprint import Living, _FusedAttention, measure, weights_bytes
from diffusion.loading import load_base
from diffusion.text_memory import TextMemory, remember_projections
from tests.tiny_model import FAMILIES, make_model

EMOJI = SHIPPED_MODELS / "emoji"


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_take_what_they_take_when_loaded(family, tmp_path):
    folder = make_model(tmp_path / family, family=family)
    parts = load_base(folder, None)
    second = [parts.second.text_encoder] if parts.second else []
    modules = [parts.unet, parts.vae, parts.text_encoder, *second]
    loaded = sum(one.nbytes for module in modules for one in module.parameters())

    assert weights_bytes(ModelFiles(folder, None), torch.float32) == loaded
    assert weights_bytes(ModelFiles(folder, None), torch.float16) >= loaded / 2


def test_a_row_takes_what_a_true_pass_keeps_alive():
    parts = load_base(EMOJI, None)
    found = measure(ModelFiles(EMOJI, None), dtype=torch.float32, width_px=64, height_px=64)

    def peak(run, module):
        living = Living(module.parameters())
        with torch.no_grad(), living, _FusedAttention():
            run()
        return living.peak

    latents = torch.zeros(1, 4, 8, 8)
    text = torch.zeros(1, 77, parts.unet.config.cross_attention_dim)
    step = peak(
        lambda: parts.unet(latents, torch.zeros(1), encoder_hidden_states=text), parts.unet
    )
    decoding = peak(lambda: parts.vae.decode(latents), parts.vae)

    assert found.row == pytest.approx(step, rel=0.05)
    assert found.decoding == pytest.approx(decoding, rel=0.05)
    assert found.drawing(guided=True) == max(2 * found.row, found.decoding)


def test_a_row_takes_what_is_remembered_of_its_text_too_even_while_a_batch_changes():
    parts = load_base(EMOJI, None)
    unet, size = parts.unet, {"width_px": 64, "height_px": 64}
    remember_projections(unet)
    files = ModelFiles(EMOJI, None)
    found = measure(files, dtype=torch.float32, **size, remembering=True)

    memory = TextMemory("cpu", unet.dtype)
    texts = [torch.zeros(77, unet.config.cross_attention_dim) for _ in range(5)]
    latents, timesteps = torch.zeros(4, 4, 8, 8), torch.zeros(4)
    living = Living(unet.parameters())
    with torch.no_grad(), living, _FusedAttention():
        for together in (texts[:4], texts[1:]):
            unet(latents, timesteps, memory.stacked(together, alone=False))
            memory.end_step()

    assert 4 * found.row == pytest.approx(living.peak, rel=0.05)


def test_decoding_takes_as_much_more_as_there_are_more_pixels():
    files = ModelFiles(EMOJI, None)
    small, wide, large = (
        measure(files, dtype=torch.float32, width_px=width, height_px=height).decoding
        for width, height in ((64, 64), (128, 64), (256, 256))
    )

    assert (wide, large) == (2 * small, 16 * small)


def test_larger_pictures_take_more_and_half_precision_takes_half(tmp_path):
    files = ModelFiles(make_model(tmp_path / "sdxl", family="sdxl"), None)
    small, large, half = (
        measure(files, dtype=dtype, width_px=side, height_px=side)
        for dtype, side in ((torch.float32, 16), (torch.float32, 64), (torch.float16, 64))
    )

    assert 8 * small.row < large.row < 20 * small.row
    assert half.row == pytest.approx(large.row / 2, rel=0.1)
    assert half.decoding == large.decoding  # this VAE stays in full precision
