"""`trce keys` on an installation that is not running: it borrows the embedded Redis."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cli.commands.keys import duration_s
from core.errors import Invalid


@pytest.fixture
def trce():
    # Not tmp_path: a unix socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="trce-") as folder:
        env = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}

        def run(*words: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "cli.main", "keys", *words]
            return subprocess.run(
                [*command, "--data-dir", str(Path(folder) / "data")],
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
                env=env,
            )

        yield run


def test_a_key_is_made_listed_rotated_and_revoked(trce):
    made = trce("create", "--scope", "generate", "--scope", "admin", "--tenant", "acme")
    token = made.stdout.strip()
    key_id = token.split("_")[1]
    assert token.startswith("trce_"), made.stderr
    assert "admin" in made.stderr

    rotated = trce("rotate", key_id, "--overlap", "0m").stdout.strip()
    assert rotated.startswith(f"trce_{key_id}_")
    assert rotated != token
    assert trce("revoke", key_id).returncode == 0

    (listed,) = json.loads(trce("list", "--json").stdout)
    assert (listed["id"], listed["tenant"], listed["state"]) == (key_id, "acme", "revoked")
    assert not [name for name in listed if "digest" in name]


def test_what_cannot_be_says_what_could(trce):
    for words, says in [
        (("create", "--scope", "root"), "generate, erase, admin"),
        (("create", "--expires", "soon"), "90d"),
        (("revoke", "none"), "trce keys list"),
    ]:
        result = trce(*words)
        assert result.returncode == 2
        assert says in result.stderr
        assert "Traceback" not in result.stderr


def test_durations():
    assert (duration_s("90d"), duration_s("12h"), duration_s("0m")) == (7776000, 43200, 0)
    with pytest.raises(Invalid):
        duration_s("5")


def test_a_redis_that_is_away_is_named_without_its_password(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "keys", "list", "--data-dir", str(tmp_path)],
        env=os.environ | {"REDIS_URL": "redis://:hidden@127.0.0.1:1/0"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert "redis://127.0.0.1:1/0 does not answer" in done.stderr
    assert "REDIS_URL" in done.stderr
    assert "trce doctor" in done.stderr
    assert "hidden" not in done.stderr
