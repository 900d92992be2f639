"""Evaluations: from a job's spec to a report that is kept with its model."""

import shutil
from pathlib import Path

from core.evaluation import EvaluationSpec
from core.jobs import Lease
from core.manifests import Manifest
from core.registrar import Registrar
from core.registry import ModelRegistry
from core.signing import Signer
from trainer.evaluation.album import DIGITS, PICTURES
from worker.trainer_means import TrainerMeans
from worker.trainer_process import TrainerProcesses


class Evaluating:
    def __init__(
        self,
        registry: ModelRegistry,
        signer: Signer,
        trainers: TrainerProcesses,
        means: TrainerMeans,
    ) -> None:
        self._registry = registry
        self._registrar = Registrar(registry)
        self._signer = signer
        self._trainers = trainers
        self._means = means

    def make(self, lease: Lease, spec: EvaluationSpec, scratch: Path) -> dict[str, str]:
        """The fields of an EvaluationResult but the time it took.

        Args:
            scratch: a folder of this attempt alone, with its `spec.json`.

        Raises:
            What TrainerProcesses.run and check raise, and errors of the registry.
        """
        model = self._registry.get(spec.model)
        # An earlier attempt may have ended between signing its report and saying so.
        if not self._registrar.has_report(model.id, lease.job_id):
            self._evaluate(lease, model, scratch)
        if model.edit is not None:
            # Those of the base are drawn once for all evaluations; these have been counted.
            drawn = self._means.cache / PICTURES / model.content_digest[:DIGITS]
            shutil.rmtree(drawn, ignore_errors=True)
        return {"model": model.id, "report": lease.job_id}

    def _evaluate(self, lease: Lease, model: Manifest, scratch: Path) -> None:
        base = self._registry.get(model.edit.base_model) if model.edit else model
        folders = self._registry.path(base.id), self._registry.path(model.id)
        # What lies in the folders may change while they are read: these are what was signed.
        signed = scratch / "base.json", scratch / "model.json"
        for manifest, file in zip((base, model), signed, strict=True):
            file.write_bytes(manifest.file_bytes())
        out = scratch / "report"
        self._trainers.run(
            "trainer.evaluation",
            [
                *(scratch / "spec.json", "--base", folders[0], "--model", folders[1]),
                *("--base-manifest", signed[0], "--model-manifest", signed[1]),
                *("--out", out, "--prompt-sets", self._means.prompt_sets),
                *self._means.words,
            ],
            lease,
        )
        self._trainers.check(lease)
        self._registrar.add_report(model.id, lease.job_id, out, self._signer)
