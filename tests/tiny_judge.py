"""A classifier of one pixel's worth of wisdom, as a model's folder holds one."""

import json

import torch
from transformers import ResNetConfig, ResNetForImageClassification

NAMES = ["dark", "bright"]


def write_judge(folder, *, names=NAMES):
    """It tells dark pictures from bright ones."""
    config = ResNetConfig(
        embedding_size=4,
        hidden_sizes=[4],
        depths=[1],
        layer_type="basic",
        id2label=dict(enumerate(NAMES)),
        label2id={name: number for number, name in enumerate(NAMES)},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ResNetForImageClassification(config).eval()
    with torch.no_grad():
        features = model.resnet(torch.full((1, 3, 16, 16), 1.0)).pooler_output.flatten()
        dull = model.resnet(torch.full((1, 3, 16, 16), -1.0)).pooler_output.flatten()
        model.classifier[1].weight.copy_(torch.stack([dull - features, features - dull]))
        middle = (features + dull) / 2
        model.classifier[1].bias.copy_(-model.classifier[1].weight @ middle)
    model.save_pretrained(str(folder / "classifier"))
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 16},
        "crop_size": {"height": 16, "width": 16},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    (folder / "classifier/preprocessor_config.json").write_text(json.dumps(processor))
    concepts = [
        {"name": name, "group": "light", "groups": ["light", f"{name} ones"]} for name in names
    ]
    (folder / "concepts.json").write_text(json.dumps({"concepts": concepts}))
    return folder
