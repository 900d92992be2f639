"""What a single file leaves out: configs and tokenizer, those of the published model whose names
it has.

Whether its UNet predicts noise or velocity shows in neither names nor shapes; some files say it.
"""

import json
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from core.errors import ModelUnsupported
from diffusion.originals.clip_words import END, write_tokenizer
from diffusion.originals.text import CLIP, OPEN_CLIP

Prediction = Literal["epsilon", "v_prediction"]
PREDICTION_TYPE = "modelspec.prediction_type"
STATED: dict[str, Prediction] = {
    "epsilon": "epsilon",
    "eps": "epsilon",
    "v": "v_prediction",
    "v_prediction": "v_prediction",
}
"""What metadata may say under that key."""
VELOCITY, ZERO_SNR = "v_pred", "ztsnr"
"""Names of empty tensors by which a file says that its UNet predicts velocity, and that its
trajectories begin at pure noise."""


def family_of(keys: Iterable[str]) -> str:
    """The family of an original checkpoint, by the names in it.

    Raises:
        ModelUnsupported
    """
    starts = CLIP | OPEN_CLIP
    for family in ("sdxl", "sd2", "sd1"):
        if any(key.startswith(starts[family]) for key in keys):
            return family
    raise ModelUnsupported(
        "the file holds no text encoder under a name known from Stable Diffusion 1.x, 2.x or XL"
    )


def write_settings(
    folder: Path,
    names: set[str],
    metadata: Mapping[str, str],
    *,
    prediction: Prediction | None,
) -> None:
    """Write everything of a diffusers folder but the weights.

    Args:
        names: of the file's tensors.
        metadata: of the file.
        prediction: what the UNet predicts; None: what the file says, or else what all models of
            its family do.

    Raises:
        ModelUnsupported: nobody says what an SD 2.x predicts.
    """
    family = family_of(names)
    known = _known()[family]
    prediction = prediction or _stated(names, metadata) or known.get("prediction")
    if prediction is None:
        raise ModelUnsupported(
            "this is an SD 2.x, some of which predict noise and some velocity, and the file does "
            "not say which: `trce models import` takes --prediction epsilon (models that draw 512 "
            "pixels, as 2-base) or --prediction v_prediction (768, as 2.1); elsewhere name a "
            "model like it with --like"
        )
    scheduler = known["scheduler"] | {"prediction_type": prediction}
    if ZERO_SNR in names:
        scheduler |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    sizes = known.get("sample_size")
    unet = known["unet"] | ({"sample_size": sizes[prediction]} if sizes else {})
    index: dict[str, Any] = {"_class_name": known["pipeline"]}
    index["scheduler"] = ["diffusers", scheduler["_class_name"]]
    _write(folder / "scheduler" / "scheduler_config.json", scheduler)
    for part, config in (("unet", unet), ("vae", known["vae"])):
        index[part] = ["diffusers", config["_class_name"]]
        _write(folder / part / "config.json", config)
    for part in ("text_encoder", "text_encoder_2"):
        if part not in known:
            continue
        index[part] = ["transformers", known[part]["architectures"][0]]
        _write(folder / part / "config.json", known[part])
        words = part.replace("text_encoder", "tokenizer")
        index[words] = ["transformers", "CLIPTokenizer"]
        is_clip = part == "text_encoder" and family in CLIP
        write_tokenizer(folder / words, pad=END if is_clip else "!")
    if family == "sdxl":
        index["force_zeros_for_empty_prompt"] = True
    _write(folder / "model_index.json", index)


def statement(scheduler: Mapping[str, Any]) -> tuple[dict[str, str], tuple[str, ...]]:
    """By which metadata and empty tensors a file says what its UNet predicts.

    Args:
        scheduler: the model's config of it.
    """
    prediction = scheduler.get("prediction_type", "epsilon")
    said = {"v_prediction": "v"}.get(prediction, prediction)
    flags = [VELOCITY] if prediction == "v_prediction" else []
    flags += [ZERO_SNR] if scheduler.get("rescale_betas_zero_snr") else []
    return {PREDICTION_TYPE: said}, tuple(flags)


def _stated(names: set[str], metadata: Mapping[str, str]) -> Prediction | None:
    if VELOCITY in names:
        return "v_prediction"
    return STATED.get(metadata.get(PREDICTION_TYPE, "").strip().lower())


def _known() -> dict[str, dict[str, Any]]:
    text = (resources.files("diffusion.originals") / "architectures.yaml").read_text()
    known: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return known


def _write(path: Path, document: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2))
