"""While a model comes from the bucket, others are drawn, and its jobs wait untouched."""

import shutil
import threading
import time

import pytest

from core.errors import ModelsUnavailable, UntrustedModel
from core.importing import import_base
from core.jobs import JobState
from core.signing import Signer
from tests.tiny_model import make_model

SMALL = {"width": 16, "height": 16, "num_inference_steps": 2}
PATIENT_S = 20.0


class Bucket:
    """Has the folders of models that a test moved into it; a fetch ends when it is let."""

    def __init__(self, models, away) -> None:
        self._models = models
        self._away = away
        self.opened = threading.Event()
        self.error: Exception | None = None
        self.asked: list[str] = []

    def take(self, *model_ids: str) -> None:
        for model_id in model_ids:
            shutil.move(self._models / model_id, self._away / model_id)

    def push(self, manifest) -> None:
        """The test itself takes what is to be in it."""

    def fetch(self, model_id: str) -> bool:
        self.asked.append(model_id)
        assert self.opened.wait(PATIENT_S)
        if self.error:
            raise self.error
        if not (self._away / model_id).exists():
            return False
        shutil.copytree(self._away / model_id, self._models / model_id)
        return True


@pytest.fixture
def tiny(registry, settings, tmp_path):
    folder = make_model(tmp_path / "made", family="sd1")
    return import_base(folder, "tiny", registry, Signer.load(settings.keys_dir)).id


@pytest.fixture
def bucket(registry, settings, tmp_path):
    (tmp_path / "bucket").mkdir()
    registry.mirror = made = Bucket(settings.models_dir, tmp_path / "bucket")
    yield made
    made.opened.set()


def drain_until(batcher, done) -> None:
    """As wakes would have it."""
    give_up_at = time.monotonic() + PATIENT_S
    while not done():
        assert time.monotonic() < give_up_at
        batcher.drain()
        time.sleep(0.02)


def test_jobs_of_other_models_are_drawn_meanwhile(jobs, submit, make_batcher, bucket, tiny):
    bucket.take(tiny)
    batcher = make_batcher()
    waiting, drawn = submit(model=tiny, **SMALL), submit()
    batcher.drain()

    assert jobs.get(drawn).state is JobState.SUCCEEDED
    job = jobs.get(waiting)
    assert (job.state, job.attempt) == (JobState.QUEUED, 0)
    assert jobs.news.events(waiting)[-1][1]["why"] == "model tiny is being fetched"

    later = submit()
    batcher.drain()
    assert jobs.get(later).state is JobState.SUCCEEDED
    assert jobs.get(waiting).started_at == job.started_at  # nobody claims it in vain

    bucket.opened.set()
    drain_until(batcher, lambda: jobs.get(waiting).state is JobState.SUCCEEDED)
    assert jobs.get(waiting).attempt == 1
    assert bucket.asked == [tiny]


def test_a_model_whose_base_is_not_here_waits_for_it(
    jobs, submit, make_batcher, bucket, add_variant
):
    add_variant("one", seed=1)
    bucket.take("emoji")
    batcher = make_batcher()
    job_id = submit(model="one")
    batcher.drain()
    assert jobs.get(job_id).attempt == 0

    bucket.opened.set()
    drain_until(batcher, lambda: jobs.get(job_id).state is JobState.SUCCEEDED)
    assert bucket.asked == ["emoji"]


def test_while_the_bucket_is_away_others_are_drawn_without_a_pause(
    jobs, submit, make_batcher, bucket, tiny, monkeypatch
):
    monkeypatch.setattr("worker.patience.FIRST_S", 0.5)
    bucket.take(tiny)
    bucket.error = ModelsUnavailable("the bucket is away")
    bucket.opened.set()
    batcher = make_batcher()
    waiting = submit(model=tiny, **SMALL)
    drain_until(batcher, lambda: "away" in jobs.news.events(waiting)[-1][1].get("why", ""))

    other = submit()
    batcher.drain()
    assert jobs.get(other).state is JobState.SUCCEEDED
    assert jobs.get(waiting).attempt == 0
    bucket.error = None
    drain_until(batcher, lambda: jobs.get(waiting).state is JobState.SUCCEEDED)


def test_what_is_not_as_it_was_signed_fails_its_job_and_is_fetched_anew_for_the_next(
    jobs, submit, make_batcher, bucket, tiny
):
    bucket.take(tiny)
    bucket.error = UntrustedModel("model tiny: a file has another digest")
    bucket.opened.set()
    batcher = make_batcher()
    first = submit(model=tiny, **SMALL)
    drain_until(batcher, lambda: jobs.get(first).state is JobState.FAILED)
    assert "another digest" in jobs.get(first).reason

    bucket.error = None
    second = submit(model=tiny, **SMALL)
    drain_until(batcher, lambda: jobs.get(second).state is JobState.SUCCEEDED)


def test_a_model_that_nobody_has_fails_its_job(jobs, submit, make_batcher, bucket, tiny):
    bucket.opened.set()
    job_id = submit(model="nowhere")
    drain_until(make_batcher(), lambda: jobs.get(job_id).state is JobState.FAILED)

    assert "no model 'nowhere'" in jobs.get(job_id).reason


def test_a_job_that_waits_for_its_model_can_be_cancelled(jobs, submit, make_batcher, bucket, tiny):
    bucket.take(tiny)
    job_id = submit(model=tiny, **SMALL)
    make_batcher().drain()
    jobs.cancel(job_id)

    assert jobs.get(job_id).state is JobState.CANCELLED
