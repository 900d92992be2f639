"""Erasures and evaluations: the trainer as a subprocess, watched, fenced, its result registered.

A process of its own: it may be killed at any moment without taking the worker along, and it
gives back every byte of memory when it ends.
"""

import contextlib
import json
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog

from core.children import start_child, stop_child
from core.errors import (
    AppError,
    JobCancelled,
    JobNotFound,
    LeaseLost,
    ModelUnsupported,
    NotEnoughRoom,
    RetryableError,
    StoreUnavailable,
    UntrustedModel,
)
from core.evaluation import EvaluationSpec
from core.job_specs import Kind
from core.job_store import JobStore
from core.jobs import Lease
from core.manifests import Manifest
from core.progress import Progress
from core.registrar import Registrar
from core.registry import ModelRegistry
from core.samples import Samples
from core.signing import Signer
from core.specs import ErasureSpec
from core.tracing import Tracing
from trainer.evaluation.album import DIGITS, PICTURES
from worker import metrics
from worker.heartbeat import Heartbeat
from worker.patience import Patience
from worker.roles import KINDS_OF_ROLE

log = structlog.get_logger()

LOOK_EVERY_S = 0.25
GRACE_S = 8.0
"""For the trainer to end; less than the worker itself is given (cli/stack/up.py)."""
USER_ERROR = 2
"""The trainer's exit code for a job that cannot succeed as it stands."""
MAX_NAME_CHARS = 60
JOB = "job-"
"""What the folders of models in the making start with, that are of jobs."""

SPANS: dict[Kind, str] = {"erasure": "erase", "evaluation": "evaluate"}
"""What attempts at jobs are called in traces."""


class TrainerFailed(AppError):
    """The job's own fault; trying again would end the same way."""


class TrainerCrashed(AppError):
    """Not the job's fault, as far as one can tell."""


class ShuttingDown(AppError):
    """The worker is told to stop."""


class Trainings:
    """Runs the erasures and evaluations of one worker, one after the other."""

    def __init__(
        self,
        jobs: JobStore,
        registry: ModelRegistry,
        signer: Signer,
        heartbeat: Heartbeat,
        *,
        owner: str,
        lease_s: float,
        silence_s: float,
        device: str,
        processes: int,
        threads: int,
        cache: Path,
        checkpoints: Path,
        prompt_sets: Path,
        draining: Callable[[], bool],
        samples: int = 0,
        judges: Callable[[str], bool] = lambda _: False,
        tracing: Tracing | None = None,
    ) -> None:
        """
        Args:
            silence_s: a trainer that reports nothing for this long is taken to hang.
            processes: that stage 2 of an erasure runs in; of more than one each has a device.
            threads: of a trainer, where it computes on the CPU.
            cache: a folder for moments of captions, shared by all jobs.
            checkpoints: a folder in which every job has one of its own, until it ends.
            prompt_sets: the folder of the prompt files that evaluations may name.
            samples: pictures that an erasure draws now and then, to show how far it is; 0: none.
            judges: whether a tenant's pictures may be seen only after they were judged; there
                are no samples then.
        """
        self._jobs = jobs
        self._leasing = jobs.leasing
        self._registry = registry
        self._registrar = Registrar(registry)
        self._signer = signer
        self._heartbeat = heartbeat
        self._owner = owner
        self._lease_s = lease_s
        self._silence_s = silence_s
        self._device = device
        self._processes = str(processes)
        self._threads = str(threads)
        self._cache = cache
        self._checkpoints = checkpoints
        self._prompt_sets = prompt_sets
        self._draining = draining
        self._samples = samples
        self._judges = judges
        self._tracing = tracing or Tracing()
        self._patience = Patience()

    def drain(self) -> None:
        """Work until nothing waits, or until told to shut down."""
        while not self._draining():
            # In turns: many jobs of one kind do not keep the other waiting.
            worked = [self._claim_and_run(kind) for kind in KINDS_OF_ROLE["trainer"]]
            if not any(worked):
                return

    def _claim_and_run(self, kind: Kind) -> bool:
        """Whether there was a job of that kind."""
        if self._draining() or self._patience.waits:
            return False
        leases = self._leasing.claim(kind, self._owner, slots=1, lease_s=self._lease_s, idle=True)
        if not leases:
            return False
        self._heartbeat.hold(leases)
        if leases[0].attempt == 1:
            metrics.QUEUE_WAIT.labels(kind).observe(leases[0].waited_s)
        try:
            self._run(leases[0])
        except StoreUnavailable:
            self._heartbeat.let_go(leases)  # another attempt resumes
            raise
        finally:
            metrics.not_erasing()
            self._heartbeat.hold([])
        return True

    def _run(self, lease: Lease) -> None:
        """One attempt at one job, to whatever end."""
        try:
            scratch = self._begin(lease)
        except NotEnoughRoom as error:
            log.exception("no room", job=lease.job_id)
            self._leasing.fail(lease, str(error))
            self._clear_leavings()
            return
        self._attempt(lease, scratch)

    def _attempt(self, lease: Lease, scratch: Path) -> None:
        """What follows once there is a folder for it."""
        started, began_s = time.monotonic(), time.time()
        told = {"job": lease.job_id, "request": lease.request_id, "attempt": lease.attempt}
        log.info("begun", kind=lease.spec.kind, **told)
        try:
            done = self._make(lease, scratch)
        except LeaseLost:
            log.warning("fenced off", job=lease.job_id)
        except JobCancelled:
            self._leasing.acknowledge_cancel(lease)
        except ShuttingDown as error:
            self._leasing.hand_back(lease, str(error))
        except TrainerCrashed as error:
            self._leasing.try_again(lease, str(error))
        except StoreUnavailable:
            raise
        except RetryableError as error:
            # Not the job's fault: an outage of the models' bucket may not use up its attempts.
            self._leasing.hand_back(lease, str(error))
            self._patience.failed()
        except AppError as error:
            self._leasing.fail(lease, str(error))
        except Exception as error:
            # Not the job's fault, as far as one can tell: a full disk, a defect of ours.
            self._leasing.try_again(lease, f"its worker failed: {type(error).__name__}: {error}")
            raise
        else:
            self._patience.succeeded()
            result = {**done, "seconds": round(time.monotonic() - started, 3)}
            kept = self._leasing.succeed(lease, result)
            log.info("done" if kept else "fenced off", job=lease.job_id, **done)
        finally:
            self._registry.making.clear(scratch)
            self._tracing.record(
                SPANS[lease.spec.kind],
                lease.request_id,
                began_s=began_s,
                ended_s=time.time(),
                attributes={"job": lease.job_id, "attempt": lease.attempt},
            )
            self._clear_leavings()

    def _begin(self, lease: Lease) -> Path:
        """A folder of this attempt alone: an earlier one that only froze may still write into its
        own. It holds the spec, for the trainer.

        Raises:
            NotEnoughRoom: the disk takes none.
        """
        scratch: Path | None = None
        try:
            scratch = self._registry.making.begin(f"{JOB}{lease.job_id}")
            (scratch / "spec.json").write_text(lease.spec.model_dump_json())
        except OSError as error:
            raise NotEnoughRoom(
                f"the disk of models in the making cannot be written to: {error.strerror} "
                f"({error.filename or scratch}); mend that, and send the job again"
            ) from error
        return scratch

    def _make(self, lease: Lease, scratch: Path) -> dict[str, str]:
        """The fields of a job's result but the time it took."""
        if isinstance(lease.spec, EvaluationSpec):
            return self._evaluate(lease, lease.spec, scratch)
        return {"erased_model": self._erase(lease, scratch).id}

    def _clear_leavings(self) -> None:
        """Of jobs that will not be tried again, wherever and however they ended."""
        with contextlib.suppress(StoreUnavailable):
            for folder in self._checkpoints.glob("*"):
                if self._has_ended(folder.name):
                    shutil.rmtree(folder, ignore_errors=True)
            self._registry.making.sweep(
                lambda name: name.startswith(JOB) and self._has_ended(name.removeprefix(JOB))
            )

    def _has_ended(self, job_id: str) -> bool:
        try:
            return self._jobs.get(job_id).state.ended
        except JobNotFound:
            return True

    def _erase(self, lease: Lease, scratch: Path) -> Manifest:
        spec = lease.spec
        assert isinstance(spec, ErasureSpec)
        base = self._registry.get(spec.base_model)
        if base.kind != "base":
            raise ModelUnsupported(f"{base.id} is an erased model; erase from its base instead")
        read = [base, *(self._registry.get(one) for one in spec.merge)]
        for one in read:
            one.check_files(self._registry.path(one.id))
        if made := self._made_before(spec, lease, base):
            return made
        merged = [self._registry.path(one.id) for one in read[1:]]
        out = scratch / "model"
        trainer = start_child(
            [
                *(sys.executable, "-m", "trainer", scratch / "spec.json"),
                *("--base", self._registry.path(base.id)),
                *("--out", out),
                *("--model-id", model_id(spec, lease.job_id)),
                *("--device", self._device, "--threads", self._threads, "--cache", self._cache),
                *("--work", self._checkpoints / lease.job_id, "--processes", self._processes),
                *("--progress", "json", "--samples", str(self._samples_for(lease))),
                *(word for folder in merged for word in ("--merge", folder)),
            ],
            stdout=subprocess.PIPE,
            # In native code it would not hear a SIGTERM, and go on beside the next attempt.
            death_signal=signal.SIGKILL,
        )
        self._watch(trainer, lease)
        made = Manifest.read(out)
        # What the trainer read, it held against the manifest that it found: was it this one's?
        if made.edit is None or made.edit.base_digest != base.content_digest:
            raise UntrustedModel(f"{base.id} was replaced while the job read it")
        for one in read:
            one.check_files(self._registry.path(one.id))
        return self._registrar.add(made, out, self._signer)

    def _made_before(self, spec: ErasureSpec, lease: Lease, base: Manifest) -> Manifest | None:
        """The model of an earlier attempt that ended between making it and saying so.

        Made again it might differ, as on a GPU, and then could not take the place of the first.
        """
        name = model_id(spec, lease.job_id)
        if not self._registry.path(name).exists():
            return None  # not asked of the bucket: an outage is no reason not to begin
        made = self._registry.get(name)
        if made.edit is None or made.edit.base_digest != base.content_digest:
            return None
        # No change, but it is put into the bucket, if there is one.
        return self._registrar.set_status(name, made.status, self._signer)

    def _samples_for(self, lease: Lease) -> int:
        try:
            seen = self._samples > 0 and not self._judges(lease.tenant)
        except StoreUnavailable:
            return 0  # nobody knows whether they may be seen, and the job can do without
        return self._samples if seen else 0

    def _evaluate(self, lease: Lease, spec: EvaluationSpec, scratch: Path) -> dict[str, str]:
        """The fields of an EvaluationResult but the time it took."""
        model = self._registry.get(spec.model)
        base = self._registry.get(model.edit.base_model) if model.edit else model
        folders = self._registry.path(base.id), self._registry.path(model.id)
        for manifest, folder in zip((base, model), folders, strict=True):
            manifest.check_files(folder)
        out = scratch / "report"
        evaluator = start_child(
            [
                *(sys.executable, "-m", "trainer.evaluation", scratch / "spec.json"),
                *("--base", folders[0], "--model", folders[1], "--out", out),
                *("--device", self._device, "--threads", self._threads, "--cache", self._cache),
                *("--prompt-sets", self._prompt_sets, "--progress", "json"),
            ],
            stdout=subprocess.PIPE,
            death_signal=signal.SIGKILL,
        )
        self._watch(evaluator, lease)
        self._registrar.add_report(model.id, lease.job_id, out, self._signer)
        if model.edit is not None:
            # Those of the base are drawn once for all evaluations; these have been counted.
            drawn = self._cache / PICTURES / model.content_digest[:DIGITS]
            shutil.rmtree(drawn, ignore_errors=True)
        return {"model": model.id, "report": lease.job_id}

    def _watch(self, trainer: "subprocess.Popen[bytes]", lease: Lease) -> None:
        """Pass progress on until the trainer ends; end it when the job is not to go on.

        Raises:
            TrainerFailed, TrainerCrashed, JobCancelled, LeaseLost, ShuttingDown.
        """
        assert trainer.stdout is not None
        last_words = ""
        shown: list[Samples] = []
        heard_at = time.monotonic()
        try:
            for line in _lines(trainer.stdout.fileno()):
                self._heartbeat.step()
                heard_at = time.monotonic() if line else heard_at
                if time.monotonic() - heard_at > self._silence_s:
                    raise TrainerCrashed(f"the trainer said nothing for {self._silence_s:.0f} s")
                match self._heartbeat.verdict(lease):
                    case "cancelled":
                        raise JobCancelled(f"job {lease.job_id} was cancelled")
                    case "late":
                        raise TrainerFailed("its deadline passed while it ran")
                    case "lost":
                        raise LeaseLost(f"job {lease.job_id} has another worker now")
                if self._draining():
                    raise ShuttingDown("its worker is shutting down")
                # An outage of the broker is no reason to stop: the lease decides.
                with contextlib.suppress(StoreUnavailable):
                    self._pass_on(line, lease, shown)
                last_words = line or last_words
        finally:
            code = stop_child(trainer, grace_s=GRACE_S)
            trainer.stdout.close()
        if code == USER_ERROR and last_words.startswith('{"error"'):
            raise TrainerFailed(json.loads(last_words)["error"]["detail"])
        if code != 0:
            name = signal.Signals(-code).name if code < 0 else str(code)
            raise TrainerCrashed(f"the trainer ended with {name}")

    def _pass_on(self, line: str, lease: Lease, shown: list[Samples]) -> None:
        """What a trainer says of its progress; `shown` keeps its first round of samples.

        Raises:
            StoreUnavailable.
        """
        if line.startswith('{"stage"'):
            progress = Progress.model_validate_json(line)
            metrics.erasing(progress.stage, progress.done / max(1, progress.total))
            self._leasing.report(lease, progress)
        elif line.startswith('{"after"'):
            shown[1:] = [Samples.model_validate_json(line)]
            self._leasing.show(lease, shown)


def model_id(spec: ErasureSpec, job_id: str) -> str:
    """The same for every attempt at a job, so that a second one finds the first one's model."""
    what = spec.preset or "-".join(concept.name for concept in spec.concepts)
    if spec.merge:
        what = "-".join(["merged", what, *(f"without {name}" for name in spec.remove)])
    words = re.sub(r"[^a-z0-9]+", "-", f"{spec.base_model}-{what}".lower()).strip("-")
    return f"{words[:MAX_NAME_CHARS].rstrip('-')}-{job_id[:8]}"


def _lines(file: int) -> Iterator[str]:
    """Lines as they come, and an empty one whenever nothing came for a while; ends at EOF."""
    unread = b""
    with selectors.DefaultSelector() as selector:
        selector.register(file, selectors.EVENT_READ)
        while True:
            if not selector.select(LOOK_EVERY_S):
                yield ""
                continue
            data = os.read(file, 1 << 16)
            if not data:
                return
            *lines, unread = (unread + data).split(b"\n")
            yield from (line.decode() for line in lines if line)
