"""Where the stages keep their work: everything of one run lies under one folder."""

from dataclasses import dataclass
from pathlib import Path

TABLES = Path(__file__).parent / "tables"


@dataclass(frozen=True)
class Folders:
    """The places of one run. `work` is scratch (ignored by git), `model` is what ships."""

    work: Path = Path("build/pretraining")
    model: Path = Path("models/emoji")

    @property
    def packages(self) -> Path:
        """npm packages of the picture sets, unpacked, one folder each."""
        return self.work / "npm"

    @property
    def wordnet(self) -> Path:
        """WordNet's data files, from Debian's `wordnet-base`."""
        return self.work / "wordnet/usr/share/wordnet"

    @property
    def pictures(self) -> Path:
        return self.work / "pictures.safetensors"

    @property
    def extras(self) -> Path:
        """Pictures of further sets that only the classifier learns from."""
        return self.work / "extras.safetensors"

    @property
    def judges(self) -> Path:
        """Pictures of the sets that nothing is trained on."""
        return self.work / "judges.safetensors"

    @property
    def tokenizer(self) -> Path:
        return self.work / "tokenizer"

    @property
    def distilled(self) -> Path:
        """The text encoder after general English alone."""
        return self.work / "text_distilled"

    @property
    def text_encoder(self) -> Path:
        return self.work / "text_encoder"

    @property
    def bank(self) -> Path:
        """One vector per concept in the space of the text encoder."""
        return self.work / "bank.safetensors"

    @property
    def image_encoder(self) -> Path:
        return self.work / "image_encoder"

    @property
    def autoencoder(self) -> Path:
        return self.work / "vae"

    @property
    def unet(self) -> Path:
        return self.work / "unet"

    @property
    def classifier(self) -> Path:
        return self.work / "classifier"

    @property
    def teacher(self) -> Path:
        """Distillation texts and their sentence embeddings."""
        return self.work / "teacher.safetensors"

    @property
    def lessons(self) -> Path:
        """Cached latents and text states that the denoiser is trained on."""
        return self.work / "lessons.safetensors"
