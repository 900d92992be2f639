"""The image encoder: a small vision transformer whose embeddings lie in the text space."""

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
