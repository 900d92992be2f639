"""What does not fit is refused before anything gives way to it."""

import gc
import math
import weakref

import pytest
import torch

from core.digests import sha256
from core.errors import DeviceOutOfMemory, ModelUnsupported, SizeNotDrawable
from core.importing import import_base
from core.jobs import JobState
from core.signing import Signer
from core.specs import GenerationSpec
from diffusion.denoise_request import DenoiseRequest
from tests.tiny_model import make_model
from worker.room import MIB, USABLE, Room
from worker.shelf import Shelf
from worker.variant import Base, Variant

SMALL_PICTURE = {
    "seed": 0,
    "num_inference_steps": 2,
    "guidance_scale": 2.0,
    "width_px": 16,
    "height_px": 16,
}


class Device:
    """Has so much memory; what a shelf holds is taken off."""

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self.shelf: Shelf | None = None

    def free_bytes(self) -> int:
        assert self.shelf is not None
        return self.total_bytes - sum(base.size_bytes for base in self.shelf._bases.values())


@pytest.fixture
def make_shelf(registry, tmp_path):
    def make(total_mib: float, **options) -> Shelf:
        cpu, dtype = torch.device("cpu"), torch.float32
        device = Device(int(total_mib * MIB))
        room = Room(cpu, dtype, device.free_bytes, tmp_path / "footprints")
        device.shelf = Shelf(registry, device=cpu, dtype=dtype, room=room, **options)
        return device.shelf

    return make


@pytest.fixture
def tiny(registry, settings, tmp_path):
    """A second base model, far smaller than the shipped one (59 MiB)."""
    folder = make_model(tmp_path / "made", family="sd1")
    return import_base(folder, "tiny", registry, Signer.load(settings.keys_dir)).id


@pytest.fixture
def tiny_again(registry, settings, tmp_path):
    """A third, of other weights: models of the same are the same on a shelf."""
    folder = make_model(tmp_path / "made again", family="sd2")
    return import_base(folder, "tiny-again", registry, Signer.load(settings.keys_dir)).id


def test_a_model_too_large_for_the_device_is_refused_with_the_numbers(
    jobs, submit, make_batcher, make_shelf, tiny
):
    shelf = make_shelf(total_mib=30)
    small, large = submit(model=tiny, width=16, height=16), submit()
    make_batcher(shelf=shelf).drain()

    job = jobs.get(large)
    assert (job.state, job.attempt) == (JobState.FAILED, 1)
    assert "model emoji takes 59 MiB as torch.float32, and the device has" in job.reason
    assert jobs.get(small).state is JobState.SUCCEEDED
    assert [base.manifest.id for base in shelf._bases.values()] == [tiny]


def test_a_size_that_cannot_fit_is_refused_and_nothing_gives_way(
    jobs, submit, make_batcher, make_shelf, tiny
):
    shelf = make_shelf(total_mib=68.5)
    first = submit(model=tiny, width=16, height=16)
    fits, too_large = submit(guidance_scale=1.0), submit(width=128, height=128)
    batcher = make_batcher(shelf=shelf)
    batcher.drain()

    assert [jobs.get(job).state for job in (first, fits)] == [JobState.SUCCEEDED] * 2
    job = jobs.get(too_large)
    assert (job.state, job.attempt) == (JobState.FAILED, 1)
    assert "128 x 128: to draw it takes 9 MiB besides the model" in job.reason
    assert {base.manifest.id for base in shelf._bases.values()} == {tiny, "emoji"}


def test_what_was_used_least_lately_gives_way(jobs, submit, make_batcher, make_shelf, tiny):
    shelf = make_shelf(total_mib=200)
    batcher = make_batcher(shelf=shelf)
    for fields in ({}, {"model": tiny, "width": 16, "height": 16}):
        submit(**fields)
        batcher.drain()
    both = {base.manifest.id for base in shelf._bases.values()}
    shelf._room._free_bytes = lambda: 0 if len(shelf._bases) > 1 else 60 * MIB
    job_id = submit(model=tiny, width=32, height=32)
    batcher.drain()

    assert both == {"emoji", tiny}
    assert jobs.get(job_id).state is JobState.SUCCEEDED
    assert [base.manifest.id for base in shelf._bases.values()] == [tiny]


def test_a_base_that_gave_way_is_gone_at_once(submit, make_batcher, make_shelf, add_variant):
    """Not when the collector of cycles comes by: the next model loads where its weights were."""
    add_variant("one", seed=1)
    shelf = make_shelf(total_mib=200)
    for model in ("emoji", "one"):
        submit(model=model)
    batcher = make_batcher(shelf=shelf)
    batcher.drain()
    gc.collect()
    (base,) = shelf._bases.values()
    unet = base.unet._unet
    held = [weakref.ref(one) for one in (base, base.denoiser, unet, unet.conv_in.weight)]
    del base, unet

    gc.disable()
    try:
        shelf._forget(next(iter(shelf._bases)))
        assert [one() for one in held] == [None] * 4
    finally:
        gc.enable()


def on_shelf(shelf):
    return {base.manifest.id for base in shelf._bases.values()}


def begin_picture(variant):
    """In the batch of a model, and drawn no further."""
    text = variant.embed("a cat")
    variant.denoiser.join(DenoiseRequest.of("it", text, text, **SMALL_PICTURE))


def checked(shelf, model):
    """Asked for again when all of it was checked: no base gives way to one that was not."""
    shelf.variant(model).late_check.wait()
    return shelf.variant(model)


def test_the_base_that_nobody_asked_for_longest_gives_way(make_shelf, tiny, tiny_again):
    shelf = make_shelf(total_mib=500)
    for model in ("emoji", tiny, "emoji", "emoji", tiny_again):
        checked(shelf, model)

    assert on_shelf(shelf) == {"emoji", tiny_again}


def test_a_base_that_is_drawn_with_never_gives_way(make_shelf, tiny, tiny_again, add_variant):
    add_variant("one", seed=1)
    shelf = make_shelf(total_mib=500)
    begin_picture(variant := checked(shelf, "one"))
    for model in (tiny, tiny_again):
        checked(shelf, model)
    assert on_shelf(shelf) == {"emoji", tiny_again}

    begin_picture(checked(shelf, tiny_again))
    checked(shelf, tiny)
    assert on_shelf(shelf) == {"emoji", tiny, tiny_again}

    variant.denoiser.leave("it")
    checked(shelf, tiny)
    assert on_shelf(shelf) == {tiny, tiny_again}


def test_models_that_are_asked_for_together_do_not_push_one_another_off(
    jobs, submit, make_batcher, make_shelf, tiny, tiny_again
):
    shelf = make_shelf(total_mib=500)
    small = {"width": 16, "height": 16}
    ids = [submit(), submit(model=tiny, **small), submit(model=tiny_again, **small)]
    loaded = []
    batcher = make_batcher(shelf=shelf)
    begin = batcher._intake._begin
    batcher._intake._begin = lambda drawing: loaded.append(on_shelf(shelf)) or begin(drawing)
    batcher.drain()

    assert [jobs.get(one).state for one in ids] == [JobState.SUCCEEDED] * 3
    assert loaded == [{"emoji", tiny, tiny_again}] * 3
    shelf.variant("emoji")
    assert len(on_shelf(shelf)) == 2


def test_what_is_claimed_together_and_does_not_fit_together_is_drawn_one_after_the_other(
    jobs, submit, make_batcher, make_shelf, tiny, monkeypatch
):
    monkeypatch.setattr(Base, "size_bytes", 60 * MIB)
    shelf = make_shelf(total_mib=70)
    ids = [submit(model=tiny, width=16, height=16), submit()]
    make_batcher(shelf=shelf).drain()

    assert [jobs.get(one).state for one in ids] == [JobState.SUCCEEDED] * 2
    assert [jobs.get(one).attempt for one in ids] == [1, 2]


def test_what_fits_only_without_those_that_are_drawn_is_tried_again_later(make_shelf, tiny):
    shelf = make_shelf(total_mib=60)
    shelf._room._free_bytes = lambda: 0 if "emoji" in on_shelf(shelf) else 60 * MIB
    begin_picture(variant := shelf.variant("emoji"))
    spec = GenerationSpec(prompt="a cat", model=tiny, width=16, height=16)
    with pytest.raises(DeviceOutOfMemory, match="beside"):
        shelf.variant(tiny, spec)
    assert on_shelf(shelf) == {"emoji"}

    variant.denoiser.leave("it")
    shelf.variant(tiny, spec)
    assert on_shelf(shelf) == {tiny}


def test_nothing_gives_way_to_what_does_not_fit_beside_those_that_are_drawn(
    make_shelf, tiny, tiny_again
):
    shelf = make_shelf(total_mib=500)
    begin_picture(variant := shelf.variant("emoji"))
    shelf.variant(tiny)
    shelf._room._free_bytes = lambda: 0 if "emoji" in on_shelf(shelf) else 60 * MIB
    spec = GenerationSpec(prompt="a cat", model=tiny_again, width=16, height=16)
    with pytest.raises(DeviceOutOfMemory, match="beside"):
        shelf.variant(tiny_again, spec)
    assert on_shelf(shelf) == {"emoji", tiny}

    variant.denoiser.leave("it")
    shelf.variant(tiny_again, spec)
    assert on_shelf(shelf) == {tiny, tiny_again}


def test_copies_of_weights_that_are_swapped_need_room_too(make_shelf, registry, add_variant):
    changed = add_variant("one", seed=1).tensors
    copies_bytes = sum(tensor.nbytes for tensor in changed.values())
    shelf = make_shelf(total_mib=500)
    base, room = registry.get("emoji"), shelf._room
    footprint = room.footprint(base, registry.path("emoji"), (64, 64))
    enough = footprint.weights + footprint.drawing(guided=True)

    def ask(model: str, *, free: int) -> Variant:
        room._free_bytes = lambda: math.ceil(free / USABLE) + 1
        spec = GenerationSpec(prompt="a cat", model=model, width=64, height=64)
        return shelf.variant(model, spec)

    with pytest.raises(SizeNotDrawable):
        ask("one", free=enough)
    assert not shelf._bases
    variant = ask("one", free=enough + copies_bytes)

    drawing = footprint.drawing(guided=True)
    with pytest.raises(SizeNotDrawable):
        ask("one", free=drawing)
    plain = variant.base.size_bytes
    variant.denoiser.wear()
    assert variant.base.size_bytes == plain + copies_bytes
    assert ask("one", free=drawing) is variant


def test_a_config_that_nothing_can_be_made_of_fails_its_job_at_once(
    jobs, submit, make_batcher, make_shelf, settings, registry
):
    """It was signed by a version that took it."""
    emoji, name = registry.get("emoji"), "unet/config.json"
    (registry.path("emoji") / name).write_text('{"sample_size": "}')
    files = emoji.files | {name: sha256(registry.path("emoji") / name)}
    signer = Signer.load(settings.keys_dir)
    emoji.model_copy(update={"files": files, "blake3": None}).signed(signer).write(
        registry.path("emoji")
    )
    job_id = submit()
    make_batcher(shelf=make_shelf(total_mib=200)).drain()

    job = jobs.get(job_id)
    assert (job.state, job.attempt) == (JobState.FAILED, 1)
    assert "not JSON" in job.reason


def flip_a_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("spoilt", "model"),
    [
        ("emoji/unet/diffusion_pytorch_model.safetensors", "emoji"),
        ("emoji/scheduler/scheduler_config.json", "emoji"),
        ("emoji/vae/diffusion_pytorch_model.safetensors", "one"),
        ("one/erasure.safetensors", "one"),
        ("one/unet/config.json", "one"),
    ],
)
def test_nothing_gives_way_to_a_model_with_a_changed_file(
    jobs, submit, make_batcher, make_shelf, tiny, add_variant, settings, monkeypatch, spoilt, model
):
    monkeypatch.setattr(Base, "size_bytes", 60 * MIB)
    add_variant("one", seed=1)
    shelf = make_shelf(total_mib=70)
    first = submit(model=tiny, width=16, height=16)
    batcher = make_batcher(shelf=shelf)
    batcher.drain()
    (kept,) = shelf._bases.values()
    spoilt_file = settings.models_dir / spoilt
    whole = spoilt_file.read_bytes()
    flip_a_byte(spoilt_file)
    refused = submit(model=model)
    batcher.drain()

    assert jobs.get(first).state is JobState.SUCCEEDED
    assert (jobs.get(refused).state, jobs.get(refused).attempt) == (JobState.FAILED, 1)
    assert "differs from its manifest" in jobs.get(refused).reason
    assert list(shelf._bases.values()) == [kept]

    spoilt_file.write_bytes(whole)
    drawn = submit(model=model)
    batcher.drain()
    assert jobs.get(drawn).state is JobState.SUCCEEDED
    assert on_shelf(shelf) == {"emoji"}


def test_nothing_gives_way_to_a_model_whose_scheduler_cannot_draw(
    make_shelf, registry, tiny, monkeypatch
):
    """It was signed by a version that did not look at it."""
    monkeypatch.setattr(Base, "size_bytes", 60 * MIB)
    monkeypatch.setattr("diffusion.base_folder.check_own", refuse_emoji)
    shelf = make_shelf(total_mib=70)
    shelf.variant(tiny, GenerationSpec(prompt="a cat", model=tiny, width=16, height=16))
    with pytest.raises(ModelUnsupported, match="cannot draw"):
        shelf.variant("emoji", GenerationSpec(prompt="a cat", model="emoji", width=64, height=64))
    assert on_shelf(shelf) == {tiny}


def refuse_emoji(model, config):
    if model == "emoji":
        raise ModelUnsupported(f"{model}: its scheduler is one which cannot draw here")


def test_what_was_found_and_what_proved_too_much_is_known_to_the_next_process(registry, tmp_path):
    cpu, free = torch.device("cpu"), 100 * MIB
    emoji = registry.get("emoji")
    asked = emoji, registry.path("emoji"), (64, 64)

    def room(dtype=torch.float32) -> Room:
        return Room(cpu, dtype, lambda: free, tmp_path / "footprints")

    found = room().footprint(*asked)
    assert room().rows(emoji.content_digest, (64, 64)) == int(0.9 * free) // found.row
    assert room().rows(emoji.content_digest, (64, 128)) is None
    room().lower(emoji.content_digest, (64, 64), 6)

    assert room().footprint(*asked) == found
    assert room().rows(emoji.content_digest, (64, 64)) == 6
    assert room(torch.bfloat16).rows(emoji.content_digest, (64, 64)) is None
    for place in (tmp_path / "footprints").iterdir():
        place.write_text("{")
    assert room().footprint(*asked) == found


def test_what_another_formula_has_found_is_not_used(registry, tmp_path, monkeypatch):
    emoji = registry.get("emoji")

    def room() -> Room:
        folder = tmp_path / "footprints"
        return Room(torch.device("cpu"), torch.float32, lambda: 100 * MIB, folder)

    with monkeypatch.context() as earlier:
        earlier.setattr("worker.room.FORMULA", 1)
        room().footprint(emoji, registry.path("emoji"), (64, 64))
        assert room().rows(emoji.content_digest, (64, 64)) is not None
    assert room().rows(emoji.content_digest, (64, 64)) is None


def test_a_limit_that_rises_again_is_known_to_the_next_process_and_no_higher_one_is_made_up(
    registry, tmp_path
):
    emoji = registry.get("emoji")
    size_px, folder = (64, 64), tmp_path / "footprints"

    def room() -> Room:
        return Room(torch.device("cpu"), torch.float32, lambda: 100 * MIB, folder)

    room().footprint(emoji, registry.path("emoji"), size_px)
    fits = room().fitting(emoji.content_digest, size_px)
    room().fitted(emoji.content_digest, size_px, 4)
    assert room().rows(emoji.content_digest, size_px) == fits

    room().lower(emoji.content_digest, size_px, 6)
    room().fitted(emoji.content_digest, size_px, 8)
    assert room().rows(emoji.content_digest, size_px) == 8
    assert room().fitting(emoji.content_digest, size_px) == fits


def test_pictures_that_end_at_once_are_decoded_as_many_at_a_time_as_fit_then(
    jobs, submit, make_batcher, make_shelf, registry
):
    shelf = make_shelf(total_mib=500)
    room, emoji = shelf._room, registry.get("emoji")
    one = room.footprint(emoji, registry.path("emoji"), (64, 64)).decoding
    vae = shelf.variant("emoji").base._components.vae
    decoded, decode = [], vae.decode
    vae.decode = lambda latents, **options: (
        decoded.append(len(latents)) or decode(latents, **options)
    )
    room._free_bytes = lambda: 3.5 * one / USABLE
    batcher = make_batcher(shelf=shelf)
    first = submit(n=8)
    batcher.drain()
    room._free_bytes = lambda: 5.5 * one / USABLE
    second = submit(n=8)
    batcher.drain()

    assert [jobs.get(job).state for job in (first, second)] == [JobState.SUCCEEDED] * 2
    assert decoded == [3, 3, 2, 5, 3]


def test_previews_are_decoded_as_many_at_a_time_as_fit_though_nobody_measures_their_size(
    submit, make_batcher, make_shelf, registry
):
    shelf = make_shelf(total_mib=500)
    room, emoji = shelf._room, registry.get("emoji")
    large = room.footprint(emoji, registry.path("emoji"), (192, 192)).decoding
    vae = shelf.variant("emoji").base._components.vae
    decoded, decode = [], vae.decode
    vae.decode = lambda latents, **options: (
        decoded.append(tuple(latents.shape)) or decode(latents, **options)
    )
    room._free_bytes = lambda: 1.5 * large / USABLE
    submit(n=4, width=192, height=192, num_inference_steps=2, previews=1)
    make_batcher(shelf=shelf).drain()

    assert decoded == [(3, 4, 16, 16), (1, 4, 16, 16), *[(1, 4, 24, 24)] * 4]


def test_of_what_was_never_measured_nobody_knows_how_many_can_be_decoded(registry, tmp_path):
    emoji = registry.get("emoji")
    room = Room(torch.device("cpu"), torch.float32, lambda: 10 * MIB, tmp_path / "footprints")
    assert room.decodable(emoji.content_digest, (64, 64)) is None

    room.footprint(emoji, registry.path("emoji"), (64, 64))
    assert room.decodable(emoji.content_digest, (64, 64)) == 3
    assert room.decodable(emoji.content_digest, (512, 512)) == 1


def test_no_pass_has_more_rows_than_the_setting_allows(submit, make_batcher, make_shelf):
    shelf = make_shelf(total_mib=500, most_rows=4)
    unet = shelf.variant("emoji").base._components.unet
    rows, forward = [], unet.forward
    unet.forward = lambda latents, *rest, **more: (
        rows.append(len(latents)) or forward(latents, *rest, **more)
    )
    submit(n=5, num_inference_steps=1)
    make_batcher(shelf=shelf).drain()

    assert max(rows) == 4


def test_passes_are_timed_once_for_all_processes_and_anew_where_settings_differ(
    registry, tmp_path
):
    timed = []

    def rehearse(rows: int):
        timed.append(rows)
        return lambda: torch.zeros(1)

    def room(settings: str = "") -> Room:
        free = tmp_path / "footprints"
        return Room(torch.device("cpu"), torch.float32, lambda: None, free, settings=settings)

    emoji = registry.get("emoji")
    digest, one, other = emoji.content_digest, room(), room("other")
    for each in (one, other):
        each.footprint(emoji, registry.path("emoji"), (64, 64))
    one.worthwhile(digest, (64, 64), 5, rehearse)
    first = list(timed)
    one.worthwhile(digest, (64, 64), 4, rehearse)
    room().worthwhile(digest, (64, 64), 5, rehearse)
    assert first == timed == [2, 4]
    other.worthwhile(digest, (64, 64), 4, rehearse)
    assert timed == [2, 4, 2, 4]


def test_a_worker_times_the_passes_of_those_who_come_together(
    jobs, submit, make_batcher, make_shelf
):
    shelf = make_shelf(total_mib=500)
    submit(n=4)
    make_batcher(shelf=shelf).drain()

    (base,) = shelf._bases.values()
    known = shelf._room._read(shelf._room._place(base.manifest.content_digest, (64, 64)))
    assert 2 in known.pass_s
    assert set(known.pass_s) <= {2, 4, 8}
    assert all(seconds > 0 for seconds in known.pass_s.values())
