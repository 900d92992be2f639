import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import DeviceOutOfMemory, ModelUnsupported, WeightsDiffer
from diffusion.denoise_request import DenoiseRequest
from diffusion.denoiser import Denoiser
from diffusion.schedulers import SchedulerFactory
from diffusion.swapping import NOTHING, SwappableUNet, checksum
from tests.same_latents import assert_same_latents

NAMES = ["conv_in.bias", "conv_out.bias", "time_embedding.linear_1.bias", "conv_out.weight"]


def changed(unet, names, value):
    return {name: torch.full_like(unet.get_parameter(name), value) for name in names}


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None
)
@given(st.lists(st.sets(st.sampled_from(NAMES)), max_size=6))
def test_whatever_was_worn_before_the_unet_is_the_base_with_the_last_erasure(unet, worn):
    base = copy.deepcopy(unet.state_dict())
    swappable = SwappableUNet(unet)
    for number, names in enumerate(worn):
        tensors = changed(unet, sorted(names), number + 0.1)
        swappable.wear(swappable.prepared(tensors))
        for name, tensor in unet.state_dict().items():
            assert torch.equal(tensor, tensors.get(name, base[name])), name

    swappable.wear(NOTHING)
    assert all(torch.equal(base[name], tensor) for name, tensor in unet.state_dict().items())


def test_weights_stay_where_they_are_in_memory(unet):
    """A captured graph reads from fixed addresses."""
    places = {name: tensor.data_ptr() for name, tensor in unet.state_dict().items()}
    swappable = SwappableUNet(unet)
    swappable.wear(swappable.prepared(changed(unet, NAMES, 1.0)))
    swappable.wear(NOTHING)

    assert {name: tensor.data_ptr() for name, tensor in unet.state_dict().items()} == places


def test_a_foreign_erasure_is_refused(unet):
    with pytest.raises(ModelUnsupported, match="no parameter nowhere"):
        SwappableUNet(unet).prepared({"conv_out.bias": torch.zeros(4), "nowhere": torch.zeros(1)})


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_delta_comes_as_the_unet_is_and_its_copy_is_exact(unet, dtype, layout):
    unet.to(dtype=dtype, memory_format=layout)
    tensors = {name: torch.randn(unet.get_parameter(name).shape) for name in NAMES}
    swappable = SwappableUNet(unet)
    delta = swappable.prepared(tensors)

    assert swappable.wear(delta)
    assert not swappable.wear(delta)
    for name, tensor in tensors.items():
        assert torch.equal(unet.get_parameter(name), tensor.to(dtype))
        assert delta.tensors[name].stride() == unet.get_parameter(name).stride()
    assert delta.size_bytes == sum(unet.get_parameter(name).nbytes for name in NAMES)


def test_one_bit_changes_a_checksum(unet):
    for length in (1, 2, 3, 8, 33):
        tensor = torch.randn(length)
        before = checksum(tensor)
        tensor.view(torch.int32)[-1] ^= 1 << 7
        assert checksum(tensor) != before


def test_a_device_that_holds_something_else_is_noticed_and_written_again(unet, monkeypatch):
    base = copy.deepcopy(unet.state_dict())
    swappable = SwappableUNet(unet)
    worn = swappable.prepared(changed(unet, NAMES, 1.0))
    swappable.wear(worn)
    next_one = swappable.prepared(changed(unet, NAMES[:1], 2.0))
    copy_ = torch.Tensor.copy_

    def forgetful(self, source, **options):
        return self if source is next_one.tensors[NAMES[0]] else copy_(self, source, **options)

    monkeypatch.setattr(torch.Tensor, "copy_", forgetful)
    with pytest.raises(WeightsDiffer, match="conv_in"):
        swappable.wear(next_one)
    monkeypatch.undo()

    for again in (next_one, worn, NOTHING):
        assert swappable.wear(again)
        for name, tensor in unet.state_dict().items():
            assert torch.equal(tensor, again.tensors.get(name, base[name])), name


def test_no_room_to_keep_the_base_has_a_name_and_the_next_call_puts_all_on(
    unet, monkeypatch, no_room
):
    swappable = SwappableUNet(unet)
    delta = swappable.prepared(changed(unet, NAMES, 1.0))

    def full(_):
        raise no_room()

    monkeypatch.setattr("diffusion.swapping.checksum", full)
    with pytest.raises(DeviceOutOfMemory):
        swappable.wear(delta)
    monkeypatch.undo()

    assert swappable.wear(delta)
    assert all(torch.equal(unet.get_parameter(name), one) for name, one in delta.tensors.items())


arrivals = st.lists(
    st.tuples(
        st.integers(0, 5),  # joins before this step
        st.integers(0, 3),  # whose weights
        st.integers(0, 5),  # seed
        st.integers(1, 5),  # steps
    ),
    min_size=2,
    max_size=6,
)


@settings(max_examples=15, deadline=None)
@given(arrivals=arrivals, turns=st.randoms(use_true_random=False))
def test_no_picture_ever_sees_the_weights_of_another_model(tiny, encoder, arrivals, turns):
    """Batches of four models take turns with one UNet; each draws as if it were its own."""
    shared = SwappableUNet(unet := copy.deepcopy(tiny.unet))
    changes = [changed(unet, NAMES[:which], 0.3 * which) for which in range(4)]
    parts = tiny.vae, SchedulerFactory(tiny.scheduler_config)

    def batch(tensors):
        delta = shared.prepared(tensors)
        return Denoiser(unet, *parts, device="cpu", wear=lambda: shared.wear(delta))

    batches = [batch(tensors) for tensors in changes]
    prompt = encoder.encode("a dog").embedding
    requests = [
        DenoiseRequest(key, prompt, prompt, seed, steps, 3.0, 16, 16)
        for key, (_, _, seed, steps) in enumerate(arrivals)
    ]
    together = {}
    for now in range(60):
        for request, (joins, which, *_) in zip(requests, arrivals, strict=True):
            if joins == now:
                batches[which].join(request)
        if waiting := [one for one in batches if len(one)]:
            done = turns.choice(waiting).step()
            together |= {finished.key: finished.latents for finished in done}

    for request, (_, which, *_) in zip(requests, arrivals, strict=True):
        own_unet = copy.deepcopy(tiny.unet)
        own_unet.load_state_dict(changes[which], strict=False)
        own = Denoiser(own_unet, *parts, device="cpu")
        own.join(request)
        while len(own):
            finished = own.step()
        assert_same_latents(together[request.key], finished[0].latents)
