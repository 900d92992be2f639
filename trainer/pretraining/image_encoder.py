"""The image encoder: a small vision transformer whose embeddings lie in the text space."""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from trainer.pretraining.pictures import SIDE
from trainer.pretraining.text_encoder import WIDTH

PATCH = 8
PREPROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": SIDE},
    "do_center_crop": True,
    "crop_size": {"height": SIDE, "width": SIDE},
    "do_convert_rgb": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 3,
}
"""`preprocessor_config.json` of every network here that looks at pictures: pixels in [-1, 1]."""


def new_image_encoder() -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=4,
            image_size=SIDE,
            patch_size=PATCH,
            projection_dim=WIDTH,
            hidden_act="quick_gelu",
        )
    )


@torch.no_grad()
def start_from_patches(model: CLIPVisionModelWithProjection, pictures: Tensor) -> None:
    """Patch embedding ← whitened principal components of the patches of real pictures.

    From CLIP's own start a small transformer learns nothing for hundreds of steps: nearly all
    patches are nearly white. The mean patch is taken off in the position embeddings, as the
    patch embedding has no bias.

    Args:
        pictures: (n, 3, 64, 64) in [-1, 1].
    """
    embeddings = next(m for name, m in model.named_modules() if name.endswith("embeddings"))
    width = embeddings.patch_embedding.out_channels
    patches = F.unfold(pictures, PATCH, stride=PATCH).transpose(1, 2).flatten(0, 1)
    mean = patches.mean(0)
    _, deviations, axes = torch.linalg.svd(torch.cov(patches.T))
    whitening = axes[:width] / (deviations[:width].sqrt() + 0.05)[:, None]
    embeddings.patch_embedding.weight.copy_(whitening.view_as(embeddings.patch_embedding.weight))
    embeddings.position_embedding.weight[1:] -= whitening @ mean
