"""The text encoder: a small CLIP text transformer that starts from its teacher's word vectors."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from trainer.pretraining.tokens import LENGTH

WIDTH, LAYERS, HEADS = 256, 4, 4
TEACHER_WIDTH = 384
TOKEN_DEVIATION = 0.03
"""Standard deviation of the first token embeddings; CLIP's own start is 0.02."""


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    end = tokenizer.eos_token_id
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            max_position_embeddings=LENGTH,
            projection_dim=WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=end,
            pad_token_id=end,
            hidden_act="quick_gelu",
        )
    )


def principal_axes(vectors: Tensor, width: int = WIDTH) -> Tensor:
    """The first `width` principal axes of (n, d) vectors, as rows."""
    centred = vectors - vectors.mean(0)
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    return axes[:width]


@torch.no_grad()
def start_from_teacher(model: CLIPTextModel, token_vectors: Tensor) -> None:
    """Token embeddings ← principal components of the teacher's vectors of the same tokens."""
    components = (token_vectors - token_vectors.mean(0)) @ principal_axes(token_vectors).T
    embedding = model.get_input_embeddings().weight
    embedding.copy_(components / components.std() * TOKEN_DEVIATION)


CHUNK = 48
"""Texts encoded at once; like lengths go together, so that little is padding."""


def encode(model: CLIPTextModel, tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """States at the first [EoT], (n, WIDTH); attention is causal, so padding does not matter."""
    order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
    parts = []
    for begin in range(0, len(order), CHUNK):
        ids = tokenizer(
            [texts[at] for at in order[begin : begin + CHUNK]],
            padding="longest",
            max_length=LENGTH,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        parts.append(model(ids).pooler_output)
    back = torch.tensor(order).argsort()
    return torch.cat(parts)[back]


class Distillation(nn.Module):
    """How far a student's states are from its teacher's vectors, through a linear map."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(WIDTH, TEACHER_WIDTH, bias=False)

    def forward(self, states: Tensor, targets: Tensor, *, sharpness: float = 20.0) -> Tensor:
        """2 (1 - cosine) + 0.5 cross-entropy of the in-batch similarities.

        Args:
            states: (n, WIDTH).
            targets: (n, TEACHER_WIDTH), unit vectors.
        """
        mapped = F.normalize(self.project(states), dim=-1)
        distance = 1 - (mapped * targets).sum(-1).mean()
        wanted = (sharpness * targets @ targets.T).softmax(-1)
        relation = F.cross_entropy(sharpness * mapped @ targets.T, wanted)
        return 2 * distance + 0.5 * relation
