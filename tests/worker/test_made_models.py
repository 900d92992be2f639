"""No model stays of an erasure that was cancelled, or late, after it was registered."""

import uuid
from pathlib import Path

import pytest

from core.errors import ModelsUnavailable, StoreUnavailable
from core.jobs import JobState
from core.making import describe
from core.manifests import ModelStatus
from core.registrar import Registrar
from core.signing import Signer
from core.specs import Concept, ErasureSpec
from tests.edits import pistol_edit
from worker.made_models import MadeModels, model_id
from worker.trainer_leavings import TrainerLeavings
from worker.trainer_means import TrainerMeans
from worker.trainer_process import TrainerProcesses
from worker.training import Trainings

OWNER = "trainer-0@test"
AXE = ErasureSpec(base_model="emoji", concepts=(Concept(name="axe", replacement="flower"),))


class Killed(BaseException):
    """What follows it was never done."""


@pytest.fixture
def trained(registry, monkeypatch) -> list[str]:
    """The ids of the models that a trainer made, which takes no time and writes one file."""
    base = registry.get("emoji")
    made = []

    def train(self, module, words, lease) -> None:
        out, name = (words[words.index(word) + 1] for word in ("--out", "--model-id"))
        out.mkdir()
        (out / "README.md").write_text(f"made by attempt {len(made)}")
        manifest = describe(
            out,
            model_id=name,
            family=base.family,
            drawing=base.drawing,
            code_version="test",
            edit=pistol_edit(base),
        )
        manifest.write(out)
        made.append(name)

    monkeypatch.setattr(TrainerProcesses, "run", train)
    return made


@pytest.fixture
def leavings(jobs, registry, settings) -> TrainerLeavings:
    return TrainerLeavings(jobs, registry, settings.checkpoints_dir)


@pytest.fixture
def work(settings, jobs, registry, heartbeat, trained):
    """Has a trainer work on what waits."""

    def work() -> None:
        Trainings(
            jobs,
            registry,
            Signer.load(settings.keys_dir),
            heartbeat,
            owner=OWNER,
            lease_s=60,
            silence_s=600,
            means=TrainerMeans(
                device="cpu",
                processes=1,
                threads=1,
                cache=settings.cache_dir,
                checkpoints=settings.checkpoints_dir,
                prompt_sets=settings.prompt_sets_dir,
            ),
            draining=lambda: False,
        ).drain()

    return work


@pytest.fixture
def begin(jobs, work, trained, monkeypatch):
    """A job whose worker did not come to say that its model is there; the job waits again."""

    def begin(error: BaseException | None = None, **terms) -> str:
        job_id = uuid.uuid4().hex
        jobs.submit(job_id, AXE, queue_class="emoji", **terms)

        def say_nothing(lease, result):
            raise error or Killed

        with monkeypatch.context() as patch:
            patch.setattr(jobs.leasing, "succeed", say_nothing)
            with pytest.raises(type(error) if error else Killed):
                work()
        jobs.leasing.take_back(OWNER)
        assert jobs.get(job_id).state is JobState.QUEUED
        assert trained == [model_id(AXE, job_id)]
        return job_id

    return begin


@pytest.fixture
def listed(registry):
    def listed() -> list[str]:
        return [manifest.id for manifest in registry.all() if manifest.kind == "erased"]

    return listed


def let_pass_deadline(jobs, redis_client, job_id: str) -> None:
    redis_client.zadd("deadlines", {job_id: 1})
    redis_client.hset(f"job:{job_id}", "deadline", 1)
    jobs.leasing.reap()
    assert jobs.get(job_id).late


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(None, id="its worker was killed"),
        pytest.param(StoreUnavailable("Redis does not answer"), id="Redis was away"),
    ],
)
def test_the_model_of_a_job_that_is_cancelled_in_its_queue_goes(
    jobs, begin, leavings, listed, trained, settings, error
):
    job_id = begin(error)
    leavings.sweep()
    assert listed() == trained

    jobs.cancel(job_id)
    leavings.sweep()

    assert listed() == []
    assert list(settings.checkpoints_dir.iterdir()) == []
    assert list((settings.models_dir / ".incoming").iterdir()) == []


def test_a_model_is_noted_before_it_is_registered(jobs, work, settings, monkeypatch):
    """A worker that is killed in the midst of registering it says nothing more."""
    noted = []
    add = Registrar.add

    def look_first(self, made, *args):
        noted.append(MadeModels(settings.checkpoints_dir).of(job_id) == [made.content_digest])
        return add(self, made, *args)

    monkeypatch.setattr(Registrar, "add", look_first)
    job_id = uuid.uuid4().hex
    jobs.submit(job_id, AXE, queue_class="emoji")
    work()

    assert jobs.get(job_id).state is JobState.SUCCEEDED
    assert noted == [True]


class Bucket:
    """A mirror that may be away."""

    def __init__(self) -> None:
        self.away = True
        self.withdrawn: list[str] = []

    def push(self, manifest) -> None:
        self._answer()

    def fetch(self, model_id: str) -> bool:
        self._answer()
        return False

    def withdraw(self, model_id: str) -> None:
        self._answer()
        self.withdrawn.append(model_id)

    def _answer(self) -> None:
        if self.away:
            raise ModelsUnavailable("the bucket of models does not answer")


def test_a_model_that_the_bucket_did_not_take_goes_when_the_bucket_is_back(
    jobs, registry, work, listed, trained, settings
):
    registry.mirror = bucket = Bucket()
    leavings = TrainerLeavings(jobs, registry, settings.checkpoints_dir)
    job_id = uuid.uuid4().hex
    jobs.submit(job_id, AXE, queue_class="emoji")
    work()
    assert jobs.get(job_id).state is JobState.QUEUED
    jobs.cancel(job_id)
    leavings.sweep()
    assert listed() == trained

    bucket.away = False
    leavings.sweep()

    assert listed() == []
    assert bucket.withdrawn == trained
    assert list(settings.checkpoints_dir.iterdir()) == []


def test_the_model_of_a_job_that_is_late_in_its_queue_goes_and_is_made_again_when_asked_for(
    jobs, begin, work, leavings, listed, trained, redis_client
):
    job_id = begin(deadline_s=1000)
    let_pass_deadline(jobs, redis_client, job_id)
    leavings.sweep()
    assert listed() == []

    jobs.retry(job_id)
    work()

    assert jobs.get(job_id).state is JobState.SUCCEEDED
    assert listed() == [jobs.get(job_id).erasure.erased_model]
    assert len(trained) == 2


def test_a_job_that_is_tried_again_at_this_very_moment_keeps_its_model(
    jobs, begin, leavings, listed, trained, redis_client, monkeypatch, settings
):
    job_id = begin(deadline_s=1000)
    let_pass_deadline(jobs, redis_client, job_id)
    discard = Registrar.discard

    def retry_first(*args, **options) -> bool:
        jobs.retry(job_id)
        return discard(*args, **options)

    (settings.checkpoints_dir / job_id / "lesson").mkdir()
    monkeypatch.setattr(Registrar, "discard", retry_first)
    leavings.sweep()

    assert listed() == trained
    kept = (settings.checkpoints_dir / job_id).iterdir()
    assert sorted(path.name for path in kept) == ["lesson", "made"]


def test_a_model_that_is_discarded_as_a_retry_finds_it_is_made_again(
    jobs, begin, work, listed, trained, monkeypatch
):
    job_id = begin()
    set_status = Registrar.set_status

    def discard_first(self, model_id, *args, **options):
        digest = self._registry.get(model_id).content_digest
        assert self.discard(model_id, digest, is_unwanted=lambda: True)
        return set_status(self, model_id, *args, **options)

    monkeypatch.setattr(Registrar, "set_status", discard_first)
    work()

    assert jobs.get(job_id).state is JobState.SUCCEEDED
    assert listed() == [jobs.get(job_id).erasure.erased_model]
    assert len(trained) == 2


@pytest.fixture
def dead(jobs, begin, redis_client) -> str:
    """A job that used up its attempts though its model is there."""
    job_id = begin()
    redis_client.hset(f"job:{job_id}", "max_attempts", 1)
    jobs.leasing.claim("erasure", OWNER, slots=1, lease_s=60, idle=True, known=())
    jobs.leasing.take_back(OWNER)
    assert jobs.get(job_id).state is JobState.FAILED
    return job_id


def test_a_job_that_used_up_its_attempts_finds_its_model_when_it_is_tried_again(
    jobs, dead, work, leavings, listed, trained, settings
):
    lesson = settings.checkpoints_dir / dead / "lesson"
    lesson.mkdir()
    (lesson.parent / "steering.safetensors").write_bytes(b"gigabytes")
    leavings.sweep()
    assert [path.name for path in lesson.parent.iterdir()] == ["made"]
    assert listed() == trained

    jobs.retry(dead)
    work()

    assert jobs.get(dead).state is JobState.SUCCEEDED
    assert [jobs.get(dead).erasure.erased_model] == listed() == trained
    assert list(settings.checkpoints_dir.iterdir()) == []


def test_one_that_is_cancelled_when_it_was_to_be_tried_again_leaves_none(
    jobs, dead, leavings, listed
):
    leavings.sweep()
    jobs.retry(dead)
    jobs.cancel(dead)
    leavings.sweep()

    assert listed() == []


@pytest.mark.parametrize("status", [ModelStatus.SERVING, ModelStatus.RETIRED])
def test_a_model_that_somebody_promoted_stays(
    jobs, registry, begin, leavings, listed, trained, settings, status
):
    job_id = begin()
    for one in (ModelStatus.SERVING, status):
        Registrar(registry).set_status(trained[0], one, Signer.load(settings.keys_dir))
    jobs.cancel(job_id)
    leavings.sweep()

    assert listed() == trained
    assert list(settings.checkpoints_dir.iterdir()) == []


def test_a_model_stays_of_whose_job_nothing_is_known_any_more(
    jobs, begin, leavings, listed, trained, settings, redis_client
):
    job_id = begin()
    jobs.cancel(job_id)
    redis_client.delete(f"job:{job_id}")
    leavings.sweep()

    assert listed() == trained
    assert list(settings.checkpoints_dir.iterdir()) == []


def test_another_model_of_that_name_stays(jobs, begin, leavings, listed, trained, settings):
    job_id = begin()
    (note,) = (settings.checkpoints_dir / job_id / "made").iterdir()
    note.rename(note.with_name("0" * 64))
    jobs.cancel(job_id)
    leavings.sweep()

    assert listed() == trained


def test_an_attempt_that_froze_until_its_job_had_ended_leaves_no_model(
    jobs, work, leavings, listed, settings, monkeypatch
):
    job_id = uuid.uuid4().hex
    jobs.submit(job_id, AXE, queue_class="emoji")
    add = Registrar.add

    def freeze_first(*args):
        jobs.leasing.take_back(OWNER)
        jobs.cancel(job_id)
        leavings.sweep()
        return add(*args)

    monkeypatch.setattr(Registrar, "add", freeze_first)
    work()

    assert jobs.get(job_id).state is JobState.CANCELLED
    assert listed() == []
    assert list(settings.checkpoints_dir.iterdir()) == []


def test_two_processes_may_clear_up_at_once(tmp_path: Path):
    made = MadeModels(tmp_path / "checkpoints")

    made.clear_all_but_notes("gone")

    assert made.of("gone") == []
