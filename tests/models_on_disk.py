"""An installation's models and keys on disk; the weights are words, since nobody loads them."""

from pathlib import Path

from core.making import describe
from core.manifests import Drawing, Manifest, ModelStatus
from core.registrar import Registrar
from core.registry import ModelRegistry
from core.serial_record import SerialRecord
from core.signing import Signer, Verifier
from tests.edits import pistol_edit

DRAWING = Drawing(native_px=64, multiple_px=16, max_px=128)


class ModelsOnDisk:
    def __init__(self, data: Path, *, serials: SerialRecord | None = None) -> None:
        self.folder = data / "models"
        self.keys = data / "keys"
        self.signer = Signer.load_or_create(self.keys)
        self.registry = self.open(serials)
        self.registrar = Registrar(self.registry)

    def open(self, serials: SerialRecord | None = None) -> ModelRegistry:
        """As another process would."""
        return ModelRegistry(
            self.folder,
            Verifier.load(self.keys),
            serve_unerased_base=True,
            default_model="good",
            serials=serials,
        )

    def add(self, model_id: str, *, base: Manifest | None = None, weights: str = "") -> Manifest:
        """A candidate; a base model where no base is given."""
        folder = self.registry.making.begin(model_id)
        (folder / "unet").mkdir()
        (folder / "unet" / "weights.safetensors").write_text(weights or f"weights of {model_id}")
        (folder / "model_index.json").write_text("{}")
        edit = base and pistol_edit(base)
        manifest = describe(
            folder,
            model_id=model_id,
            family="sd1",
            drawing=DRAWING,
            code_version="test",
            edit=edit,
            status=ModelStatus.CANDIDATE,
        )
        return self.registrar.add(manifest, folder, self.signer)

    def promote(self, model_id: str) -> Manifest:
        return self.registrar.set_status(model_id, ModelStatus.SERVING, self.signer)

    def retire(self, model_id: str) -> Manifest:
        return self.registrar.set_status(model_id, ModelStatus.RETIRED, self.signer)
