"""Erasure jobs: the real trainer as a subprocess, the shipped model, a real broker."""

import base64
import errno
import io
import os
import shutil
import signal
import threading
import time
import uuid
from pathlib import Path

import psutil
import pytest
import redis
from PIL import Image

from core.digests import sha256
from core.errors import ModelsUnavailable, StoreUnavailable
from core.jobs import JobState
from core.manifests import Manifest, ModelStatus
from core.progress import Progress
from core.registrar import Registrar
from core.signing import Signer
from core.specs import Concept, ErasureSpec, SteeringOptions
from core.status_serials import StatusSerials
from worker.made_models import model_id
from worker.trainer_means import TrainerMeans
from worker.trainer_process import TrainerProcesses
from worker.training import Trainings

AXE = ErasureSpec(
    base_model="emoji",
    concepts=(Concept(name="axe", synonyms=("hatchet",), replacement="flower"),),
)


@pytest.fixture
def submit_erasure(jobs):
    def accept(spec: ErasureSpec = AXE) -> str:
        job_id = uuid.uuid4().hex
        jobs.submit(job_id, spec, queue_class=spec.base_model)
        return job_id

    return accept


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """The moments of captions: computed by the first test that runs a trainer."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def make_trainings(settings, jobs, registry, heartbeat, cache):
    def make(*, draining=lambda: False, silence_s: float = 600.0, **samples) -> Trainings:
        return Trainings(
            jobs,
            registry,
            Signer.load(settings.keys_dir),
            heartbeat,
            owner="trainer-0@test",
            lease_s=60,
            silence_s=silence_s,
            means=TrainerMeans(
                device="cpu",
                processes=1,
                threads=1,
                cache=cache,
                checkpoints=settings.data_dir / "checkpoints",
                prompt_sets=settings.prompt_sets_dir,
            ),
            draining=draining,
            **samples,
        )

    return make


def trainers() -> list[psutil.Process]:
    return [
        child for child in psutil.Process().children() if child.cmdline()[1:3] == ["-m", "trainer"]
    ]


def test_a_job_becomes_a_signed_candidate_and_reports_its_stages(
    jobs, registry, submit_erasure, make_trainings
):
    job_id = submit_erasure()
    make_trainings().drain()

    job = jobs.get(job_id)
    assert job.state is JobState.SUCCEEDED, job.reason
    manifest = registry.get(job.erasure.erased_model)
    assert manifest.status is ModelStatus.CANDIDATE
    assert manifest.edit.base_digest == registry.get("emoji").content_digest
    manifest.check_files(registry.path(manifest.id))
    told = [fields["progress"] for _, fields in jobs.news.events(job_id) if "progress" in fields]
    assert any('"reading concepts"' in progress for progress in told)


def test_what_is_drawn_on_the_way_is_kept_with_the_job(jobs, submit_erasure, make_trainings):
    job_id = submit_erasure()
    make_trainings(samples=2).drain()

    assert jobs.get(job_id).state is JobState.SUCCEEDED, jobs.get(job_id).reason
    base, now = jobs.news.samples(job_id)
    assert (base.after, now.after) == ("base", "stage-1")
    assert [one.prompt for one in base.pictures] == [one.prompt for one in now.pictures]
    assert base.pictures[0].prompt == "an axe"
    for before, after in zip(base.pictures, now.pictures, strict=True):
        assert Image.open(io.BytesIO(base64.b64decode(before.jpeg))).size == (64, 64)
        assert before.jpeg != after.jpeg


def test_where_pictures_are_judged_first_nothing_is_drawn(jobs, submit_erasure, make_trainings):
    job_id = submit_erasure()
    asked = []
    make_trainings(samples=2, judges=lambda tenant: asked.append(tenant) or True).drain()

    assert jobs.get(job_id).state is JobState.SUCCEEDED
    assert jobs.news.samples(job_id) == []
    assert asked == [jobs.get(job_id).tenant]


def test_models_are_merged_by_a_job_like_any_other(jobs, registry, submit_erasure, make_trainings):
    first = submit_erasure()
    make_trainings().drain()
    made = jobs.get(first).erasure.erased_model
    merge = ErasureSpec.model_validate({"base_model": "emoji", "merge": [made], "remove": ["axe"]})
    second = submit_erasure(merge)
    make_trainings().drain()

    job = jobs.get(second)
    assert job.state is JobState.SUCCEEDED, job.reason
    bare = registry.get(job.erasure.erased_model)
    assert bare.edit.merged == (made,)
    assert not bare.erases
    assert model_id(merge, second) == bare.id == f"emoji-merged-without-axe-{second[:8]}"


def test_a_second_attempt_makes_the_same_model_and_finds_it_there(
    jobs, registry, submit_erasure, make_trainings, monkeypatch
):
    """As when a worker dies between registering a model and committing its job."""
    job_id = submit_erasure()
    with monkeypatch.context() as patch:

        def dies(lease, result):
            # A worker that lives would have it back with its next claim.
            patch.setattr(jobs.leasing, "claim", lambda *_, **__: [])
            return False

        patch.setattr(jobs.leasing, "succeed", dies)
        make_trainings().drain()
    (made,) = [manifest for manifest in registry.all() if manifest.kind == "erased"]
    jobs.leasing.take_back("trainer-0@test")
    make_trainings().drain()

    job = jobs.get(job_id)
    assert job.state is JobState.SUCCEEDED, job.reason
    assert job.attempt == 2
    assert registry.get(job.erasure.erased_model) == made


class Bucket:
    """A mirror that may be away."""

    def __init__(self) -> None:
        self.away = True
        self.pushed: list[str] = []

    def push(self, manifest) -> None:
        if self.away:
            raise ModelsUnavailable("the bucket of models does not answer")
        self.pushed.append(manifest.id)

    def fetch(self, model_id: str) -> bool:
        return False


def test_an_outage_of_the_models_bucket_counts_no_attempt_and_the_model_is_not_made_twice(
    jobs, registry, submit_erasure, make_trainings, monkeypatch
):
    monkeypatch.setattr("worker.patience.FIRST_S", 0.3)
    registry.mirror = bucket = Bucket()
    job_id = submit_erasure()
    trainings = make_trainings()
    trainings.drain()

    job = jobs.get(job_id)
    assert (job.state, job.attempt) == (JobState.QUEUED, 0), job.reason
    assert "does not answer" in jobs.news.events(job_id)[-1][1]["why"]
    (made,) = [manifest for manifest in registry.all() if manifest.kind == "erased"]

    def start_child(*_, **__):
        raise AssertionError("it was made before")

    bucket.away = False
    monkeypatch.setattr("worker.trainer_process.start_child", start_child)
    time.sleep(0.3)
    trainings.drain()
    job = jobs.get(job_id)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 1), job.reason
    assert bucket.pushed == [job.erasure.erased_model] == [made.id]
    assert registry.get(made.id) == made


def test_a_job_claimed_before_anybody_knows_the_newest_manifests_is_let_go(
    jobs, registry, submit_erasure, make_trainings, heartbeat, redis_client, monkeypatch
):
    """Its base may be one that was replaced, and whose old manifest was put back."""
    job_id = submit_erasure()
    registry.serials = StatusSerials(redis_client)

    def away(*_, **__):
        raise redis.ConnectionError

    monkeypatch.setattr(redis_client, "zrange", away)
    with pytest.raises(StoreUnavailable):
        make_trainings().drain()

    assert heartbeat.gone == [job_id]
    assert jobs.get(job_id).state is JobState.RUNNING


@pytest.mark.parametrize("full_at", ["mkdir", "write_text"])
def test_a_disk_that_is_full_at_the_start_is_told_at_once(
    jobs, submit_erasure, make_trainings, monkeypatch, settings, full_at
):
    job_id = submit_erasure()
    whole = getattr(Path, full_at)

    def fill(path: Path, *args, **kwargs):
        if path.is_relative_to(settings.making_dir):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return whole(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, full_at, fill)
        make_trainings().drain()

    job = jobs.get(job_id)
    assert (job.state, job.attempt) == (JobState.FAILED, 1)
    assert "disk of models in the making" in job.reason
    assert "No space left on device" in job.reason
    assert not list(settings.making_dir.glob("job-*"))


def test_a_disk_that_is_full_when_a_model_is_put_in_place_is_told_at_once(
    jobs, submit_erasure, make_trainings, monkeypatch, registry
):
    """Trying again would train again, and meet the same disk."""
    job_id = submit_erasure()

    def fill(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Registrar, "add", fill)
    make_trainings().drain()

    job = jobs.get(job_id)
    assert (job.state, job.attempt) == (JobState.FAILED, 1)
    assert job.reason is not None
    assert f"the disk has no room left for {registry.folder}" in job.reason


def test_the_model_of_a_job_has_the_same_id_in_every_attempt():
    assert model_id(AXE, "0123456789abcdef") == "emoji-axe-01234567"


def test_a_base_with_a_changed_file_is_refused_by_name(
    settings, jobs, registry, submit_erasure, make_trainings, heartbeat
):
    weights = settings.models_dir / "emoji" / "unet" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    job_id = submit_erasure()
    make_trainings().drain()

    job = jobs.get(job_id)
    assert job.state is JobState.FAILED
    assert "unet/diffusion_pytorch_model.safetensors differs" in job.reason
    assert [manifest.id for manifest in registry.all()] == ["emoji"]
    # No trainer has been started: these are of what was digested.
    assert heartbeat.steps


def test_what_cannot_be_erased_fails_with_the_trainers_reason(
    jobs, submit_erasure, make_trainings
):
    contradictory = ErasureSpec(
        base_model="emoji",
        concepts=(
            Concept(name="axe", replacement="flower"),
            Concept(name="knife", replacement="an axe"),
        ),
    )
    job_id = submit_erasure(contradictory)
    make_trainings().drain()

    job = jobs.get(job_id)
    assert job.state is JobState.FAILED
    assert "which is to be erased" in job.reason
    assert job.attempt == 1


def interrupt(condition, action) -> threading.Thread:
    """Do `action` once `condition` holds, beside the test."""

    def wait() -> None:
        deadline = time.monotonic() + 300
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        action()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_trainer_that_is_killed_is_tried_again(jobs, registry, submit_erasure, make_trainings):
    job_id = submit_erasure()
    killer = interrupt(trainers, lambda: os.kill(trainers()[0].pid, signal.SIGKILL))
    make_trainings().drain()
    killer.join()

    job = jobs.get(job_id)
    assert job.state is JobState.SUCCEEDED, job.reason
    assert job.attempt == 2


def test_a_late_job_stops_its_trainer_and_says_so(jobs, submit_erasure, make_trainings, heartbeat):
    job_id = submit_erasure()
    clock = interrupt(trainers, lambda: heartbeat.verdicts.update({job_id: "late"}))
    make_trainings().drain()
    clock.join()

    job = jobs.get(job_id)
    assert job.state is JobState.FAILED
    assert job.reason == "its deadline passed while it ran"
    assert trainers() == []


def test_a_cancelled_job_stops_its_trainer_and_leaves_no_model(
    jobs, registry, submit_erasure, make_trainings, heartbeat, settings
):
    job_id = submit_erasure()

    def cancel() -> None:
        jobs.cancel(job_id)
        heartbeat.verdicts[job_id] = "cancelled"

    canceller = interrupt(trainers, cancel)
    make_trainings().drain()
    canceller.join()

    assert jobs.get(job_id).state is JobState.CANCELLED
    assert trainers() == []
    assert [manifest.id for manifest in registry.all()] == ["emoji"]
    assert list(settings.making_dir.iterdir()) == []


def test_a_worker_that_lost_its_lease_leaves_its_successors_folder_alone(
    registry, submit_erasure, make_trainings, heartbeat, settings
):
    job_id = submit_erasure()
    successors = []

    def lose() -> None:
        successors.append(registry.making.begin(f"job-{job_id}"))
        heartbeat.verdicts[job_id] = "lost"

    loser = interrupt(trainers, lose)
    make_trainings().drain()
    loser.join()

    assert list(settings.making_dir.iterdir()) == successors


@pytest.fixture
def after_training(monkeypatch):
    """Has something happen between the end of a trainer and what is made of its model."""

    def arrange(action) -> None:
        run = TrainerProcesses.run

        def run_then_act(self, module, words, lease) -> None:
            run(self, module, words, lease)
            action(Path(words[words.index("--out") + 1]))

        monkeypatch.setattr(TrainerProcesses, "run", run_then_act)

    return arrange


def test_a_model_that_another_attempt_made_meanwhile_is_the_jobs(
    jobs, registry, submit_erasure, make_trainings, settings, after_training
):
    """As of a worker that froze, woke up, and was fenced off only after it had added its own."""
    theirs = []

    def add_another(out: Path) -> None:
        folder = registry.making.begin("theirs")
        shutil.copytree(out, folder, dirs_exist_ok=True)
        (folder / "README.md").write_text("another")
        made = Manifest.read(folder)
        files = made.files | {"README.md": sha256(folder / "README.md")}
        other = made.model_copy(update={"files": files, "blake3": None})
        theirs.append(Registrar(registry).add(other, folder, Signer.load(settings.keys_dir)))

    after_training(add_another)
    job_id = submit_erasure()
    make_trainings().drain()

    job = jobs.get(job_id)
    assert job.state is JobState.SUCCEEDED, job.reason
    assert [registry.get(job.erasure.erased_model)] == theirs


@pytest.mark.parametrize(
    ("verdict", "state"),
    [
        ("lost", JobState.RUNNING),
        ("cancelled", JobState.CANCELLED),
        ("late", JobState.FAILED),
    ],
)
def test_a_job_that_is_stopped_when_its_trainer_has_ended_makes_no_model(
    jobs, registry, submit_erasure, make_trainings, heartbeat, after_training, verdict, state
):
    job_id = submit_erasure()

    def stop(_: Path) -> None:
        heartbeat.verdicts[job_id] = verdict
        if verdict == "lost":
            jobs.leasing.take_back("trainer-0@test")
            jobs.leasing.claim("erasure", "trainer-1@test", slots=1, lease_s=60, idle=True)

    after_training(stop)
    make_trainings().drain()

    assert jobs.get(job_id).state is state
    assert [manifest.id for manifest in registry.all()] == ["emoji"]


def test_what_dead_workers_left_behind_goes_when_their_jobs_have_ended(
    registry, submit_erasure, make_trainings, heartbeat, settings
):
    job_id = submit_erasure()
    registry.making.begin(f"job-{job_id}")
    registry.making.begin("job-of-nobody")
    imports = registry.making.begin("import-sd15")
    make_trainings().drain()

    assert list(settings.making_dir.iterdir()) == [imports]


def test_what_a_newer_version_may_still_work_on_stays(
    jobs, registry, submit_erasure, make_trainings, settings, redis_client
):
    newer = submit_erasure()
    jobs.leasing.claim("erasure", "trainer-1@newer", slots=1, lease_s=60, idle=True)
    redis_client.hset(f"job:{newer}", "spec", '{"kind": "from tomorrow"}')
    checkpoints = settings.data_dir / "checkpoints" / newer
    checkpoints.mkdir(parents=True)
    begun = registry.making.begin(f"job-{newer}")
    failing = submit_erasure(AXE.model_copy(update={"base_model": "nobody"}))
    make_trainings().drain()

    assert jobs.get(failing).state is JobState.FAILED
    assert checkpoints.exists()
    assert list(settings.making_dir.iterdir()) == [begun]


def test_a_worker_that_shuts_down_hands_the_job_back_uncounted(
    jobs, submit_erasure, make_trainings
):
    job_id = submit_erasure()
    told = threading.Event()

    def draining() -> bool:
        """From the moment that the trainer runs, for good."""
        if trainers():
            told.set()
        return told.is_set()

    make_trainings(draining=draining).drain()

    assert jobs.get(job_id).state is JobState.QUEUED
    assert jobs.get(job_id).attempt == 0
    assert trainers() == []


def test_a_trainer_that_says_nothing_is_stopped(jobs, submit_erasure, make_trainings):
    job_id = submit_erasure()
    make_trainings(silence_s=0.0).drain()

    job = jobs.get(job_id)
    assert job.state is JobState.FAILED
    assert job.attempt == 3
    assert "said nothing" in job.reason


BOTH_STAGES = AXE.model_copy(
    update={
        "steering": SteeringOptions(
            steps=6,
            batch=2,
            anchors=1,
            learning_rate=1e-3,
            trajectories=2,
            anchor_trajectories=1,
            kept_trajectories=0,
            trajectory_steps=4,
        )
    }
)


def test_a_second_attempt_resumes_what_the_killed_one_prepared(
    settings, jobs, submit_erasure, make_trainings
):
    job_id = submit_erasure(BOTH_STAGES)

    def told(stage: str) -> list[Progress]:
        events = (fields.get("progress") for _, fields in jobs.news.events(job_id))
        every = [Progress.model_validate_json(event) for event in events if event]
        return [progress for progress in every if progress.stage == stage]

    killer = interrupt(
        lambda: told("steering"), lambda: os.kill(trainers()[0].pid, signal.SIGKILL)
    )
    make_trainings().drain()
    killer.join()

    job = jobs.get(job_id)
    assert job.state is JobState.SUCCEEDED, job.reason
    assert job.attempt == 2
    # The first attempt drew group by group; the second found all of it there, and drew nothing.
    done = [progress.done for progress in told("drawing trajectories")]
    assert done == sorted(done)
    assert set(done) == {0, 2, 3}
    assert set(told("steering")[-1].figures) == {"prompted", "unprompted", "anchored"}
    assert list((settings.data_dir / "checkpoints").iterdir()) == []


def test_a_model_of_both_stages_is_served_and_its_base_stays_as_it_was(
    jobs, registry, storage, settings, submit, submit_erasure, make_trainings, make_batcher
):
    def erased(spec: ErasureSpec) -> str:
        job_id = submit_erasure(spec)
        make_trainings().drain()
        job = jobs.get(job_id)
        assert job.state is JobState.SUCCEEDED, job.reason
        Registrar(registry).set_status(
            job.erasure.erased_model, ModelStatus.SERVING, Signer.load(settings.keys_dir)
        )
        return job.erasure.erased_model

    both, one = erased(BOTH_STAGES), erased(AXE)
    batcher = make_batcher()

    def drawn(model: str) -> bytes:
        job_id = submit("an axe", model=model, strict=True)
        batcher.drain()
        job = jobs.get(job_id)
        assert job.state is JobState.SUCCEEDED, job.reason
        picture = Image.open(io.BytesIO(storage.get(job.generation.images[0].key)))
        return picture.convert("RGB").tobytes()

    base = drawn("emoji")
    pictures = {model: drawn(model) for model in (both, one, both)}
    assert len({base, *pictures.values()}) == 3
    assert drawn("emoji") == base
    assert drawn(one) == pictures[one]
    assert drawn(both) == pictures[both]


def test_a_base_that_is_replaced_while_a_job_reads_it_makes_no_model(
    jobs, registry, settings, submit_erasure, make_trainings
):
    """The trainer finds another base, whole in itself; nobody signs what comes of it."""
    path = registry.path("emoji")
    first = registry.get("emoji")
    kept = {name: (path / name).read_bytes() for name in ("manifest.json", "README.md")}

    def replace() -> None:
        (path / "README.md").write_text("another")
        files = first.files | {"README.md": sha256(path / "README.md")}
        other = first.model_copy(update={"files": files, "blake3": None})
        other.signed(Signer.load(settings.keys_dir)).write(path)

    job_id = submit_erasure()
    swapper = interrupt(trainers, replace)
    make_trainings().drain()
    swapper.join()
    for name, data in kept.items():
        (path / name).write_bytes(data)

    job = jobs.get(job_id)
    assert job.state is JobState.FAILED
    assert "README.md" in job.reason or "was replaced" in job.reason
    assert [manifest.id for manifest in registry.all()] == ["emoji"]
