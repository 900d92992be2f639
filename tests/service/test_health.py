"""`python -m service.health`, as containers run it."""

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest


class NothingServed(BaseHTTPRequestHandler):
    """Answers as the service does before a first model is promoted."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port():
    with HTTPServer(("127.0.0.1", 0), NothingServed) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def is_healthy(port: int) -> bool:
    command = [sys.executable, "-m", "service.health"]
    return not subprocess.run(command, env={"TRCE_PORT": str(port)}, check=False).returncode


def test_a_process_that_answers_is_healthy_before_a_model_is_served(port):
    assert is_healthy(port)


def test_one_that_does_not_answer_is_not():
    assert not is_healthy(1)
