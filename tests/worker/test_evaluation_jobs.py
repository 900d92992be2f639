"""Evaluation jobs: the real evaluator as a subprocess, the shipped model, a real broker."""

import os
import signal
import threading
import time
import uuid

import psutil
import pytest

from core.evaluation import EvaluationSpec
from core.jobs import JobState
from core.model_folder import MANIFEST
from core.registrar import Registrar
from core.signing import Signer
from tests.made_reports import report, suite, write
from worker.trainer_means import TrainerMeans
from worker.trainer_process import TrainerProcesses
from worker.training import Trainings

QUICK = EvaluationSpec(
    model="emoji",
    target=("axe",),
    suites=("explicit", "neighbours"),
    at_most=3,
    num_inference_steps=2,
)


@pytest.fixture
def submit_evaluation(jobs):
    def accept(spec: EvaluationSpec = QUICK) -> str:
        job_id = uuid.uuid4().hex
        jobs.submit(job_id, spec, queue_class=spec.model)
        return job_id

    return accept


@pytest.fixture
def trainings(settings, jobs, registry, heartbeat) -> Trainings:
    return Trainings(
        jobs,
        registry,
        Signer.load(settings.keys_dir),
        heartbeat,
        owner="trainer-0@test",
        lease_s=60,
        silence_s=600,
        means=TrainerMeans(
            device="cpu",
            processes=1,
            threads=2,
            cache=settings.data_dir / "cache",
            checkpoints=settings.data_dir / "checkpoints",
            prompt_sets=settings.prompt_sets_dir,
        ),
        draining=lambda: False,
    )


def evaluators() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children()
        if child.cmdline()[1:3] == ["-m", "trainer.evaluation"]
    ]


def test_a_job_becomes_a_signed_report_even_when_its_process_was_killed(
    jobs, registry, submit_evaluation, trainings, settings
):
    job_id = submit_evaluation()

    commands = []

    def kill_once_something_is_drawn() -> None:
        pictures = settings.data_dir / "cache/pictures"
        while not list(pictures.glob("*/*.png")):
            time.sleep(0.02)
        for process in evaluators():
            commands.append(" ".join(process.cmdline()))
            os.kill(process.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_once_something_is_drawn, daemon=True)
    killer.start()
    trainings.drain()
    killer.join(5)

    job = jobs.get(job_id)
    assert job.state is JobState.SUCCEEDED, job.reason
    assert job.attempt == 2
    assert "--threads 2" in commands[0]
    [report] = registry.reports.of(registry.get("emoji"))
    assert report.model.digest == registry.get("emoji").content_digest
    # What the killed attempt drew was there already.
    assert report.costs.pictures_from_cache > 0
    assert [suite.name for suite in report.suites] == ["explicit", "neighbours"]
    told = [fields["progress"] for _, fields in jobs.news.events(job_id) if "progress" in fields]
    assert any('"drawing explicit"' in progress for progress in told)


def test_one_whose_report_an_earlier_attempt_has_signed_is_not_measured_again(
    jobs, registry, settings, submit_evaluation, trainings, monkeypatch, tmp_path
):
    def start_child(*_, **__):
        raise AssertionError("it was measured before")

    monkeypatch.setattr("worker.trainer_process.start_child", start_child)
    job_id = submit_evaluation()
    folder = write(report(registry.get("emoji"), suite()), tmp_path / "report")
    signer = Signer.load(settings.keys_dir)
    signed = Registrar(registry).add_report("emoji", job_id, folder, signer)
    trainings.drain()

    job = jobs.get(job_id)
    assert job.state is JobState.SUCCEEDED, job.reason
    assert job.evaluation.report == job_id
    assert registry.get("emoji") == signed


def test_a_manifest_that_is_put_into_a_folder_meanwhile_is_not_believed(
    jobs, registry, submit_evaluation, trainings, monkeypatch
):
    file = registry.path("emoji") / MANIFEST
    run = TrainerProcesses.run

    def run_beside_another(*order) -> None:
        signed = file.read_bytes()
        file.write_text("{}")
        run(*order)
        file.write_bytes(signed)

    monkeypatch.setattr(TrainerProcesses, "run", run_beside_another)
    job_id = submit_evaluation()
    trainings.drain()

    job = jobs.get(job_id)
    assert job.state is JobState.SUCCEEDED, job.reason


def test_one_that_cannot_be_measured_fails_with_the_reason(jobs, submit_evaluation, trainings):
    wrong = QUICK.model_copy(update={"prompt_files": ("i2p.csv",)})
    job_id = submit_evaluation(wrong)
    trainings.drain()
    job = jobs.get(job_id)
    assert (job.state, job.attempt) == (JobState.FAILED, 1)
    assert "no prompt set i2p.csv" in job.reason


def test_a_cancelled_one_stops(jobs, submit_evaluation, trainings, heartbeat):
    job_id = submit_evaluation(QUICK.model_copy(update={"num_inference_steps": 100}))

    def cancel(steps: int) -> None:
        if steps == 3:
            heartbeat.verdicts[job_id] = "cancelled"

    heartbeat.on_step = cancel
    trainings.drain()
    assert jobs.get(job_id).state is JobState.CANCELLED
    assert evaluators() == []


@pytest.mark.parametrize(
    ("verdict", "state"),
    [
        ("lost", JobState.RUNNING),
        ("cancelled", JobState.CANCELLED),
        ("late", JobState.FAILED),
    ],
)
def test_one_that_is_stopped_when_it_was_measured_leaves_the_model_as_it_was(
    jobs, registry, submit_evaluation, trainings, heartbeat, monkeypatch, verdict, state
):
    before = registry.get("emoji")
    job_id = submit_evaluation()

    def measure_and_stop(self, module, words, lease) -> None:
        write(report(before, suite()), words[words.index("--out") + 1])
        heartbeat.verdicts[job_id] = verdict
        if verdict == "lost":
            jobs.leasing.take_back("trainer-0@test")
            jobs.leasing.claim("evaluation", "trainer-1@test", slots=1, lease_s=60, idle=True)

    monkeypatch.setattr(TrainerProcesses, "run", measure_and_stop)
    trainings.drain()

    assert jobs.get(job_id).state is state
    assert registry.get("emoji") == before
