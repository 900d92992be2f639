"""A detector by its name: the built-in ones, and a user's own by entry point."""

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import torch

from core.detection import PLUGIN, DetectorSpec
from core.errors import AppError, DetectorNotUsable
from core.manifests import Manifest
from diffusion.detectors.classifier import ClassifierDetector
from diffusion.detectors.nudenet import NudeNetDetector
from diffusion.detectors.probe import ProbeDetector
from diffusion.detectors.protocol import Detector
from diffusion.detectors.zero_shot import ZeroShotDetector

ENTRY_POINTS = "trce.detectors"


def load_detector(
    spec: DetectorSpec,
    *,
    model_folder: Path,
    manifest: Manifest | None = None,
    device: torch.device | str = "cpu",
) -> Detector:
    """A detector that is ready to judge.

    Args:
        model_folder: of the base model whose pictures are judged; its own classifier and image
            encoder are found there.
        manifest: of that model, which each file is held against; plugins get the folder alone.

    Raises:
        DetectorNotUsable: there is none of that name, or it cannot run here as asked.
        UntrustedModel: a file is not as the manifest says, or weights are not safetensors.
    """
    if spec.name.startswith(PLUGIN):
        return _load_plugin(spec, model_folder)
    match spec.name:
        case "classifier":
            return ClassifierDetector.load(spec, model_folder, manifest, device=device)
        case "nudenet":
            return NudeNetDetector.load(spec)
        case "zero-shot":
            return ZeroShotDetector.load(spec, model_folder, manifest, device=device)
        case "probe":
            return ProbeDetector.load(spec, model_folder, manifest, device=device)
        case name:
            raise DetectorNotUsable(f"there is no detector {name}")


def _load_plugin(spec: DetectorSpec, model_folder: Path) -> Detector:
    """The entry point is called with the spec and the model's folder, and returns a detector."""
    name = spec.name.removeprefix(PLUGIN)
    found = entry_points(group=ENTRY_POINTS, name=name)
    if not found:
        installed = sorted(point.name for point in entry_points(group=ENTRY_POINTS))
        raise DetectorNotUsable(
            f"no installed package has a detector {name!r} (entry-point group {ENTRY_POINTS}); "
            f"there are: {', '.join(installed) or 'none'}"
        )
    try:
        make: Callable[[DetectorSpec, Path], Detector] = next(iter(found)).load()
        detector = make(spec, model_folder)
        _ = detector.identity.threshold, detector.scores
    except AppError:
        raise
    except Exception as error:
        raise DetectorNotUsable(
            f"detector {spec.name} does not load: {type(error).__name__}: {error}"
        ) from error
    return detector
