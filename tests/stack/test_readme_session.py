"""The session with curl in README, line by line, with the ids that it leaves to its reader."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[2] / "README.md"
SESSION = re.compile(r"^In another terminal:\n\n```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
MADE_UP = re.compile(r"emoji-weapons-[0-9a-f]{8}")
WITHIN_S = 600


@pytest.mark.stack
def test_the_session_with_curl_runs_as_it_stands(own_stack, tmp_path):
    (session,) = SESSION.findall(README.read_text())
    lines = [line for line in session.splitlines() if line.startswith("curl")]
    (settings,) = [line for line in session.splitlines() if line.startswith("U=")]
    settings = settings.replace("http://127.0.0.1:8000", own_stack.url)
    job_id, model, states = "", "", []

    for line in lines:
        command = re.sub(r"\bID\b", job_id, MADE_UP.sub(model, line)).replace("curl ", "curl -f ")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{settings}\n{command}"],
            cwd=tmp_path,
            env=os.environ,
            capture_output=True,
            timeout=WITHIN_S,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stderr.decode()}{done.stdout.decode()}"
        if not done.stdout.startswith(b"{"):
            continue
        answer = json.loads(done.stdout)
        if " -d " in line:
            job_id = answer["id"]
        model = answer.get("erased_model") or model
        states.append(answer.get("state") or answer.get("status"))

    # Drawn, asked, erased, looked at, promoted, drawn again.
    assert states[0] == states[2] == states[5] == "succeeded"
    assert states[3:5] == ["candidate", "serving"]
    assert (tmp_path / "before.png").read_bytes().startswith(b"\x89PNG")
