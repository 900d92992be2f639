import os
import stat
from pathlib import Path

import pytest

from cli.stack import broker
from core.errors import Misconfigured


def test_a_socket_lies_in_its_folder_when_the_path_is_short(tmp_path_factory):
    folder = Path("/tmp/x")

    assert broker.socket_path(folder) == folder.resolve() / "broker.sock"


def test_a_long_path_gets_a_private_short_one_and_always_the_same(tmp_path):
    folder = tmp_path / ("long" * 30)
    path = broker.socket_path(folder)

    assert len(os.fsencode(path)) <= broker.MAX_SOCKET_PATH
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert broker.socket_path(folder) == path
    assert broker.socket_path(tmp_path / ("other" * 30)) != path


def test_the_server_is_durable_private_and_never_evicts(tmp_path):
    command = broker.broker_command(tmp_path / "broker")
    options = dict(zip(command[1::2], command[2::2], strict=True))

    assert options["--appendfsync"] == "always"
    assert options["--port"] == "0"
    assert options["--maxmemory-policy"] == "noeviction"
    assert stat.S_IMODE((tmp_path / "broker").stat().st_mode) == 0o700


def program(folder: Path, name: str, says: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("version", ["5.0.14", "6.0.16", "6.2.14"])
def test_a_server_on_the_path_is_preferred_if_it_is_new_enough(tmp_path, monkeypatch, version):
    """No older one than `trce up` would call good."""
    monkeypatch.setenv("PATH", str(tmp_path))
    old = program(tmp_path, "redis-server", f"Redis server v={version} sha=0")
    assert broker.find_server() != old

    new = program(tmp_path, "valkey-server", "Valkey server v=8.1.0 sha=0")
    assert broker.find_server() == new


def test_no_server_at_all_is_an_error_that_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(broker.importlib.util, "find_spec", lambda name: None)

    with pytest.raises(Misconfigured, match="REDIS_URL"):
        broker.find_server()


def test_a_server_that_never_answers_is_given_up(tmp_path):
    with pytest.raises(Misconfigured, match="did not answer"):
        broker.wait_until_ready(f"unix://{tmp_path}/nothing.sock", within_s=0.1)
