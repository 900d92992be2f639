"""The usual example: one StableDiffusionPipeline, one request at a time, behind a lock.

`python -m benchmarks.serving.naive --port 8100`; POST / takes `{"inputs": ..., "parameters": ...}`
and answers with a PNG. The same folder, scheduler, steps and guidance as the service, and the
number of threads that makes its calls fastest.
"""

import io
import threading

from fastapi import FastAPI, Response
from pydantic import BaseModel

from benchmarks.serving.pipeline import draw, load_pipeline
from benchmarks.serving.server_command import serve
from benchmarks.serving.workload import Order


class Parameters(BaseModel):
    num_inference_steps: int
    seed: int


class Inference(BaseModel):
    inputs: str
    parameters: Parameters


def create_app() -> FastAPI:
    app = FastAPI()
    pipeline = load_pipeline()
    lock = threading.Lock()

    @app.post("/")
    def infer(wanted: Inference) -> Response:
        parameters = wanted.parameters
        order = Order(wanted.inputs, parameters.num_inference_steps, parameters.seed)
        with lock:
            image = draw(pipeline, order)
        file = io.BytesIO()
        image.save(file, format="PNG")
        return Response(file.getvalue(), media_type="image/png")

    return app


if __name__ == "__main__":
    serve(create_app, __doc__)
