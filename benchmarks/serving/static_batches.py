"""A server that gathers what waits into a batch and draws it to its end before the next begins.

`python -m benchmarks.serving.static_batches --port 8200 --threads 1`. One call of the pipeline has
one number of steps, so only requests of the same number share a batch; the oldest one decides.
"""

import io
import queue
import threading
from concurrent.futures import Future

import torch
from fastapi import FastAPI, Response

from benchmarks.serving.naive import Inference
from benchmarks.serving.pipeline import load_pipeline
from benchmarks.serving.server_command import serve
from benchmarks.serving.workload import GUIDANCE

BATCH = 16
"""As many pictures as a worker of the service denoises at a time."""

Waiting = tuple[Inference, Future[bytes]]


class Batches:
    def __init__(self) -> None:
        self._arrived: queue.SimpleQueue[Waiting] = queue.SimpleQueue()
        self._waiting: list[Waiting] = []
        self._pipeline = load_pipeline()
        threading.Thread(target=self._run, daemon=True).start()

    def draw(self, wanted: Inference) -> bytes:
        drawn: Future[bytes] = Future()
        self._arrived.put((wanted, drawn))
        return drawn.result()

    def _run(self) -> None:
        while True:
            if not self._waiting:
                self._waiting.append(self._arrived.get())
            while not self._arrived.empty():
                self._waiting.append(self._arrived.get())
            steps = self._waiting[0][0].parameters.num_inference_steps
            alike = [
                one for one in self._waiting if one[0].parameters.num_inference_steps == steps
            ][:BATCH]
            self._waiting = [one for one in self._waiting if one not in alike]
            images = self._pipeline(
                [wanted.inputs for wanted, _ in alike],
                num_inference_steps=steps,
                guidance_scale=GUIDANCE,
                generator=[
                    torch.Generator("cpu").manual_seed(wanted.parameters.seed)
                    for wanted, _ in alike
                ],
            ).images
            for (_, drawn), image in zip(alike, images, strict=True):
                file = io.BytesIO()
                image.save(file, format="PNG")
                drawn.set_result(file.getvalue())


def create_app() -> FastAPI:
    app = FastAPI()
    batches = Batches()

    @app.post("/")
    def infer(wanted: Inference) -> Response:
        return Response(batches.draw(wanted), media_type="image/png")

    return app


if __name__ == "__main__":
    serve(create_app, __doc__)
