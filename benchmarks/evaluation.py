"""What evaluation gains by batches and its album; `make bench-eval`, build/bench/evaluation.json.

The same pictures of the shipped model are drawn one at a time and in batches through the same
denoiser, in turns, so that what else the machine does hits both. Then all of them are asked for
again, which must draw none.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from core.settings import SHIPPED_MODELS
from diffusion.erasure import Erasure
from diffusion.loading import load_base
from diffusion.model_concepts import ModelConcepts
from trainer.evaluation.album import Album
from trainer.evaluation.drawing import BATCH, DrawingOptions, Order, Studio

OUT = Path("build/bench/evaluation.json")
PICTURES, ROUNDS, STEPS = 32, 5, 10


def main() -> None:
    torch.set_num_threads(1)  # as a worker on a CPU
    folder = SHIPPED_MODELS / "emoji"
    components = load_base(folder, None)
    known = ModelConcepts.of(folder)
    assert known is not None
    orders = [
        Order(f"a picture of {concept.noun}", seed, 5.0)
        for seed, concept in enumerate(known.concepts[:PICTURES])
    ]
    options = DrawingOptions(num_inference_steps=STEPS)
    alone, batched = (Studio(components, options, batch=size) for size in (1, BATCH))
    for studio in (alone, batched):
        studio.draw_orders(orders[:BATCH], Erasure())  # prompts are encoded, threads are there
    seconds: dict[str, list[float]] = {"alone": [], "batched": []}
    for _ in range(ROUNDS):
        for name, studio in (("alone", alone), ("batched", batched)):
            began = time.perf_counter()
            studio.draw_orders(orders, Erasure())
            seconds[name].append(time.perf_counter() - began)
    ratios = [one / many for one, many in zip(seconds["alone"], seconds["batched"], strict=True)]

    with tempfile.TemporaryDirectory() as cache:
        album = Album(batched, Path(cache))
        album.pictures(orders, Erasure(), weights="base")
        drawn = album.drawn
        began = time.perf_counter()
        album.pictures(orders, Erasure(), weights="base")
        again_s, drawn_again = time.perf_counter() - began, album.drawn - drawn
    result = {
        "pictures": PICTURES,
        "steps": STEPS,
        "batch": BATCH,
        "threads": torch.get_num_threads(),
        "seconds_alone": round(statistics.median(seconds["alone"]), 3),
        "seconds_batched": round(statistics.median(seconds["batched"]), 3),
        "batched_speedup": round(statistics.median(ratios), 3),
        "batched_speedup_of_each_round": [round(ratio, 3) for ratio in ratios],
        "seconds_from_album": round(again_s, 3),
        "drawn_again": drawn_again,
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(result, indent=2) + "\n")
    for name, value in result.items():
        sys.stdout.write(f"{name:<30} {value}\n")


if __name__ == "__main__":
    main()
