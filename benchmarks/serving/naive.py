"""The usual example: one StableDiffusionPipeline, one request at a time, in one thread.

`python -m benchmarks.serving.naive --port 8100`; POST / takes `{"inputs": ..., "parameters": ...}`
and answers with a PNG. The same folder, scheduler, steps and guidance as the service. A lock would
do, but then each of the forty threads that FastAPI answers in draws in its turn, and OpenMP has
threads of its own for each of them.
"""

import io
from concurrent.futures import ThreadPoolExecutor

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
    drawing = ThreadPoolExecutor(max_workers=1)

    @app.post("/")
    def infer(wanted: Inference) -> Response:
        parameters = wanted.parameters
        order = Order(wanted.inputs, parameters.num_inference_steps, parameters.seed)
        image = drawing.submit(draw, pipeline, order).result()
        file = io.BytesIO()
        image.save(file, format="PNG")
        return Response(file.getvalue(), media_type="image/png")

    return app


if __name__ == "__main__":
    serve(create_app, __doc__)
