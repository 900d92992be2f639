"""Erasures: from a job's spec to a signed candidate in the registry."""

from collections.abc import Callable
from pathlib import Path

from core.errors import (
    ModelExists,
    ModelNotFound,
    ModelUnsupported,
    StoreUnavailable,
    UntrustedModel,
)
from core.jobs import Lease
from core.manifests import Manifest
from core.registrar import Registrar
from core.registry import ModelRegistry
from core.signing import Signer
from core.specs import ErasureSpec
from worker.made_models import MadeModels, model_id
from worker.trainer_means import TrainerMeans
from worker.trainer_process import TrainerProcesses


class Erasing:
    def __init__(
        self,
        registry: ModelRegistry,
        signer: Signer,
        trainers: TrainerProcesses,
        means: TrainerMeans,
        *,
        samples: int,
        judges: Callable[[str], bool],
    ) -> None:
        """
        Args:
            samples: pictures that an erasure draws now and then, to show how far it is; 0: none.
            judges: whether a tenant's pictures may be seen only after they were judged; there
                are no samples then.
        """
        self._registry = registry
        self._registrar = Registrar(registry)
        self._signer = signer
        self._trainers = trainers
        self._means = means
        self._made = MadeModels(means.checkpoints)
        self._samples = samples
        self._judges = judges

    def make(self, lease: Lease, spec: ErasureSpec, scratch: Path) -> dict[str, str]:
        """The fields of an ErasureResult but the time it took.

        Args:
            scratch: a folder of this attempt alone, with its `spec.json`.

        Raises:
            What TrainerProcesses.run and check raise, and errors of the registry.
        """
        return {"erased_model": self._erase(lease, spec, scratch).id}

    def _erase(self, lease: Lease, spec: ErasureSpec, scratch: Path) -> Manifest:
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
        self._trainers.run(
            "trainer",
            [
                *(scratch / "spec.json", "--base", self._registry.path(base.id), "--out", out),
                *("--model-id", model_id(spec, lease.job_id)),
                *("--work", self._means.checkpoints / lease.job_id),
                *("--processes", str(self._means.processes)),
                *("--samples", str(self._samples_for(lease))),
                *self._means.words,
                *(word for folder in merged for word in ("--merge", folder)),
            ],
            lease,
        )
        made = Manifest.read(out)
        # What the trainer read, it held against the manifest that it found: was it this one's?
        if made.edit is None or made.edit.base_digest != base.content_digest:
            raise UntrustedModel(f"{base.id} was replaced while the job read it")
        for one in read:
            one.check_files(self._registry.path(one.id))
        self._trainers.check(lease)
        self._made.note(lease.job_id, made)
        try:
            return self._registrar.add(made, out, self._signer)
        except ModelExists:
            # An attempt that lost its lease, and did not hear of it, may have been here meanwhile.
            if theirs := self._made_before(spec, lease, base):
                return theirs
            raise
        finally:
            # Should this attempt have frozen until its job had ended, its note went with the job.
            self._made.note(lease.job_id, made)

    def _made_before(self, spec: ErasureSpec, lease: Lease, base: Manifest) -> Manifest | None:
        """The model of an earlier attempt that ended between making it and saying so.

        Made again it might differ, as on a GPU, and then could not take the place of the first.
        """
        name = model_id(spec, lease.job_id)
        if not self._registry.path(name).exists():
            return None  # not asked of the bucket: an outage is no reason not to begin
        try:
            made = self._registry.get(name)
            if made.edit is None or made.edit.base_digest != base.content_digest:
                return None
            # No change, but it is put into the bucket, if there is one.
            return self._registrar.set_status(name, made.status, self._signer)
        except ModelNotFound:
            return None  # it was discarded just now, for the job was late before this attempt

    def _samples_for(self, lease: Lease) -> int:
        try:
            seen = self._samples > 0 and not self._judges(lease.tenant)
        except StoreUnavailable:
            return 0  # nobody knows whether they may be seen, and the job can do without
        return self._samples if seen else 0
