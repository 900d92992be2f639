"""What no worker reads of a model is checked beside drawing; nothing leaves before it passed."""

import threading
import time
from concurrent.futures import Future

import pytest

from core.errors import UntrustedModel
from core.jobs import ImageRecord, JobState
from core.model_files import ModelFiles
from core.specs import GenerationSpec
from worker.drawing import Drawing, finished_by_now
from worker.shelf import Shelf
from worker.unread import Unread

MODEL = "changed"
BAKED = "unet/config.json"


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
        shelf.variant(MODEL).unread.wait()
    for _ in range(2):
        with pytest.raises(UntrustedModel, match=BAKED):
            shelf.variant(MODEL)
    assert list(refusals.all()) == [MODEL]
    baked.write_bytes(good)

    assert shelf.variant(MODEL).unread.passed
    assert refusals.all() == {}


def test_a_refusal_does_not_end_before_the_last_file_was_checked(
    baked, may_check, shelf, refusals
):
    refusals.note(MODEL, "why", worker="inference-0@test")
    unread = shelf.variant(MODEL).unread
    shelf.variant(MODEL)
    assert list(refusals.all()) == [MODEL]
    may_check.set()
    unread.wait()
    assert refusals.all() == {}


def test_a_job_that_is_stopped_keeps_no_picture_of_a_refused_model():
    refused: Future[ImageRecord] = Future()
    refused.set_exception(UntrustedModel("why"))
    spec = GenerationSpec(prompt="a cat", model=MODEL, seed=7, n=2)
    drawing = Drawing(lease=None, spec=spec, variant=None, images={0: refused})

    kept = finished_by_now(drawing)

    assert [(one.key, one.finish_reason) for one in kept] == [(None, "cancelled")] * 2


def test_each_state_of_what_is_left():
    assert Unread().passed
    assert not Unread().refused
    checking: Future[None] = Future()
    left = Unread(checking)
    assert not left.passed
    assert not left.refused
    checking.set_exception(UntrustedModel("why"))
    assert left.refused
    assert not left.passed
    for _ in range(2):
        with pytest.raises(UntrustedModel, match="why"):
            left.wait()
