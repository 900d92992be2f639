"""`make bench-gate`: what it costs to check a model while it is loaded; build/bench/gate.json.

The same model is loaded in turns by the usual loaders, by ours without a manifest, and by ours
with every file held against one, so that what else the machine does hits all. The usual loaders
map files and leave the reading for later; here their tensors are copied once, as whoever uses them
does. Files are in the page cache: from a disk, reading costs more and checking the same.

An erased model is loaded with its base, as by a worker that has neither, and without, as by one
that has the base; unchecked, its baked UNet is not read at all.

Ends with 1, and names it, where checking a model adds more than a fifth to loading it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from benchmarks.families import MIB, PrivateMemory
from core.importing import import_base, read_family
from core.making import describe
from core.manifests import Edit, Manifest, ModelStatus
from core.registrar import Registrar
from core.registry import ModelRegistry
from core.settings import SHIPPED_MODELS
from core.signing import Signer, Verifier
from core.specs import Concept, TextualOptions
from diffusion.erasure import FILENAME, Erasure, write_unet
from diffusion.loading import load_base
from worker.shelf import Shelf

OUT = Path("build/bench/gate.json")
ROUNDS = {"emoji": 15, "sd15": 5}
DTYPES = {"emoji": torch.float32, "sd15": torch.float16}
"""As the files are, so that no conversion is measured."""
WAYS = ("from_pretrained", "unchecked", "checked")
MOST = 1.2
CHECKING = ("checked to unchecked", "checked to unchecked, with its base")
"""Rows that may be no more than that."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", nargs=3, metavar=("WAY", "SIZE", "DIR"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        way, size, folder = options.memory
        print(json.dumps(_peak_bytes(_load(way, size, Path(folder)))))
        return
    result: dict[str, Any] = {
        "emoji": _measured("emoji", SHIPPED_MODELS / "emoji"),
        "emoji, erased": _erased("emoji", SHIPPED_MODELS / "emoji"),
        "load_average": os.getloadavg()[0],
        "cores": os.cpu_count(),
    }
    with tempfile.TemporaryDirectory(prefix="bench-gate-") as place:
        _python("benchmarks.families", "--make", "sd15", f"{place}/base")
        result["sd15"] = _measured("sd15", Path(place) / "base")
        result["sd15, erased"] = _erased("sd15", Path(place) / "base")
    _table(result)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(result, indent=2) + "\n")
    dear = [
        f"{what}, {row}: {result[what][row]:.2f}"
        for what in (*ROUNDS, *(f"{size}, erased" for size in ROUNDS))
        for row in CHECKING
        if result[what].get(row, 0.0) > MOST
    ]
    if dear:
        sys.exit(f"more than {MOST}: " + "; ".join(dear))


def _measured(size: str, folder: Path) -> dict[str, float]:
    loads = {way: _load(way, size, folder) for way in WAYS}
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in range(ROUNDS[size] + 1):
        for way, load in loads.items():
            began = time.perf_counter()
            load()
            if turn:  # the first fills caches
                seconds[way].append(time.perf_counter() - began)
    weights = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    peaks = {
        way: json.loads(_python("benchmarks.gate", "--memory", way, size, str(folder)))
        for way in WAYS
    }
    return {
        "weights, MiB": weights / MIB,
        **{f"{way}, s": statistics.median(seconds[way]) for way in WAYS},
        "checked to unchecked": _ratio(seconds, "checked", "unchecked"),
        "checked to from_pretrained": _ratio(seconds, "checked", "from_pretrained"),
        **{f"{way}, peak memory, MiB": peaks[way] / MIB for way in WAYS},
    }


def _erased(size: str, folder: Path) -> dict[str, float]:
    """Seconds to load an erased model of a base, and what checking it adds."""
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-gate-") as place:
        registry = make_erased(folder, Path(place))
        base, model = registry.path("base"), registry.path("erased")

        def shelf() -> Shelf:
            return Shelf(registry, device=torch.device("cpu"), dtype=DTYPES[size])

        for turn in range(ROUNDS[size] + 1):
            began = time.perf_counter()
            load_base(base, None, dtype=DTYPES[size])
            based = time.perf_counter()
            Erasure.load(model / FILENAME)
            done = time.perf_counter()
            empty, warm = shelf(), shelf()
            warm.variant("base")
            again = time.perf_counter()
            empty.variant("erased")
            alone = time.perf_counter()
            warm.variant("erased")
            end = time.perf_counter()
            del empty, warm
            took = {
                "unchecked, with its base": done - began,
                "checked, with its base": alone - again,
                "unchecked": done - based,
                "checked": end - alone,
            }
            if turn:
                for way, one in took.items():
                    seconds.setdefault(way, []).append(one)
    return {
        **{f"{way}, s": statistics.median(taken) for way, taken in seconds.items()},
        "checked to unchecked, with its base": _ratio(
            seconds, "checked, with its base", "unchecked, with its base"
        ),
    }


def make_erased(folder: Path, place: Path) -> ModelRegistry:
    """An installation with the base in `folder`, and a model erased by a text map of no effect."""
    signer = Signer.load_or_create(place / "keys")
    registry = ModelRegistry(
        place / "models",
        Verifier.load(place / "keys"),
        serve_unerased_base=True,
        default_model="erased",
    )
    base = import_base(folder, "base", registry, signer)
    config = json.loads((folder / "unet" / "config.json").read_text())
    erasure = Erasure(torch.eye(config["cross_attention_dim"]))
    made = registry.making.begin("erased")
    erasure.save(made / FILENAME)
    write_unet(registry.path("base") / "unet", erasure, made / "unet")
    edit = Edit(
        base_model=base.id,
        base_digest=base.content_digest,
        method="trce",
        concepts=(Concept(name="pistol", replacement="flower"),),
        textual=TextualOptions(),
        seed=0,
        seconds=1.0,
    )
    manifest = describe(
        made,
        model_id="erased",
        family=base.family,
        drawing=base.drawing,
        code_version="bench",
        edit=edit,
        status=ModelStatus.SERVING,
    )
    Registrar(registry).add(manifest, made, signer)
    return registry


def _ratio(seconds: dict[str, list[float]], one: str, other: str) -> float:
    """The median over the rounds, in each of which both were measured one after the other."""
    return statistics.median(a / b for a, b in zip(seconds[one], seconds[other], strict=True))


def _load(way: str, size: str, folder: Path) -> Callable[[], Any]:
    dtype = DTYPES[size]
    match way:
        case "from_pretrained":
            return lambda: _usual(folder, dtype)
        case "unchecked":
            return lambda: load_base(folder, None, dtype=dtype)
        case _:
            manifest = _manifest(folder)
            return lambda: load_base(folder, manifest, dtype=dtype)


def _usual(folder: Path, dtype: torch.dtype) -> Any:
    made = [
        UNet2DConditionModel.from_pretrained(str(folder / "unet"), torch_dtype=dtype),
        AutoencoderKL.from_pretrained(str(folder / "vae"), torch_dtype=dtype),
        CLIPTextModel.from_pretrained(str(folder / "text_encoder"), dtype=dtype),
    ]
    for module in made:
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.data = tensor.data.clone()
    return made, CLIPTokenizer.from_pretrained(str(folder / "tokenizer"))


def _manifest(folder: Path) -> Manifest:
    family, drawing = read_family(folder)
    return describe(folder, model_id="m", family=family, drawing=drawing, code_version="bench")


def _peak_bytes(load: Callable[[], Any]) -> int:
    """Of memory that is this process's alone, above what it had before."""
    before = PrivateMemory()
    time.sleep(0.1)
    start = before.peak_bytes()
    during = PrivateMemory()
    kept = load()
    peak = during.peak_bytes() - start
    del kept
    return peak


def _python(*words: str) -> str:
    command = [sys.executable, "-m", *words]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return answer.stdout.splitlines()[-1]


def _table(result: dict[str, Any]) -> None:
    print("| loading a base model | emoji | sd15 |")
    print("|---|---|---|")
    for row in result["emoji"]:
        print(f"| {row} | {result['emoji'][row]:.3g} | {result['sd15'][row]:.3g} |")
    for row in result["emoji, erased"]:
        emoji, sd15 = (result[f"{size}, erased"][row] for size in ROUNDS)
        print(f"| erased, {row} | {emoji:.3g} | {sd15:.3g} |")


if __name__ == "__main__":
    main()
