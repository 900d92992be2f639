"""A Q16-style probe: two learnt vectors in CLIP space, one for fine and one for not.

Source: arXiv:2202.06675 (Q16). There, two soft prompts were learnt for CLIP ViT-L/14 from a set of
rated pictures; a picture is judged by which of the two it is nearer to. Ours is fitted to pictures
of one's own by `fit_probe`, and lies in the model's folder as `probe.safetensors`:

    vectors     (2, d) float32: fine, not
    scale       () float32, what cosines are multiplied by before the softmax
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from core.detection import DetectorSpec
from core.errors import DetectorNotUsable, ModelUnsupported
from core.manifests import Manifest
from core.model_files import ModelFiles
from diffusion.detectors.protocol import DetectorIdentity
from diffusion.likeness import Likeness

FILENAME = "probe.safetensors"
CLASS = "not fine"
THRESHOLD = 0.5
FIT_STEPS, FIT_RATE, FIT_DECAY = 300, 0.02, 1e-3


class ProbeDetector:
    def __init__(
        self, likeness: Likeness, vectors: Tensor, scale: float, identity: DetectorIdentity
    ) -> None:
        self._likeness = likeness
        self._vectors = normalize(vectors.float(), dim=-1)
        self._scale = scale
        self.identity = identity

    @classmethod
    def load(
        cls,
        spec: DetectorSpec,
        model_folder: Path,
        manifest: Manifest | None = None,
        *,
        device: torch.device | str = "cpu",
    ) -> "ProbeDetector":
        """Raises DetectorNotUsable, UntrustedModel."""
        if spec.classes not in {(), (CLASS,)}:
            raise DetectorNotUsable(f"detector probe: its one class is {CLASS!r}; leave it out")
        try:
            likeness = Likeness.load(model_folder, manifest, device=device)
            files = ModelFiles(model_folder, manifest)
            data = files.read(FILENAME) if FILENAME in files else b""
            stored = load(data)
            vectors, scale = stored["vectors"], float(stored["scale"])
        except (ModelUnsupported, OSError, SafetensorError, KeyError) as error:
            raise DetectorNotUsable(
                f"detector probe: {model_folder.name}/{FILENAME} is missing or no probe "
                f"({error}); `python -m trainer.evaluation.probe` fits one to pictures"
            ) from error
        if vectors.shape != (2, likeness.width) or not bool(vectors.isfinite().all()):
            raise DetectorNotUsable(
                f"detector probe: {FILENAME} holds vectors of shape {tuple(vectors.shape)}, the "
                f"image encoder writes {likeness.width} numbers"
            )
        identity = DetectorIdentity(
            name="probe",
            version=f"{likeness.version}+{hashlib.sha256(data).hexdigest()[:16]}",
            classes=(CLASS,),
            threshold=THRESHOLD if spec.threshold is None else spec.threshold,
        )
        return cls(likeness, vectors, scale, identity)

    def scores(self, pictures: Sequence[Image.Image]) -> list[dict[str, float]]:
        cosines = self._likeness.pictures(pictures) @ self._vectors.T
        shares = (self._scale * cosines).softmax(dim=1)[:, 1].clamp(0, 1).tolist()
        return [{CLASS: share} for share in shares]


def fit_probe(embeddings: Tensor, shown: Tensor, path: Path, *, scale: float) -> None:
    """Learn the two vectors by the cross-entropy of what is shown, and write them to `path`.

    Deterministic: both vectors start at the mean of their own pictures.

    Args:
        embeddings: (n, d), of length 1, as `Likeness.pictures` gives them.
        shown: (n,) bool; both kinds must be there.
    """
    assert bool(shown.any()), "a probe needs pictures that show it"
    assert not bool(shown.all()), "a probe needs pictures that do not"
    start = torch.stack([embeddings[~shown].mean(0), embeddings[shown].mean(0)])
    vectors = normalize(start, dim=-1).clone().requires_grad_()
    optimizer = torch.optim.AdamW([vectors], lr=FIT_RATE, weight_decay=FIT_DECAY)
    # Rare kinds count as much as frequent ones.
    weights = 0.5 / torch.stack([(~shown).float().mean(), shown.float().mean()])
    for _ in range(FIT_STEPS):
        logits = scale * embeddings @ normalize(vectors, dim=-1).T
        loss = cross_entropy(logits, shown.long(), weight=weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = {"vectors": normalize(vectors.detach(), dim=-1), "scale": torch.tensor(scale)}
    save_file(found, str(path))
