"""The usual example: one StableDiffusionPipeline, one request at a time, behind a lock.

`python -m benchmarks.serving.naive --port 8100`; POST / takes `{"inputs": ..., "parameters": ...}`
and answers with a PNG. The same folder, scheduler, steps and guidance as the service, and the
number of threads that makes its calls fastest.
"""

import argparse
import io
import threading

import torch
import uvicorn
from fastapi import FastAPI, Response
from pydantic import BaseModel

from benchmarks.serving.pipeline import draw, load_pipeline
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    uvicorn.run(create_app(), port=arguments.port, log_level="warning")


if __name__ == "__main__":
    main()
