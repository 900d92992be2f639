"""What differs between Stable Diffusion 1.x, 2.x and XL: the parts, and what the UNet reads.

    sd1     one text encoder (768 wide); the UNet predicts noise
    sd2     one larger one (1024); it may predict velocity, the scheduler's config says
    sdxl    two (768 + 1280), read one layer earlier; a pooled embedding and the size, too

Which family a folder is of is read from its configs, see `core.importing.read_family`.
"""

TOKENIZERS = {"CLIPTokenizer", "CLIPTokenizerFast"}
ONE_ENCODER = {
    "tokenizer": TOKENIZERS,
    "text_encoder": {"CLIPTextModel"},
    "unet": {"UNet2DConditionModel"},
    "vae": {"AutoencoderKL"},
}
PARTS: dict[str, dict[str, set[str]]] = {
    "sd1": ONE_ENCODER,
    "sd2": ONE_ENCODER,
    "sdxl": ONE_ENCODER
    | {"tokenizer_2": TOKENIZERS, "text_encoder_2": {"CLIPTextModelWithProjection"}},
}
"""Family -> part of the pipeline -> the classes that it may have."""

ADDED_CONDITION: dict[str, str | None] = {"sd1": None, "sd2": None, "sdxl": "text_time"}
"""What the UNet reads beside the text, as its config calls it."""

SIZE_NUMBERS = 6
"""SDXL is told height and width, the corner of the crop, and the height and width wanted."""


def text_parts(family: str) -> list[str]:
    return [part for part in PARTS[family] if part.startswith("text_encoder")]
