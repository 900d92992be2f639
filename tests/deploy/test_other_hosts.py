"""Workers on hosts of their own: the files for the first host and for the others."""

import os
import re
import socket
import subprocess

import pytest
import redis
import yaml

from cli.stack.broker import find_server, wait_until_ready
from cli.stack.up import prepare
from core.checkup.broker import check_broker
from core.key_folder import KeyFolder
from core.settings import Settings
from core.signing import Signer, Verifier
from deploy.compose_command import ROOT, merged

FIRST_HOST = ["docker-compose.yml", "deploy/compose.hosts.yml"]
CLIENTS = ("setup", "service", "inference", "trainer")
PASSWORD = "0f3c9d"
OF_ITS_OWN = {
    *("depends_on", "networks", "volumes", "tmpfs", "ports"),
    *("secrets", "environment", "profiles"),
}
"""Of a worker on another host."""
SECTION = (
    (ROOT / "docs" / "operations.md")
    .read_text()
    .partition("## Workers on other hosts")[2]
    .partition("\n## ")[0]
)
HERE = """
docker() { shift 4; "$@"; }
chown() { :; }
"""
"""In a shell: `docker compose exec -T service` runs its command here, and any owner will do."""


@pytest.fixture(scope="module")
def first_host() -> dict:
    return merged(FIRST_HOST)


@pytest.fixture(scope="module")
def other_host() -> dict:
    return yaml.safe_load((ROOT / "deploy" / "compose.worker.yml").read_text())


class TestTheFirstHost:
    def test_the_address_of_redis_is_a_secret_of_whoever_asks_it(self, first_host):
        for name in CLIENTS:
            service = first_host["services"][name]
            assert "redis_url" in service["secrets"], name
            assert "REDIS_URL" not in service["environment"], "it would win over the secret"
            assert service["environment"]["TRCE_DATA_DIR"] == "/data"

    def test_redis_can_be_reached_from_outside_at_an_address_that_is_named(self, first_host):
        service = first_host["services"]["redis"]
        (port,) = service["ports"]

        assert port.startswith("${REDIS_BIND:?"), "never by default on every address"
        assert set(service["networks"]) == {"inside", "outside"}, "`inside` publishes no ports"

    def test_redis_stays_as_durable_and_hardened_as_it_was(self, first_host):
        before = merged(["docker-compose.yml"])["services"]["redis"]
        after = first_host["services"]["redis"]

        changed = {"entrypoint", "secrets", "networks", "ports", "healthcheck"}
        assert {name: after[name] for name in before if name not in changed} == {
            name: one for name, one in before.items() if name not in changed
        }
        assert after["healthcheck"]["interval"] == before["healthcheck"]["interval"]

    def test_every_secret_has_its_file(self, first_host):
        for name, service in first_host["services"].items():
            assert set(service.get("secrets", [])) <= set(first_host["secrets"]), name


def test_a_file_named_redis_url_is_the_address(tmp_path):
    (tmp_path / "redis_url").write_text("redis://:word@redis:6379/0\n")

    settings = Settings(_env_file=None, _secrets_dir=tmp_path)

    assert settings.redis_url == "redis://:word@redis:6379/0"


def test_redis_asks_for_the_password_in_its_file(first_host, tmp_path_factory):
    """The very command, its paths those of this machine."""
    folder = tmp_path_factory.mktemp("redis")
    (folder / "redis_password").write_text(PASSWORD)
    service = first_host["services"]["redis"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def here(word: str) -> str:
        word = re.sub(r"\$\{\w+:-(\w+)\}", r"\1", word).replace("$$", "$")
        word = word.replace("redis-server", "$SERVER") if " " in word else word
        return re.sub(r"(?<![\w-])/(run/secrets|tmp|data)(?!\w)", str(folder), word)

    command = [here(word) for word in [*service["entrypoint"], *service["command"]]]
    server = subprocess.Popen(
        [*command, "--port", str(port)],
        env=os.environ | {"SERVER": str(find_server())},
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until_ready(f"redis://:{PASSWORD}@127.0.0.1:{port}/0", within_s=20)
        with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        with redis.Redis(port=port, password=PASSWORD, decode_responses=True) as ours:
            assert {one.state for one in check_broker(ours)} == {"ok"}
        assert PASSWORD not in " ".join(command)
        assert (folder / "password.conf").stat().st_mode & 0o077 == 0
    finally:
        server.kill()
        server.wait()


class TestAnotherHost:
    @pytest.mark.parametrize("role", ["inference", "trainer"])
    def test_a_worker_is_what_it_is_on_the_first_host(self, role, first_host, other_host):
        here, there = first_host["services"][role], other_host["services"][role]

        assert set(there) - OF_ITS_OWN == set(here) - OF_ITS_OWN
        for name in set(there) - OF_ITS_OWN:
            assert there[name] == here[name], name
        assert there["environment"] == here["environment"]

    def test_it_has_the_address_and_the_key_of_the_bucket_as_files(self, other_host):
        for name, service in other_host["services"].items():
            assert service["secrets"] == ["redis_url", "trce_s3_secret_access_key"], name
        assert set(other_host["secrets"]) == {"redis_url", "trce_s3_secret_access_key"}

    def test_it_has_a_way_out_and_waits_for_nobody(self, other_host):
        """No network named: the default one of the project, which leads outside."""
        assert "networks" not in other_host
        for service in other_host["services"].values():
            assert not {"networks", "depends_on"} & set(service)

    def test_its_metrics_are_shown_to_itself_unless_an_address_is_named(self, other_host):
        published = [one["ports"] for one in other_host["services"].values()]

        assert published == [
            [f"${{METRICS_BIND:-127.0.0.1}}:${{{role}_METRICS_PORT:-{port}}}:9100"]
            for role, port in (("INFERENCE", 9110), ("TRAINER", 9111))
        ]

    def test_prometheus_reaches_it_and_is_told_of_it_by_a_file(self, first_host, other_host):
        prometheus = first_host["services"]["prometheus"]
        folder = ROOT / "deploy" / "prometheus"
        config = yaml.safe_load((folder / "prometheus.yml").read_text())
        jobs = {one["job_name"]: one for one in config["scrape_configs"]}

        assert "outside" in prometheus["networks"]
        assert "./deploy/prometheus:/etc/prometheus:ro" in prometheus["volumes"]
        assert (folder / "hosts").is_dir()
        for role in other_host["services"]:
            assert jobs[role]["file_sd_configs"] == [{"files": [f"hosts/{role}.yml"]}]


@pytest.mark.parametrize("folder", ["keys", "keys/pictures"])
class TestKeysOfAnotherHost:
    """They are copied by the very lines of the manual."""

    @pytest.fixture
    def first(self, tmp_path, folder) -> KeyFolder:
        """Of an installation that has revoked no key yet."""
        prepare(Settings(_env_file=None, data_dir=tmp_path / "first"))
        return KeyFolder(tmp_path / "first" / folder)

    @pytest.fixture
    def copy(self, tmp_path):
        lines = [line for line in SECTION.splitlines() if "worker-keys.tar" in line]
        script = "\n".join(lines)
        for there, here in (("/data", "first"), ("/srv/trce", "other")):
            script = script.replace(there, str(tmp_path / here))

        def run() -> None:
            command = ["bash", "-euo", "pipefail", "-c", HERE + script]
            subprocess.run(command, cwd=tmp_path, check=True)

        return run

    def test_one_that_was_revoked_is_trusted_no_more_when_they_are_copied_again(
        self, first, folder, copy, tmp_path
    ):
        old = Signer.load(first.folder).key_id
        copy()
        running = Verifier.load(tmp_path / "other" / folder)
        assert running.trusts(old)
        new = first.rotate()
        first.revoke(old)

        copy()

        assert not running.trusts(old)
        assert running.trusts(new)

    def test_the_one_that_signs_models_stays_where_it_is(self, first, copy, tmp_path):
        copy()

        assert (first.folder / "signing.pem").exists()
        assert not (tmp_path / "other" / "keys" / "signing.pem").exists()


def test_the_way_is_told_with_both_files_and_every_secret():
    names = ("REDIS_BIND", "WORKER_DATA", "METRICS_BIND", "deploy/prometheus/hosts/inference.yml")
    for words in (*FIRST_HOST, "deploy/compose.worker.yml", *names):
        assert words in SECTION, words
    for secret in ("redis_password", "redis_url"):
        assert f"deploy/secrets/{secret}" in SECTION
