"""How `servers.running_server` starts a server of this package."""

import argparse
from collections.abc import Callable

import torch
import uvicorn
from fastapi import FastAPI


def serve(create_app: Callable[[], FastAPI], description: str | None) -> None:
    """Until it is stopped, on the port and with the threads of the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    uvicorn.run(create_app(), port=arguments.port, log_level="warning")
