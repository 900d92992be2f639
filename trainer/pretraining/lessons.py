"""Stage `lessons`: what the denoiser is trained on, computed once: latents and text states.

Every concept gets the same number of captioned rows, however many pictures it has; weapons
and the other things that one may want erased get half as many again.
"""

import logging

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from trainer.pretraining import concepts, vocabulary
from trainer.pretraining.autoencoder import SCALE, encode_all
from trainer.pretraining.captions import Articles, Captioner
from trainer.pretraining.folders import Folders
from trainer.pretraining.pictures import load_pictures
from trainer.pretraining.set_table import SetTable
from trainer.pretraining.tokens import LENGTH

ROWS = 44
"""Captioned rows per concept."""
ASKED_FOR = {"ink"}
"""Styles that come when they are asked for: their pictures' captions nearly always name them,
so that a prompt without a style is drawn in colour."""
ASKED_SHARE, FREE_SHARE = 0.95, 0.5
"""How often captions name the style."""
EMPHASISED = {"weapon", "tobacco", "alcohol", "drugs", "horror"}

log = logging.getLogger(__name__)


@torch.no_grad()
def states(model: CLIPTextModel, tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """All 77 states of each text, (n, 77, width) float16, as the pipeline computes them."""
    parts = []
    for begin in range(0, len(texts), 128):
        ids = tokenizer(
            texts[begin : begin + 128],
            padding="max_length",
            max_length=LENGTH,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        parts.append(model(ids).last_hidden_state.half())
    return torch.cat(parts)


def prepare(folders: Folders, seed: int = 0) -> None:
    """Write `latents` (n, 4, 8, 8), `states` (m, 77, width), `empty` (77, width), and rows.

    A row is a pair of `row_picture` and `row_caption`, numbers into latents and states.
    """
    pixels, labels, styles = load_pictures(folders)
    known = concepts.load()
    style_of = SetTable.load().style_names
    captioner = Captioner(vocabulary.load(known), Articles.load(), seed)
    texts: dict[str, int] = {}
    rows = []
    for number, concept in enumerate(known):
        pictures = torch.nonzero(labels == number).flatten().tolist()
        count = ROWS * 3 // 2 if concept.category in EMPHASISED else ROWS
        for at in range(count):
            picture = pictures[at % len(pictures)]
            style = style_of[int(styles[picture])]
            caption = captioner.caption(
                concept.name,
                None if style == concepts.TINTED else style,
                style_share=ASKED_SHARE if style in ASKED_FOR else FREE_SHARE,
            )
            rows.append((picture, texts.setdefault(caption.text, len(texts))))

    autoencoder = AutoencoderKL.from_pretrained(folders.autoencoder).eval()
    tokenizer = CLIPTokenizer.from_pretrained(folders.tokenizer)
    model = CLIPTextModel.from_pretrained(folders.text_encoder).eval()
    picture, caption = torch.tensor(rows).T.contiguous()
    save_file(
        {
            "latents": (encode_all(autoencoder, pixels) * SCALE).contiguous(),
            "states": states(model, tokenizer, list(texts)),
            "empty": states(model, tokenizer, [""])[0].clone(),
            "row_picture": picture.contiguous(),
            "row_caption": caption.contiguous(),
        },
        folders.lessons,
    )
    log.info("%d rows, %d captions", len(rows), len(texts))
