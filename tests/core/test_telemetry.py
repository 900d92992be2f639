import subprocess
import sys

CODE = """
import structlog
from core.telemetry import configure_logs
configure_logs()
def work():
    prompt = "my secret prompt"
    raise ValueError("no")
try:
    work()
except ValueError:
    structlog.get_logger().exception("failed", job="j1")
"""


def test_a_logged_error_holds_its_trace_and_no_local_variable():
    said = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True
    ).stderr

    assert '"event": "failed"' in said
    assert "ValueError" in said
    assert "secret" not in said
