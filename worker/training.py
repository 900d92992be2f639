"""Erasures and evaluations: claimed, tried, and brought to whatever end."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from core.byte_counting import counting
from core.errors import (
    AppError,
    JobCancelled,
    LeaseLost,
    NotEnoughRoom,
    RetryableError,
    StoreUnavailable,
)
from core.evaluation import EvaluationSpec
from core.job_specs import Kind
from core.job_store import JobStore
from core.jobs import Lease
from core.registry import ModelRegistry
from core.signing import Signer
from core.specs import ErasureSpec
from core.tracing import Tracing
from trainer.full_disk import full_disk_named
from worker import metrics
from worker.erasing import Erasing
from worker.evaluating import Evaluating
from worker.heartbeat import Heartbeat
from worker.patience import Patience
from worker.roles import KINDS_OF_ROLE
from worker.trainer_leavings import JOB, TrainerLeavings
from worker.trainer_means import TrainerMeans
from worker.trainer_process import (
    ShuttingDown,
    TrainerCrashed,
    TrainerProcesses,
)

log = structlog.get_logger()

SPANS: dict[Kind, str] = {"erasure": "erase", "evaluation": "evaluate"}
"""What attempts at jobs are called in traces."""


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
        means: TrainerMeans,
        draining: Callable[[], bool],
        samples: int = 0,
        judges: Callable[[str], bool] = lambda _: False,
        tracing: Tracing | None = None,
    ) -> None:
        """
        Args:
            silence_s: a trainer that reports nothing for this long is taken to hang.
            samples: pictures that an erasure draws now and then, to show how far it is; 0: none.
            judges: whether a tenant's pictures may be seen only after they were judged; there
                are no samples then.
        """
        self._leasing = jobs.leasing
        self._registry = registry
        self._heartbeat = heartbeat
        self._owner = owner
        self._lease_s = lease_s
        self._leavings = TrainerLeavings(jobs, registry, means.checkpoints)
        self._draining = draining
        trainers = TrainerProcesses(
            self._leasing, heartbeat, silence_s=silence_s, draining=draining
        )
        self._erasing = Erasing(
            *(registry, signer, trainers, means), samples=samples, judges=judges
        )
        self._evaluating = Evaluating(registry, signer, trainers, means)
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
        leases = self._leasing.claim(
            kind, self._owner, slots=1, lease_s=self._lease_s, idle=True, known=()
        )
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
            # Not the job's fault, as far as one can tell: a defect of ours.
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
        # Gigabytes that are digested or sent to a bucket take longer than a step may.
        beating = counting(lambda _: self._heartbeat.step())
        # A trainer names a full disk itself; what it made is signed and put in place here.
        with beating, full_disk_named(self._registry.folder):
            if isinstance(lease.spec, EvaluationSpec):
                return self._evaluating.make(lease, lease.spec, scratch)
            assert isinstance(lease.spec, ErasureSpec)
            return self._erasing.make(lease, lease.spec, scratch)

    def _clear_leavings(self) -> None:
        with contextlib.suppress(StoreUnavailable):
            self._leavings.sweep()
