"""What is left to check of a model is checked beside drawing; nothing leaves before it passed."""

import threading
import time
import weakref
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.checked_stream import LeftToCheck
from core.errors import UntrustedModel
from core.importing import import_base
from core.jobs import ImageRecord, JobState
from core.model_files import ModelFiles
from core.signing import Signer
from core.specs import GenerationSpec
from tests.tiny_model import make_model
from worker.drawing import Drawing, finished_by_now
from worker.late_checks import LateCheck, LateChecks
from worker.room import USABLE, Room
from worker.shelf import Shelf

MODEL = "changed"
BAKED = "unet/config.json"
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def shelf(telling_shelf) -> Shelf:
    return telling_shelf


@pytest.fixture
def baked(add_variant, settings):
    """The file of an erased, served model that is for other programs."""
    add_variant(MODEL, seed=1)
    return settings.models_dir / MODEL / BAKED


@pytest.fixture
def stored(settings):
    """Whether anything of a job is where pictures are kept."""
    return lambda job_id: any(settings.images_dir.rglob(f"*{job_id}*"))


@pytest.fixture
def may_check(monkeypatch):
    """Checking what is not read waits for this."""
    allowed, check = threading.Event(), ModelFiles.check

    def slowly(files, name):
        if name == BAKED and files.folder.name == MODEL:
            assert allowed.wait(60), "nobody allowed it"
        check(files, name)

    monkeypatch.setattr(ModelFiles, "check", slowly)
    yield allowed
    allowed.set()


@pytest.fixture
def may_digest(monkeypatch):
    """Comparing the digest of a base's UNet waits for this; `asked` is set when it begins to."""
    allowed, compare = threading.Event(), ModelFiles._compare
    allowed.asked = threading.Event()

    def slowly(files, name, digest):
        if name == UNET:
            allowed.asked.set()
            assert allowed.wait(60), "nobody allowed it"
        compare(files, name, digest)

    monkeypatch.setattr(ModelFiles, "_compare", slowly)
    yield allowed
    allowed.set()


@pytest.fixture
def tiny(registry, settings, tmp_path):
    """A second base model."""
    folder = make_model(tmp_path / "made", family="sd1")
    return import_base(folder, "tiny", registry, Signer.load(settings.keys_dir)).id


@pytest.fixture
def base_unet(settings):
    return settings.models_dir / "emoji" / UNET


def flip_a_bit(path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.fixture
def draining(make_batcher, shelf):
    """A batcher at work in a thread, until it has nothing left to do."""
    batcher = make_batcher(shelf=shelf)
    thread = threading.Thread(target=batcher.drain)
    yield thread
    if thread.ident is not None:
        thread.join(60)
        assert not thread.is_alive()


def eventually(happens):
    deadline = time.monotonic() + 15
    while not happens():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


@pytest.fixture
def steps(jobs):
    """How many steps of a job have been told of."""

    def told(job_id):
        progress = jobs.get(job_id).progress
        return progress.done if progress else 0

    return told


def test_nothing_of_a_drawn_picture_leaves_before_the_last_file_was_checked(
    baked, may_check, draining, submit, jobs, stored, steps
):
    unchecked = submit("a cat", model=MODEL, previews=3)
    draining.start()
    eventually(lambda: steps(unchecked) == 4)
    # Another model's picture is drawn and recorded while this one waits.
    other = submit("a cat")
    eventually(lambda: jobs.get(other).state is JobState.SUCCEEDED)

    assert jobs.get(unchecked).state is JobState.RUNNING
    assert jobs.get(unchecked).progress.previewed == 0
    assert not stored(unchecked)
    may_check.set()
    draining.join(60)

    assert jobs.get(unchecked).state is JobState.SUCCEEDED
    assert stored(unchecked)


@pytest.mark.parametrize(
    ("verdict", "ended"), [("cancelled", JobState.CANCELLED), ("late", JobState.FAILED)]
)
def test_what_is_drawn_and_waits_for_its_model_is_stopped_all_the_same(
    verdict, ended, baked, may_check, heartbeat, draining, submit, jobs, stored, steps
):
    drawn = submit("a cat", model=MODEL, previews=3)
    draining.start()
    eventually(lambda: steps(drawn) == 4)
    heartbeat.verdicts[drawn] = verdict
    draining.join(60)

    assert jobs.get(drawn).state is ended
    assert [one["key"] for one in jobs.get(drawn).result["images"]] == [None]
    assert not stored(drawn)


def test_what_was_stopped_meanwhile_is_not_stored_when_its_model_has_passed(
    baked, may_check, heartbeat, make_batcher, shelf, submit, stored
):
    drawn, batcher = submit("a cat", model=MODEL), make_batcher(shelf=shelf)
    thread = threading.Thread(target=batcher.drain)
    thread.start()
    eventually(lambda: batcher._held and not batcher._held.denoisers())
    heartbeat.verdicts[drawn] = "cancelled"
    thread.join(60)
    may_check.set()
    # Nothing of it is left to be stored once those that came after it have been.
    later = [submit("a cat", model=MODEL) for _ in range(4)]
    batcher.drain()

    assert all(map(stored, later))
    assert not stored(drawn)


def test_a_worker_that_shuts_down_hands_back_what_waits_for_its_model(
    baked, may_check, make_batcher, shelf, submit, jobs
):
    drawn, ending = submit("a cat", model=MODEL), []
    batcher = make_batcher(shelf=shelf, draining=lambda: bool(ending), drain_s=0.2)
    thread = threading.Thread(target=batcher.drain)
    thread.start()
    eventually(lambda: batcher._held and not batcher._held.denoisers())
    ending.append("now")
    thread.join(15)

    assert not thread.is_alive()
    assert jobs.get(drawn).state is JobState.QUEUED
    assert jobs.get(drawn).attempt == 0


def test_a_check_that_gets_nowhere_is_a_worker_that_hangs(
    baked, may_check, make_batcher, shelf, submit, heartbeat, monkeypatch
):
    monkeypatch.setattr("worker.batcher.STORED_WITHIN_S", 0.5)
    submit("a cat", model=MODEL)
    batcher = make_batcher(shelf=shelf)
    thread = threading.Thread(target=batcher.drain)
    thread.start()
    eventually(lambda: batcher._held and not batcher._held.denoisers())
    time.sleep(1)
    said = heartbeat.steps
    time.sleep(0.5)
    assert heartbeat.steps == said
    shelf._loader._late_checks.bytes += 1
    eventually(lambda: heartbeat.steps > said)
    may_check.set()
    thread.join(60)


def test_models_that_were_checked_are_drawn_with_however_many_pictures_wait_for_others(
    baked, may_check, make_batcher, shelf, submit, jobs
):
    waiting = [submit("a cat", model=MODEL) for _ in range(8)]
    batcher = make_batcher(shelf=shelf, rows=2)
    thread = threading.Thread(target=batcher.drain)
    thread.start()
    eventually(lambda: len(batcher._held) >= 4 and not batcher._held.denoisers())
    other = submit("a cat")
    eventually(lambda: jobs.get(other).state is JobState.SUCCEEDED)

    # Those of the other model are not drawn on and on.
    assert [jobs.get(one).state for one in waiting].count(JobState.RUNNING) == 4
    may_check.set()
    thread.join(60)
    assert {jobs.get(one).state for one in waiting} == {JobState.SUCCEEDED}


def test_what_other_models_have_to_read_holds_up_no_base(
    baked, may_check, tiny, add_variant, registry, shelf, monkeypatch
):
    check, slow = ModelFiles.check, {MODEL, "second"}

    def slowly(files, name):
        if files.folder.name in slow:
            assert may_check.wait(60), "nobody allowed it"
        check(files, name)

    add_variant("second", seed=2)
    monkeypatch.setattr(ModelFiles, "check", slowly)
    waiting = [shelf.variant(one).late_check for one in sorted(slow)]
    with ThreadPoolExecutor(1) as thread:
        thread.submit(shelf.variant(tiny).late_check.wait).result(15)
    assert not any(one.passed for one in waiting)


def test_a_model_whose_unread_file_was_changed_lets_nothing_out(
    baked, may_check, draining, submit, jobs, stored, refusals
):
    baked.write_text("[]")
    bad, good = submit("a cat", model=MODEL), submit("a cat")
    draining.start()
    eventually(lambda: jobs.get(good).state is JobState.SUCCEEDED)
    may_check.set()
    draining.join(60)

    assert jobs.get(bad).state is JobState.FAILED
    assert f"{BAKED} differs from its manifest" in jobs.get(bad).reason
    assert not stored(bad)
    assert list(refusals.all()) == [MODEL]


def test_once_refused_it_is_checked_whole_before_it_draws_until_it_is_well_again(
    baked, shelf, refusals
):
    good = baked.read_bytes()
    baked.write_text("[]")
    with pytest.raises(UntrustedModel, match=BAKED):
        shelf.variant(MODEL).late_check.wait()
    for _ in range(2):
        with pytest.raises(UntrustedModel, match=BAKED):
            shelf.variant(MODEL)
    assert list(refusals.all()) == [MODEL]
    baked.write_bytes(good)

    assert shelf.variant(MODEL).late_check.passed
    assert refusals.all() == {}


def test_a_refusal_does_not_end_before_the_last_file_was_checked(
    baked, may_check, shelf, refusals
):
    refusals.note(MODEL, "why", worker="inference-0@test")
    late_check = shelf.variant(MODEL).late_check
    shelf.variant(MODEL)
    assert list(refusals.all()) == [MODEL]
    may_check.set()
    late_check.wait()
    assert refusals.all() == {}


def test_a_job_that_is_stopped_keeps_no_picture_of_a_refused_model():
    refused: Future[ImageRecord] = Future()
    refused.set_exception(UntrustedModel("why"))
    spec = GenerationSpec(prompt="a cat", model=MODEL, seed=7, n=2)
    variant = SimpleNamespace(late_check=LateCheck(refused))
    drawing = Drawing(lease=None, spec=spec, variant=variant, images={0: refused})

    kept = finished_by_now(drawing)

    assert [(one.key, one.finish_reason) for one in kept] == [(None, "cancelled")] * 2


class TestBases:
    """Their weights are digested in the memory that is drawn from."""

    def test_nothing_of_a_drawn_picture_leaves_before_they_were_digested(
        self, may_digest, add_variant, draining, submit, jobs, stored, steps
    ):
        add_variant("mapped", seed=1, text_map=torch.eye(256))
        drawn = [submit("a cat", previews=3), submit("a cat", model="mapped", previews=3)]
        draining.start()
        for job_id in drawn:
            eventually(lambda job_id=job_id: steps(job_id) == 4)
        time.sleep(0.2)

        for job_id in drawn:
            assert jobs.get(job_id).state is JobState.RUNNING
            assert jobs.get(job_id).progress.previewed == 0
            assert not stored(job_id)
        may_digest.set()
        draining.join(60)

        for job_id in drawn:
            assert jobs.get(job_id).state is JobState.SUCCEEDED
            assert stored(job_id)

    def test_what_stands_on_a_changed_one_lets_nothing_out(
        self, base_unet, add_variant, draining, submit, jobs, stored, refusals
    ):
        add_variant("mapped", seed=1, text_map=torch.eye(256))
        flip_a_bit(base_unet)
        bad = [submit("a cat"), submit("a cat", model="mapped")]
        draining.start()
        draining.join(60)

        for job_id in bad:
            assert jobs.get(job_id).state is JobState.FAILED
            assert f"{UNET} differs from its manifest" in jobs.get(job_id).reason
            assert not stored(job_id)
        assert sorted(refusals.all()) == ["emoji", "mapped"]

    def test_what_is_refused_is_not_drawn_to_its_end(
        self, base_unet, may_digest, draining, submit, jobs, steps
    ):
        flip_a_bit(base_unet)
        bad = submit("a cat", num_inference_steps=100, n=4, previews=10)
        draining.start()
        eventually(lambda: steps(bad) > 0)
        may_digest.set()
        draining.join(60)

        assert jobs.get(bad).state is JobState.FAILED
        assert f"{UNET} differs from its manifest" in jobs.get(bad).reason
        assert jobs.get(bad).progress.done < jobs.get(bad).progress.total

    def test_files_that_nobody_needs_hold_up_no_digest(self, baked, may_check, tiny, shelf):
        """They may be large, and on a slow disk."""
        waiting = shelf.variant(MODEL).late_check
        other = shelf.variant(tiny).late_check
        other.wait()

        assert other.passed
        assert not waiting.passed

    def test_one_that_fails_when_it_was_forgotten_already_is_doubted_all_the_same(
        self, base_unet, may_digest, shelf
    ):
        flip_a_bit(base_unet)
        late_check = shelf.variant("emoji").late_check
        shelf._forget(next(iter(shelf._bases)))
        may_digest.set()
        with pytest.raises(UntrustedModel, match=UNET):
            late_check.wait()

        with pytest.raises(UntrustedModel, match=UNET):
            shelf.variant("emoji")

    def test_no_worker_says_that_it_has_what_was_refused(self, base_unet, may_digest, shelf):
        flip_a_bit(base_unet)
        late_check = shelf.variant("emoji").late_check
        assert shelf.models == ["emoji"]
        may_digest.set()
        with pytest.raises(UntrustedModel, match=UNET):
            late_check.wait()
        assert shelf.models == []

    def test_once_refused_it_is_checked_before_it_draws_until_it_is_well_again(
        self, base_unet, add_variant, shelf, refusals
    ):
        add_variant("mapped", seed=1, text_map=torch.eye(256))
        flip_a_bit(base_unet)
        with pytest.raises(UntrustedModel, match=UNET):
            shelf.variant("emoji").late_check.wait()
        for model_id in ("emoji", "mapped"):
            with pytest.raises(UntrustedModel, match=UNET):
                shelf.variant(model_id)
        assert sorted(refusals.all()) == ["emoji", "mapped"]
        flip_a_bit(base_unet)

        for model_id in ("emoji", "mapped"):
            shelf.variant(model_id).late_check.wait()
        assert refusals.all() == {}

    def test_no_weight_is_written_to_before_it_was_digested(
        self, may_digest, add_variant, make_shelf
    ):
        add_variant(MODEL, seed=1)
        shelf, loaded = make_shelf(layout=torch.channels_last), []
        loading = threading.Thread(target=lambda: loaded.append(shelf.variant(MODEL)))
        loading.start()
        assert may_digest.asked.wait(60)
        # Everything else of it is there: it has only to be put on.
        loading.join(1)
        assert loading.is_alive()
        may_digest.set()
        loading.join(60)

        (variant,) = loaded
        assert variant.denoiser.wear()
        variant.late_check.wait()

    def test_one_that_nobody_can_keep_twice_is_checked_before_it_draws(
        self, base_unet, registry, make_shelf, tmp_path
    ):
        cpu, dtype = torch.device("cpu"), torch.float32
        size = sum(path.stat().st_size for path in registry.path("emoji").rglob("*.safetensors"))
        flip_a_bit(base_unet)
        enough = make_shelf(room=Room(cpu, dtype, lambda: 8 * size, tmp_path))
        little = make_shelf(room=Room(cpu, dtype, lambda: 3 * size, tmp_path))

        late_check = enough.variant("emoji").late_check
        with pytest.raises(UntrustedModel, match=UNET):
            late_check.wait()
        with pytest.raises(UntrustedModel, match=UNET):
            little.variant("emoji")

    def test_none_gives_way_to_one_that_may_yet_be_refused(
        self, base_unet, tiny, make_shelf, monkeypatch
    ):
        monkeypatch.setattr("worker.shelf.MAX_BASES", 1)
        shelf = make_shelf()
        shelf.variant(tiny).late_check.wait()
        flip_a_bit(base_unet)
        with pytest.raises(UntrustedModel, match=UNET):
            shelf.variant("emoji").late_check.wait()

        assert {base.manifest.id for base in shelf._bases.values()} >= {tiny}

    def test_one_more_than_may_be_kept_gives_way_when_the_next_was_checked(
        self, may_digest, tiny, make_shelf, monkeypatch
    ):
        monkeypatch.setattr("worker.shelf.MAX_BASES", 1)
        shelf = make_shelf()
        may_digest.set()
        shelf.variant(tiny).late_check.wait()
        may_digest.clear()
        # Nobody waits: others are drawn with meanwhile.
        late_check = shelf.variant("emoji").late_check
        assert shelf.models == ["emoji", tiny]
        may_digest.set()
        late_check.wait()
        shelf.variant("emoji")

        assert shelf.models == ["emoji"]

    def test_none_makes_room_for_pictures_of_one_that_may_yet_be_refused(
        self, base_unet, may_digest, tiny, make_shelf, tmp_path
    ):
        free = [1 << 30]
        room = Room(torch.device("cpu"), torch.float32, lambda: free[0], tmp_path)
        shelf = make_shelf(room=room)
        spec = GenerationSpec(prompt="a cat", model="emoji", width=64, height=64)
        shelf.variant(tiny)
        flip_a_bit(base_unet)
        shelf.variant("emoji", spec)
        drawing = room.footprint(
            shelf._bases[next(reversed(shelf._bases))].manifest,
            base_unet.parents[1],
            (64, 64),
        ).drawing(guided=True)
        # With the other one gone it would fit, and without that it does not.
        free[0] = int(drawing / USABLE) - 1
        with ThreadPoolExecutor(1) as thread:
            asked = thread.submit(shelf.variant, "emoji", spec)
            wait([asked], 0.5)
            assert not asked.done()
            may_digest.set()
            with pytest.raises(UntrustedModel, match=UNET):
                asked.result(60)

        assert tiny in {base.manifest.id for base in shelf._bases.values()}

    def test_parts_that_do_not_fit_are_those_of_another_file_first_of_all(self, base_unet, shelf):
        """Whoever changed a file is told of, not a model of a kind that nobody knows."""
        tensors = load_file(base_unet)
        save_file({name: one for name, one in tensors.items() if "conv_in" not in name}, base_unet)

        with pytest.raises(UntrustedModel, match=UNET):
            shelf.variant("emoji")


def test_what_was_read_is_given_back_as_soon_as_it_was_checked(registry):
    manifest, found = registry.get("emoji"), []
    read = torch.zeros(3)
    alive = weakref.ref(read)
    left = LeftToCheck(read=[partial(len, read), lambda: found.append(alive())])
    del read
    digested, _ = LateChecks(None).begin_base(manifest, left)
    digested.wait()

    assert found == [None]


def test_each_state_of_what_is_left():
    assert LateCheck().passed
    assert not LateCheck().refused
    checking: Future[None] = Future()
    left = LateCheck(checking)
    assert not left.passed
    assert not left.refused
    checking.set_exception(UntrustedModel("why"))
    assert left.refused
    assert not left.passed
    for _ in range(2):
        with pytest.raises(UntrustedModel, match="why"):
            left.wait()
