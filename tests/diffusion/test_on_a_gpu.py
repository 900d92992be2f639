"""What differs on a CUDA device: pinned copies, half precision, graphs, a clock that waits."""

import copy

import pytest
import torch

from core.errors import WeightsDiffer
from diffusion.compiling import CompiledUNet
from diffusion.denoise_request import DenoiseRequest
from diffusion.denoiser import Denoiser
from diffusion.loading import load_base
from diffusion.preparing import prepare_to_draw
from diffusion.profiling import pass_seconds
from diffusion.rehearsing import rehearsal
from diffusion.schedulers import SchedulerFactory
from diffusion.swapping import NOTHING, SwappableUNet
from tests.tiny_model import make_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]

DEVICE = "cuda"
SIDES = (8, 8)
WISH = {"num_inference_steps": 5, "guidance_scale": 4.0, "width_px": 16, "height_px": 16}
PRECISIONS = [torch.float32, torch.float16, torch.bfloat16]
CHANGED = ["conv_in.weight", "conv_out.bias", "mid_block.attentions.0.proj_in.weight"]
CLOSE = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.3}
"""Of latents after five steps, which are about 1."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("tiny") / "tiny")


@pytest.fixture
def load(folder):
    def on_gpu(dtype=torch.float16, device=DEVICE):
        parts = load_base(folder, None, device=device, dtype=dtype)
        prepare_to_draw(parts)
        return parts

    return on_gpu


def drawn(parts, keys, *, unet=None, device=DEVICE):
    """Key and seed -> latents, on the CPU in full precision."""
    encoder = parts.prompt_encoder()
    texts = encoder.encode("a dog"), encoder.encode("")
    denoiser = Denoiser(
        unet or parts.unet, parts.vae, SchedulerFactory(parts.scheduler_config), device=device
    )
    for key in keys:
        denoiser.join(DenoiseRequest.of(key, *texts, seed=key, **WISH))
    latents = {}
    while len(denoiser):
        latents |= {one.key: one.latents.float().cpu() for one in denoiser.step()}
    return latents


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
def test_it_draws_what_a_cpu_draws(load, dtype):
    on_gpu = drawn(load(dtype), [1, 2])
    on_cpu = drawn(load(torch.float32, "cpu"), [1, 2], device="cpu")

    for key in (1, 2):
        torch.testing.assert_close(on_gpu[key], on_cpu[key], atol=CLOSE[dtype], rtol=0)


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
def test_company_changes_nothing_but_rounding(load, dtype):
    parts = load(dtype)
    alone, together = drawn(parts, [1]), drawn(parts, range(5))

    torch.testing.assert_close(together[1], alone[1], atol=CLOSE[dtype], rtol=0)


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
def test_weights_wait_in_pinned_memory_and_are_on_the_device_exactly_when_they_are_drawn_with(
    load, dtype
):
    unet = load(dtype).unet
    before = copy.deepcopy(unet.state_dict())
    swappable = SwappableUNet(unet)
    tensors = {name: torch.randn(unet.get_parameter(name).shape) for name in CHANGED}
    delta = swappable.prepared(tensors)

    assert all(one.is_pinned() and not one.is_cuda for one in delta.tensors.values())
    assert swappable.wear(delta)
    for name, tensor in tensors.items():
        assert torch.equal(unet.get_parameter(name).cpu(), tensor.to(dtype))
    assert swappable.wear(NOTHING)
    assert all(torch.equal(before[name], one) for name, one in unet.state_dict().items())


def test_a_byte_that_changed_on_its_way_to_the_device_is_noticed(load):
    """The copy is asynchronous: what is checked must be what has come."""
    swappable = SwappableUNet(load().unet)
    delta = swappable.prepared({"conv_out.bias": torch.zeros(4)})
    delta.tensors["conv_out.bias"][0] = 1.0

    with pytest.raises(WeightsDiffer):
        swappable.wear(delta)


def test_a_pass_is_timed_until_the_device_is_done(load):
    unet = load().unet
    with torch.inference_mode():
        assert pass_seconds(rehearsal(unet, SIDES, 64, DEVICE)) > 0
    assert torch.cuda.current_stream().query()


def test_compiled_it_draws_the_same_after_a_swap_too(load):
    parts = load(torch.float32)
    compiled = CompiledUNet(parts.unet, [2])
    compiled.compile_for(SIDES)
    swappable = SwappableUNet(parts.unet)
    other = swappable.prepared({"conv_out.bias": torch.full((4,), 0.5)})
    for delta in (NOTHING, other, NOTHING):
        swappable.wear(delta)
        ours, plain = drawn(parts, [1], unet=compiled), drawn(parts, [1])
        torch.testing.assert_close(ours[1], plain[1], atol=1e-2, rtol=0)


def test_a_full_device_raises_what_limits_are_lowered_for():
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(1 << 50, dtype=torch.uint8, device=DEVICE)
