"""`make bench-families`: stage 1 at the true sizes of SD 1.5 and SDXL.

Text encoders are random, UNet and VAE filled with a constant: what is measured does not depend on
what the weights are. Seconds are those of the CPU, on one
thread. Encoding is measured on a few prompts and stated per
prompt: a first erasure reads 1000 everyday captions besides those of its concepts, later ones
read only their concepts. The alternative for writing is the usual way: load the UNet in full
precision, edit it, convert it, save it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from core.specs import Concept, TextualOptions
from diffusion.attention import reads_text
from diffusion.erasure import READS_POOLED, Erasure, write_unet
from diffusion.loading import load_prompt_encoder
from diffusion.weights import Entry, find_weights, open_weights, write_weights
from trainer.concepts import prompt_pairs
from trainer.preservation import Kept, caption_groups, read_groups
from trainer.solving import Solution, solve_again
from trainer.trce.archive import load_statistics, save_statistics
from trainer.trce.gathering import gather_statistics
from trainer.trce.statistics import Statistics

OUT = Path("build/bench/families.json")
CONCEPT = Concept(name="pistol", replacement="flower")
PAIRS = 6
CAPTIONS = 6
MIB = 1 << 20
PEAK = "peak memory of everything, MiB"
Made = TypeVar("Made")
SD15_UNET = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
SDXL_UNET = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
CLIP_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
    "projection_dim": 1280,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--make", nargs=2, metavar=("FAMILY", "DIR"), help="write a model")
    parser.add_argument("--measure", type=Path, metavar="DIR", help="of this model")
    parser.add_argument("--usual", type=Path, help="the alternative: load this UNet and edit it")
    options = parser.parse_args()
    # Threads that wait for each other on a busy machine would count as work.
    torch.set_num_threads(1)
    if options.usual:
        print(json.dumps(_usual_way(options.usual)))
    elif options.make:
        _make_model(Path(options.make[1]), options.make[0])
        print(json.dumps({}))
    elif options.measure:
        print(json.dumps(_figures(options.measure, options.measure.parent)))
    else:
        _table({name: _measured(name) for name in ("sd15", "sdxl")})


def _in_process(*words: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.families", *words]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return found


def _table(figures: dict[str, dict[str, Any]]) -> None:
    rows = list(figures["sd15"])
    print(f"| stage 1 | {' | '.join(figures)} |")
    print("|---|" + "---|" * len(figures))
    for row in rows:
        cells = (f"{one[row]:.4g}" if row in one else "" for one in figures.values())
        print(f"| {row} | {' | '.join(cells)} |")
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(figures, indent=2) + "\n")


def _measured(family: str) -> dict[str, float]:
    """Each step in a process of its own, so that its memory is its own."""
    with tempfile.TemporaryDirectory(prefix="bench-families-") as place:
        base = Path(place) / "base"
        _in_process("--make", family, str(base))
        figures = _in_process("--measure", str(base))
        if family == "sd15":
            # Only here: at SDXL's size the usual way needs fifteen gigabytes.
            usual = _in_process("--usual", str(base / "unet"))
            figures["the usual way of writing it, CPU s"] = usual["seconds"]
            figures["peak memory of the usual way, MiB"] = usual["peak_bytes"] / MIB
            figures["memory, the usual way to ours"] = usual["peak_bytes"] / MIB / figures[PEAK]
        return figures


def _figures(base: Path, place: Path) -> dict[str, float]:
    options = TextualOptions()
    memory = PrivateMemory()
    statistics, kept, load_s, read_s = _read(base)
    solution, solve_s = _timed(lambda: solve_again(statistics, kept, [CONCEPT], options))
    sums = place / "statistics.safetensors"
    save_statistics(sums, statistics, kept)
    _, again_s = _timed(lambda: _solve_from_file(sums, options))
    _, write_s = _timed(lambda: write_unet(base / "unet", solution.erasure, place / "unet"))
    peak = memory.peak_bytes()
    solution.erasure.save(place / "erasure.safetensors")
    return {
        "loading the text encoders, CPU s": load_s,
        "reading a prompt, CPU s": read_s,
        "solving for T, CPU s": solve_s,
        "merging: reading the sums and solving, CPU s": again_s,
        "writing the erased UNet, CPU s": write_s,
        PEAK: peak / MIB,
        "erasure.safetensors, MiB": (place / "erasure.safetensors").stat().st_size / MIB,
        "statistics of a concept and K, MiB": sums.stat().st_size / MIB,
        "unet/, MiB": sum(path.stat().st_size for path in (place / "unet").iterdir()) / MIB,
        "parameters changed, millions": _changed(solution, base / "unet") / 1e6,
    }


def _read(base: Path) -> tuple[dict[str, Statistics], Kept, float, float]:
    """The sums, seconds for loading, and seconds for each prompt."""
    encoder, load_s = _timed(lambda: load_prompt_encoder(base, None))
    pairs = {CONCEPT.name: prompt_pairs([CONCEPT])[CONCEPT.name][:PAIRS]}
    own = [f"a photo of thing number {number}" for number in range(CAPTIONS)]
    groups = caption_groups(known=None, protect=(), seed=0, own=own)

    def read() -> tuple[dict[str, Statistics], Kept]:
        statistics = gather_statistics(encoder, pairs, which="all", advance=lambda _: None)
        words = CONCEPT.words
        return statistics, read_groups(
            encoder, groups, erased=words, cache=None, advance=lambda _: None
        )

    (statistics, kept), read_s = _timed(read)
    return statistics, kept, load_s, read_s / (2 * PAIRS + CAPTIONS + 1)


def _solve_from_file(path: Path, options: TextualOptions) -> Solution:
    statistics, kept = load_statistics(path)
    return solve_again(statistics, kept, [CONCEPT], options)


def _usual_way(folder: Path) -> dict[str, float]:
    memory = PrivateMemory()

    def run() -> None:
        unet = UNet2DConditionModel.from_pretrained(str(folder), torch_dtype=torch.float32)
        width = unet.config.cross_attention_dim
        Erasure(torch.eye(width) * 0.9).bake(unet)
        with tempfile.TemporaryDirectory(dir=folder.parent) as place:
            nn.Module.to(unet, torch.float16)
            unet.save_pretrained(place)

    _, seconds = _timed(run)
    return {"seconds": seconds, "peak_bytes": memory.peak_bytes()}


def _changed(solution: Solution, folder: Path) -> int:
    with open_weights(*find_weights(folder).paths) as weights:
        pooled = solution.pooled_edit is not None
        return sum(
            torch.Size(weights.shape(name)).numel()
            for name in weights.names
            if reads_text(name) or (pooled and name == READS_POOLED)
        )


def _timed(make: Callable[[], Made]) -> tuple[Made, float]:
    """What was made, and the CPU seconds of all threads: other work on the machine counts not."""
    started = time.process_time()
    made = make()
    return made, time.process_time() - started


class PrivateMemory:
    """Looks every 10 ms at the memory that is this process's alone.

    Pages of files that are only read do not count: the system takes them back when it needs them.
    """

    def __init__(self) -> None:
        self._peak = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def peak_bytes(self) -> int:
        """The most so far; ends the watch."""
        self._stopped.set()
        self._thread.join()
        return self._peak

    def _watch(self) -> None:
        while not self._stopped.wait(0.01):
            lines = Path("/proc/self/status").read_text().splitlines()
            now = next(line for line in lines if line.startswith("RssAnon"))
            self._peak = max(self._peak, int(now.split()[1]) * 1024)


def _make_model(folder: Path, family: str) -> Path:
    """A diffusers folder of the true size, in half precision as most are, written in parts."""
    torch.manual_seed(0)
    xl = family == "sdxl"
    tokenizer = _tokenizer()
    parts: dict[str, Any] = {"tokenizer": tokenizer}
    text = {"vocab_size": 49408, "eos_token_id": 49407, "bos_token_id": 49406, "pad_token_id": 1}
    index: dict[str, Any] = {
        "_class_name": "StableDiffusionXLPipeline" if xl else "StableDiffusionPipeline",
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    parts["text_encoder"] = CLIPTextModel(CLIPTextConfig(**text, **CLIP_L)).half()
    if xl:
        index["tokenizer_2"] = ["transformers", "CLIPTokenizer"]
        index["text_encoder_2"] = ["transformers", "CLIPTextModelWithProjection"]
        parts["tokenizer_2"] = tokenizer
        config = CLIPTextConfig(**text, **CLIP_G)
        parts["text_encoder_2"] = CLIPTextModelWithProjection(config).half()
    parts["scheduler"] = EulerDiscreteScheduler() if xl else DDIMScheduler()
    for name, part in parts.items():
        part.save_pretrained(str(folder / name))
    with torch.device("meta"):
        unet = UNet2DConditionModel(**(SDXL_UNET if xl else SD15_UNET))
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
        )
    for name, module in (("unet", unet), ("vae", vae)):
        module.save_config(str(folder / name))
        shapes = {key: tuple(one.shape) for key, one in module.named_parameters()}
        entries = {
            key: Entry(torch.float16, shape, _filled(shape)) for key, shape in shapes.items()
        }
        write_weights(
            folder / name / "diffusion_pytorch_model.safetensors", entries, {"format": "pt"}
        )
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def _filled(shape: tuple[int, ...]) -> Callable[[], Tensor]:
    return lambda: torch.full(shape, 0.01, dtype=torch.float16)


def _tokenizer() -> CLIPTokenizer:
    """Letters only, with the true size and ids of CLIP's vocabulary."""
    letters = [chr(code) for code in range(33, 127)]
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters)]
    vocabulary += [f"<unused {number}>" for number in range(49406 - len(vocabulary))]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    numbered = {token: number for number, token in enumerate(vocabulary)}
    return CLIPTokenizer(vocab=numbered, merges=[], model_max_length=77)


if __name__ == "__main__":
    main()
