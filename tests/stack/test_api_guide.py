"""What stands in docs/api.md, done as it stands there, with a service that has work behind it."""

import os
import re
import subprocess
import time
from pathlib import Path

import pytest
from PIL import Image

from cli.stack.broker import broker_url
from core.keys import KeyStore
from core.redis_connection import connect
from service.webhooks.posting import headers_for
from tests.live_stack import Stack

pytestmark = pytest.mark.stack

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "api.md"
COMMANDS = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PROGRAMS = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ADDRESS, KEY = "http://127.0.0.1:8000", "any, without keys"
WITHIN_S = 300
# A key for the lines that name none; an Authorization header in a line goes before it.
TOLD = """curl() {
  command curl -u "guide:$TRCE_API_KEY" -sS -m 60 -w '%{stderr}%{http_code}\\n' "$@"
}
"""

# What a line of the guide meets here that its reader will not: a word of it -> the status.
MEETS = {
    '"merge":': 404,  # its models are made up
    "-X DELETE $API/v1/generations": 409,  # drawn already
    "-X DELETE $API/v1/erasures": 409,
    "-X DELETE $API/v1/evaluations": 409,
    "$API/v1/policies/default": 404,  # there is none
}


@pytest.fixture
def token(own_stack: Stack) -> str:
    with connect(broker_url(own_stack.data_dir / "broker")) as redis:
        _, token = KeyStore(redis).create(scopes=["admin"], label="guide")
    own_stack.http.headers["Authorization"] = f"Bearer {token}"
    return token


@pytest.fixture
def names(own_stack: Stack, token: str) -> dict[str, dict[str, str]]:
    """What `$ID` and the rest stand for, by the section of the guide."""
    generation = own_stack.generate("a red apple")
    own_stack.ended(generation)
    erasure = own_stack.erase_axes()
    model = own_stack.ended(erasure)["erased_model"]
    own_stack.post(f"/v1/models/{model}/promotion", reason="for the guide")
    asked = own_stack.post("/v1/evaluations", model=model, suites=["explicit"], at_most=1)
    evaluation = own_stack.ended(f"/v1/evaluations/{asked['id']}")
    key = own_stack.post("/v1/keys", scopes=["generate"], label="to be shown and revoked")
    shared = {
        "KEY_ID": key["id"],
        "MODEL": model,
        "REPORT": evaluation["report"].split("/")[-2],
        "LAST": "1-0",
    }
    ids = {
        "generations": generation.rpartition("/")[2],
        "erasures": erasure.rpartition("/")[2],
        "evaluations": evaluation["id"],
    }
    return {noun: shared | {"ID": job, "LAST_ID": job} for noun, job in ids.items()}


def test_every_command_of_the_guide_is_answered_as_it_says(own_stack, token, names, tmp_path):
    env = os.environ | {"API": own_stack.url, "TRCE_API_KEY": token}
    wrong = []
    for command in COMMANDS.findall(GUIDE.read_text()):
        if "curl" not in command:
            continue
        noun = next((noun for noun in names if f"/v1/{noun}" in command), "generations")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", TOLD + command],
            cwd=tmp_path,
            env=env | names[noun],
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )
        statuses = [int(line) for line in re.findall(r"^\d{3}$", done.stderr, re.MULTILINE)]
        expected = next((status for word, status in MEETS.items() if word in command), None)
        fine = all(200 <= status < 300 or status == expected for status in statuses)
        if done.returncode != 0 or not statuses or not fine:
            wrong.append((command, statuses, done.stdout[-300:], done.stderr[-300:]))

    assert wrong == []


def test_every_program_of_the_guide_runs(own_stack, token, tmp_path, monkeypatch, capsys):
    """Each alone, with this stack's address and a key of it."""
    monkeypatch.chdir(tmp_path)
    programs = PROGRAMS.findall(GUIDE.read_text())
    spaces = []
    for program in programs:
        here = program.replace(ADDRESS, own_stack.url).replace(KEY, token)
        spaces.append({})
        exec(compile(here, str(GUIDE), "exec"), spaces[-1])

    assert all(ADDRESS in one or "def is_ours" in one for one in programs)
    assert capsys.readouterr().out.endswith(" 7 stop\n")
    with Image.open(tmp_path / "apple.png") as picture:
        assert picture.format == "PNG"
    (is_ours,) = [space["is_ours"] for space in spaces if "is_ours" in space]
    secret = own_stack.http.get("/v1/webhooks/secret").json()["secret"]
    body = b'{"type": "generation.succeeded"}'
    headers = headers_for("delivery", body, [secret], at_s=int(time.time()))
    assert is_ours(body, headers, secret)
    assert not is_ours(body + b" ", headers, secret)
