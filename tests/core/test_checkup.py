"""Each thing that can be wrong is found, named, and told with its fix."""

import errno
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from cli.commands.doctor import examine
from cli.main import run
from cli.stack.broker import find_server
from core.checkup.broker import check_broker
from core.checkup.check import insist, ok, problem, warning
from core.checkup.compiler import check_compiler
from core.checkup.device import check_torch
from core.checkup.folder import check_folder, check_keys, check_models
from core.checkup.names import FOR_COMPOSE, check_names
from core.checkup.pictures import check_pictures
from core.checkup.port import check_port
from core.errors import Misconfigured
from core.settings import Settings
from core.signing import Signer
from core.startup import read_settings
from core.storage import Storage
from tests.models_on_disk import ModelsOnDisk


def states(checks) -> dict[str, str]:
    return {one.name: one.state for one in checks}


class TestNames:
    def test_a_misspelt_setting_is_found_with_the_name_that_was_meant(self, tmp_path):
        check = check_names({"TRCE_BATCH_ROW": "4"}, tmp_path / "none")

        assert check.state == "problem"
        assert "TRCE_BATCH_ROW (did you mean TRCE_BATCH_ROWS?)" in check.found

    def test_lines_of_the_env_file_count(self, tmp_path):
        (tmp_path / ".env").write_text("TRCE_PROT=80\nOTHERS=1\n")

        assert "did you mean TRCE_PORT?" in check_names({}, tmp_path / ".env").found

    @pytest.mark.parametrize(
        ("given", "meant"),
        [
            ("INFERENCE_GPUS", "INFERENCE_GPU"),
            ("REDIS_MAXMEM", "REDIS_MAXMEMORY"),
            ("REDIS_MAX_MEMORY", "REDIS_MAXMEMORY"),
            ("TRAINER_MEM", "TRAINER_MEMORY"),
        ],
    )
    def test_so_do_those_that_compose_alone_reads(self, tmp_path, given, meant):
        (tmp_path / ".env").write_text(f"{given}=1\n")

        check = check_names({}, tmp_path / ".env")

        assert check.state == "problem"
        assert f"{given} (did you mean {meant}?)" in check.found

    def test_whatever_the_compose_files_read_is_known(self, tmp_path):
        files = [*Path("deploy").glob("compose.*.yml"), Path("docker-compose.yml")]
        read = {name for file in files for name in re.findall(r"\$\{(\w+)", file.read_text())}

        assert len(read) > 20
        assert {name for name in read if not name.startswith("TRCE_")} <= FOR_COMPOSE
        assert read >= FOR_COMPOSE
        assert check_names(dict.fromkeys(read, "1"), tmp_path / "none").state == "ok"

    @pytest.mark.parametrize(
        "name", ["REDIS_HOST", "REDIS_PASSWORD", "REDIS_SERVICE_PORT", "GRAFANA_HOST", "GPU"]
    )
    def test_those_of_other_programs_are_fine_however_alike(self, tmp_path, name):
        assert check_names({name: "1"}, tmp_path / "none").state == "ok"

    def test_known_ones_and_those_of_others_are_fine(self, tmp_path):
        environ = {"TRCE_PORT": "1", "TRCE_API_KEY": "x", "HOME": "/", "TRCE_VERSION": "1"}

        assert check_names(environ, tmp_path / "none").state == "ok"


class TestSettings:
    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ({"s3_endpoint_url": "http://x"}, "TRCE_S3_BUCKET"),
            ({"s3_bucket": "b", "s3_access_key_id": "a"}, "belong together"),
            ({"s3_bucket": "b", "s3_secret_access_key": "s"}, "belong together"),
        ],
        ids=["no bucket", "no secret", "no key id"],
    )
    def test_half_of_s3_is_refused(self, given, words):
        with pytest.raises(ValueError, match=words):
            Settings(_env_file=None, **given)

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ({"compile_unet": True}, "set TRCE_WARM_UP=default"),
            ({"compile_buckets": "2 four"}, "numbers of rows"),
            ({"compile_buckets": "0 2"}, "numbers of rows"),
            ({"compile_buckets": ""}, "numbers of rows"),
        ],
    )
    def test_a_compiler_without_models_or_shapes_is_refused(self, given, words):
        with pytest.raises(ValueError, match=words):
            Settings(_env_file=None, **given)

    def test_an_address_of_redis_has_a_scheme(self):
        with pytest.raises(ValueError, match="as in redis://"):
            Settings(_env_file=None, redis_url="redis:6379")

    def test_a_secret_may_come_as_a_file(self, tmp_path):
        (tmp_path / "trce_s3_secret_access_key").write_text("hidden\n")

        settings = Settings(
            _env_file=None, _secrets_dir=tmp_path, s3_bucket="b", s3_access_key_id="a"
        )

        assert settings.s3_secret_access_key.get_secret_value() == "hidden"
        assert "hidden" not in repr(settings)


class TestSecretOfSomebodyElse:
    """Permissions do not bind who runs tests as root, so that reading it fails here."""

    @pytest.fixture(autouse=True)
    def closed(self, tmp_path, monkeypatch):
        """A file that only its owner may read."""
        read, secret = Path.read_text, tmp_path / "trce_s3_secret_access_key"
        secret.write_text("hidden")

        def refuse(path, *arguments, **options):
            if path == secret:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return read(path, *arguments, **options)

        monkeypatch.setattr(Path, "read_text", refuse)
        monkeypatch.setitem(Settings.model_config, "secrets_dir", tmp_path)

    def test_a_process_says_which_it_is_and_whose_it_should_be(self, tmp_path):
        with pytest.raises(Misconfigured) as told:
            read_settings("service")

        assert f"{tmp_path}/trce_s3_secret_access_key cannot be read (Permission" in str(
            told.value
        )
        assert f"chown {os.getuid()} deploy/secrets/trce_s3_secret_access_key" in str(told.value)

    def test_the_doctor_says_it_as_a_problem_with_its_fix(self):
        _, check = examine()

        assert check.state == "problem"
        assert "deploy/secrets/trce_s3_secret_access_key" in check.found

    def test_a_command_says_it_in_a_line(self, monkeypatch, capsys):
        monkeypatch.setattr(sys, "argv", ["trce", "keys", "list"])

        with pytest.raises(SystemExit) as ended:
            run()

        assert ended.value.code == 2
        assert "deploy/secrets/trce_s3_secret_access_key" in capsys.readouterr().err


def test_a_secret_that_is_no_text_is_told_by_its_field(tmp_path, monkeypatch):
    (tmp_path / "redis_url").write_bytes(b"\xff\xfe")
    monkeypatch.setitem(Settings.model_config, "secrets_dir", tmp_path)
    monkeypatch.delenv("REDIS_URL", raising=False)

    with pytest.raises(Misconfigured, match=r"redis_url.*decode"):
        read_settings("service")


class TestBroker:
    def test_the_embedded_one_is_as_it_should_be(self, redis_url):
        with redis.Redis.from_url(redis_url, decode_responses=True) as client:
            assert set(states(check_broker(client)).values()) == {"ok"}

    @pytest.mark.parametrize(
        ("setting", "value", "name"),
        [
            ("appendonly", "no", "redis persistence"),
            ("appendfsync", "everysec", "redis persistence"),
            ("maxmemory-policy", "allkeys-lru", "redis eviction"),
            ("maxmemory", "1024", "redis memory"),
        ],
    )
    def test_what_would_lose_jobs_is_a_problem(self, careless, setting, value, name):
        careless.config_set(setting, value)

        found = {one.name: one for one in check_broker(careless)}

        assert found[name].state == "problem"
        assert found[name].fix

    @pytest.mark.parametrize(
        ("version", "state"),
        [("6.0.16", "problem"), ("6.2.14", "problem"), ("7.0.0", "ok"), ("10.0", "ok")],
    )
    def test_one_that_lacks_a_command_that_is_needed_is_a_problem(
        self, careless, monkeypatch, version, state
    ):
        info = careless.info() | {"redis_version": version}
        info.pop("valkey_version", None)
        monkeypatch.setattr(careless, "info", lambda: info)

        assert states(check_broker(careless))["redis"] == state

    def test_one_that_is_not_there_is_told_in_one_line(self, tmp_path):
        with redis.Redis(unix_socket_path=str(tmp_path / "none")) as nobody:
            (check,) = check_broker(nobody)

        assert check.state == "problem"
        assert "REDIS_URL" in check.fix

    def test_a_clock_that_differs_is_found(self, careless, monkeypatch):
        seconds, micros = careless.time()
        monkeypatch.setattr(careless, "time", lambda: (seconds + 60, micros))

        assert states(check_broker(careless))["clock"] == "problem"


@pytest.fixture
def careless(tmp_path_factory):
    """A server of its own, good at first, that a test may spoil."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("redis")
    options = ["--port", str(port), "--dir", str(folder), "--save", ""]
    options += ["--appendonly", "yes", "--appendfsync", "always"]
    server = subprocess.Popen([find_server(), *options], stdout=subprocess.DEVNULL)
    with redis.Redis(port=port, decode_responses=True) as client:
        for _ in range(200):
            try:
                client.ping()
                break
            except redis.ConnectionError:
                import time

                time.sleep(0.02)
        yield client
    server.kill()
    server.wait()


class TestFolder:
    def test_one_that_can_be_written_is_fine_and_left_empty(self, tmp_path):
        checks = check_folder(tmp_path / "data")

        assert checks[0].state in {"ok", "warning"}
        assert list((tmp_path / "data").iterdir()) == []

    def test_one_that_cannot_be_made_is_told_with_its_fix(self, tmp_path):
        (tmp_path / "file").write_text("")

        (check,) = check_folder(tmp_path / "file" / "data")

        assert check.state == "problem"
        assert f"chown -R {os.getuid()}" in check.fix

    def test_folders_in_it_must_be_open_where_they_are_there(self, tmp_path, monkeypatch):
        """As `models` is not, copied there by root; permissions do not bind who runs tests so."""
        (tmp_path / "models").mkdir()
        (tmp_path / "run").mkdir()
        monkeypatch.setattr(os, "access", lambda path, _: path.name != "models")

        (check,) = check_folder(tmp_path, ("models", "run", "making"))

        assert check.state == "problem"
        assert check.found == f"{tmp_path / 'models'} cannot be written"
        assert f"chown -R {os.getuid()}" in check.fix
        assert check_folder(tmp_path, ("run",))[0].state != "problem"

    @pytest.mark.parametrize(
        ("process", "closed", "bucket"),
        [
            ("trainer", "checkpoints", {}),
            ("inference", "images", {}),
            ("inference", "models", {"TRCE_S3_BUCKET": "b", "TRCE_S3_MODELS": "true"}),
        ],
        ids=["checkpoints", "pictures", "models that are fetched"],
    )
    def test_a_process_does_not_start_without_what_it_writes_to(
        self, tmp_path, monkeypatch, process, closed, bucket
    ):
        for name, value in (bucket | {"TRCE_DATA_DIR": str(tmp_path)}).items():
            monkeypatch.setenv(name, value)
        (tmp_path / closed).mkdir()
        monkeypatch.setattr(os, "access", lambda path, _: path.name != closed)

        with pytest.raises(Misconfigured, match=f"{closed} cannot be written"):
            read_settings(process)

    def test_a_worker_that_fetches_no_models_need_not_write_there(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TRCE_DATA_DIR", str(tmp_path))
        (tmp_path / "models").mkdir()
        monkeypatch.setattr(os, "access", lambda path, _: path.name != "models")

        assert read_settings("inference").data_dir == tmp_path

    def test_without_a_key_it_says_what_makes_one(self, settings):
        assert "trce setup" in check_keys(settings).fix

    def test_a_key_that_others_can_read_is_a_warning(self, settings):
        Signer.load_or_create(settings.keys_dir)
        assert check_keys(settings).state == "ok"

        (settings.keys_dir / "signing.pem").chmod(0o644)

        assert check_keys(settings).state == "warning"


class TestModels:
    """Three that are served."""

    @pytest.fixture
    def models(self, settings) -> ModelsOnDisk:
        models = ModelsOnDisk(settings.data_dir)
        for model_id in ("one", "two", "three"):
            models.add(model_id)
            models.promote(model_id)
        return models

    @pytest.fixture
    def look(self, settings):
        served = settings.model_copy(update={"serve_unerased_base": True})
        return lambda **options: check_models(served, **options)

    def test_whole_ones_are_counted(self, models, look):
        assert look().found == "3 served, every file as its manifest says"

    def test_each_that_was_changed_is_named(self, models, look):
        for model_id in ("one", "three"):
            (models.folder / model_id / "unet" / "weights.safetensors").write_text("changed")

        check = look()

        assert check.state == "problem"
        assert "model one: unet/weights.safetensors differs" in check.found
        assert "model three: unet/weights.safetensors differs" in check.found
        assert "1 of 3 are whole" in check.found
        assert str(models.folder) in check.fix

    def test_before_a_start_they_are_borne_while_another_is_whole(self, models, look):
        for model_id, state in (("one", "warning"), ("two", "warning"), ("three", "problem")):
            (models.folder / model_id / "model_index.json").unlink()

            assert look(one_suffices=True).state == state


def test_a_folder_for_pictures_takes_and_forgets_a_probe(tmp_path):
    assert check_pictures(Storage(tmp_path)).state == "ok"
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == []


def test_who_looks_while_another_does_takes_nothing_from_them(tmp_path):
    class Crowded(Storage):
        """Between what one puts and gets, another looks from beginning to end."""

        def put(self, key: str, data: bytes) -> None:
            super().put(key, data)
            found.append(check_pictures(Storage(tmp_path)).state)

    found: list[str] = []

    assert check_pictures(Crowded(tmp_path)).state == "ok"
    assert found == ["ok"]


class TestCompiler:
    def test_one_that_is_there_compiles(self):
        assert check_compiler("cpu").state == "ok"

    def test_without_one_it_says_what_to_install(self, monkeypatch):
        monkeypatch.setenv("CXX", "no-such-compiler")
        check = check_compiler("cpu")

        assert check.state == "problem"
        assert "no-such-compiler" in check.found
        assert "g++" in check.fix


def test_a_port_that_is_taken_is_found():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        check = check_port("127.0.0.1", port)

    assert check.state == "problem"
    assert "TRCE_PORT" in check.fix
    assert check_port("127.0.0.1", port).state == "ok"


@pytest.mark.parametrize("setting", ["TRCE_PORT", "TRCE_METRICS_PORT"])
def test_a_service_does_not_start_on_a_port_that_is_taken(setting, tmp_path, redis_url):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        env = {"TRCE_PORT": "0", "TRCE_METRICS_PORT": "0", setting: str(port)}
        done = subprocess.run(
            [sys.executable, "-m", "service"],
            env=os.environ | env | {"TRCE_DATA_DIR": str(tmp_path), "REDIS_URL": redis_url},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert done.returncode == 1
    assert f"cannot start: port: {port} on 127.0.0.1 cannot be had" in done.stderr
    assert f"set {setting}" in done.stderr
    assert "Traceback" not in done.stderr


def test_problems_stop_the_start_and_warnings_do_not():
    insist([ok("a", "fine"), warning("b", "so so", "mend it")])

    with pytest.raises(Misconfigured, match="c: broken; mend it"):
        insist([ok("a", "fine"), problem("c", "broken", "mend it")])


@pytest.mark.parametrize("module", [["service"], ["worker", "inference"]], ids=lambda m: m[0])
def test_no_process_starts_with_a_setting_that_nobody_reads(module, tmp_path):
    env = os.environ | {"TRCE_BATCH_ROW": "4", "TRCE_DATA_DIR": str(tmp_path)}

    done = subprocess.run(
        [sys.executable, "-m", *module], env=env, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert "did you mean TRCE_BATCH_ROWS?" in done.stderr
    assert "Traceback" not in done.stderr


class TestSeveralGpus:
    """What stage 2 is to run on, TRCE_TRAINER_PROCESSES."""

    def test_fewer_than_asked_for_are_a_problem(self, monkeypatch):
        def told(command, **_):
            return subprocess.CompletedProcess(command, 0, '["2.13", "13.0", ["L4", "L4"]]', "")

        monkeypatch.setattr(subprocess, "run", told)

        assert check_torch("cuda", gpus_needed=2).state == "ok"
        check = check_torch("cuda", gpus_needed=3)
        assert check.state == "problem"
        assert "sees 2 GPUs, and no cuda:2" in check.found
        assert "TRCE_TRAINER_PROCESSES=2" in check.fix

    def test_one_gpu_by_name_is_not_several(self):
        with pytest.raises(ValueError, match="set TRCE_DEVICE=cuda"):
            Settings(device="cuda:1", trainer_processes=2)
        Settings(device="cuda", trainer_processes=2)
