"""What the tests of the service stand on: an installation with models, and a played worker."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from core.edits import Edit
from core.job_specs import Kind
from core.jobs import GenerationResult, ImageRecord, Lease
from core.making import describe
from core.manifests import Drawing, Manifest, ModelStatus
from core.registrar import Registrar
from core.registry import ModelRegistry
from core.signing import Signer, Verifier
from core.specs import GenerationSpec
from service.wiring import Parts
from tests.edits import pistol_edit

APPLE = {"prompt": "a red apple"}
WEAPONS = {"base_model": "raw", "preset": "weapons"}
DRAWING = Drawing(native_px=64, multiple_px=16, max_px=128)
PNG = b"\x89PNG\r\n\x1a\n and the rest of picture "


class Installation:
    """A data folder with models in it. Their weights are words: nobody here loads them."""

    def __init__(self, data_dir: Path) -> None:
        self.models = data_dir / "models"
        self._signer = Signer.load_or_create(data_dir / "keys")
        self.registry = ModelRegistry(
            self.models,
            Verifier.load(data_dir / "keys"),
            serve_unerased_base=False,
            default_model="safe",
        )
        self.registrar = Registrar(self.registry)

    def add_base(self, model_id: str, *, files: Mapping[str, str] | None = None) -> Manifest:
        """
        Args:
            files: path in its folder -> text, beside its weights.
        """
        return self._add(model_id, ModelStatus.SERVING, None, files or {})

    def add_erased(
        self, model_id: str, *, base: Manifest, status: ModelStatus = ModelStatus.SERVING
    ) -> Manifest:
        edit = pistol_edit(base, seconds=1.5)
        return self._add(model_id, status, edit)

    def tamper_with(self, model_id: str) -> None:
        path = self.models / model_id / "manifest.json"
        path.write_text(path.read_text().replace('"retired"', '"serving"'))

    def _add(
        self,
        model_id: str,
        status: ModelStatus,
        edit: Edit | None,
        files: Mapping[str, str] | None = None,
    ) -> Manifest:
        folder = self.registry.making.begin(model_id)
        for name, text in (files or {}).items():
            (folder / name).parent.mkdir()
            (folder / name).write_text(text)
        (folder / "weights.safetensors").write_text(f"the weights of {model_id}")
        manifest = describe(
            folder,
            model_id=model_id,
            family="sd1",
            drawing=DRAWING,
            code_version="test",
            edit=edit,
            status=status,
        )
        return self.registrar.add(manifest, folder, self._signer)


class Worker:
    """What a worker does to the records, without a model."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.jobs = parts.jobs

    def claim(self, kind: Kind = "generation", *, slots: int = 1) -> Lease:
        (lease,) = self.jobs.leasing.claim(
            kind, "inference-0@here", slots=slots, lease_s=60, idle=True
        )
        return lease

    def draw(self, *, slots: int = 1) -> Lease:
        """Finish the next generation."""
        lease = self.claim(slots=slots)
        self._finish(lease)
        return lease

    def draw_any(self) -> bool:
        """Finish whatever waits next; whether there was anything."""
        leases = self.jobs.leasing.claim(
            "generation", "inference-0@here", slots=8, lease_s=60, idle=True
        )
        for lease in leases:
            self._finish(lease)
        return bool(leases)

    def _finish(self, lease: Lease) -> None:
        spec = lease.spec
        assert isinstance(spec, GenerationSpec)
        assert spec.seed is not None
        images = []
        for index in range(spec.n):
            key = f"generations/{lease.job_id}/{index}.png"
            self._parts.storage.put(key, PNG + str(index).encode())
            images.append(ImageRecord(key=key, seed=spec.seed + index))
        result = GenerationResult(model=spec.model, images=tuple(images))
        assert self.jobs.leasing.succeed(lease, result.model_dump(mode="json"))


def eventually(happens: Callable[[], Any], *, within_s: float = 10) -> Any:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if found := happens():
            return found
        time.sleep(0.05)
    raise AssertionError(f"did not happen within {within_s} s")
