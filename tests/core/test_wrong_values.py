"""A value that cannot be right stops every process at its start, by the name of its setting."""

import os
import subprocess
import sys

import pytest
from pydantic import ValidationError

from core.explaining import explain
from core.settings import Settings

WRONG = [
    ("REDIS_URL", "redis:6379", "begins with redis://"),
    ("REDIS_URL", "redis://h:abc/0", "port is not a number"),
    ("REDIS_URL", "redis://h:70000/0", "port is not a number"),
    ("REDIS_URL", "redis://h:6379/jobs", "number of a database"),
    ("REDIS_URL", "redis://:6379/0", "host is missing"),
    ("REDIS_URL", "unix://", "path of a socket"),
    ("TRCE_DEVICE", "gpu", "one of auto, cpu, cuda"),
    ("TRCE_DEVICE", "Cuda", "one of auto, cpu, cuda"),
    ("TRCE_DEVICE", "cuda:", "one of auto, cpu, cuda"),
    ("TRCE_S3_ENDPOINT_URL", "minio:9000", "begins with http://"),
    ("TRCE_S3_ENDPOINT_URL", "http://minio:port", "port is not a number"),
    ("TRCE_TRACE_ENDPOINT", "collector:4318", "begins with http://"),
    ("TRCE_TRACE_ENDPOINT", "http:///v1/traces", "host is missing"),
    ("TRCE_CORS_ORIGINS", "nonsense", "begins with http://"),
    ("TRCE_CORS_ORIGINS", "https://a.example https://b.example/", "scheme, host and port alone"),
    ("TRCE_CORS_ORIGINS", "https://A.example", "in small letters"),
]
ONE_OF_EACH = {name: value for name, value, _ in WRONG}
PROCESSES = {
    "service": (["service"], 1),
    "worker": (["worker", "inference"], 1),
    "setup": (["cli.main", "setup"], 2),
    "doctor": (["cli.main", "doctor"], 1),
}


@pytest.mark.parametrize(("name", "value", "words"), WRONG, ids=lambda word: word or "empty")
def test_it_is_told_with_its_name_and_an_example(name, value, words, monkeypatch):
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("TRCE_S3_BUCKET", "pictures")

    with pytest.raises(ValidationError) as raised:
        Settings(_env_file=None)

    (line,) = explain(raised.value)
    assert line.startswith(f"{name}: ")
    assert words in line


def test_a_password_is_never_part_of_what_is_told():
    for url in ("redis://:sec/ret@h:6379/0", "redis://:secret@h:port/0", "redis://:secret@:1/0"):
        with pytest.raises(ValidationError) as raised:
            Settings(_env_file=None, redis_url=url)

        assert "sec" not in " ".join(explain(raised.value))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("redis_url", "redis://redis"),
        ("redis_url", "rediss://user:p%2Fw@redis.internal:6380/3"),
        ("redis_url", "unix:///run/redis.sock?db=0"),
        ("device", "auto"),
        ("device", "cuda:12"),
        ("trace_endpoint", "https://collector/v1/traces"),
        ("cors_origins", "*"),
        ("cors_origins", "http://localhost:3000 https://b.example"),
        ("cors_origins", ""),
    ],
)
def test_what_can_be_right_is_taken(name, value):
    assert getattr(Settings(_env_file=None, **{name: value}), name) == value


def test_an_empty_line_for_redis_is_none():
    assert Settings(_env_file=None, redis_url="").redis_url is None


@pytest.mark.parametrize("process", PROCESSES)
def test_no_process_gets_past_them(process, tmp_path):
    words, code = PROCESSES[process]
    env = {"TRCE_DATA_DIR": str(tmp_path), "TRCE_S3_BUCKET": "pictures", **ONE_OF_EACH}

    done = subprocess.run(
        [sys.executable, "-m", *words],
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    said = done.stdout + done.stderr
    assert done.returncode == code
    assert "Traceback" not in said
    for name in ONE_OF_EACH:
        assert f"{name}: " in said, said
