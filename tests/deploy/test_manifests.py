"""What is written for Docker Compose and Kubernetes agrees with itself and with the code."""

import json
import os
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from cli.stack.up import folders_of_inference
from core.checkup.names import FOR_COMPOSE, OTHERS, check_names
from core.settings import Settings
from deploy import compose_command
from service.door import OPEN_TO_ALL
from worker.roles import KINDS_OF_ROLE

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
ROOT = DEPLOY.parent
KUBERNETES = DEPLOY / "kubernetes"
SETTINGS = {f"TRCE_{name.upper()}" for name in Settings.model_fields} | {"REDIS_URL"}
OVERRIDES = tuple(
    f"deploy/compose.{name}.yml" for name in ("cpu", "s3", "minio", "compile", "hosts")
)
OF_LIBRARIES = {"OMP_NUM_THREADS", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"}
ONCE = {"setup", "minio-volume"}
UIDS = {"redis": "999", "ours": "10001"}
"""Of users that are named, or of our images."""
PINNED = re.compile(
    r":v?\d+\.\d+\.\d+(-[\w.]+)?$|:RELEASE\.\d{4}-\d\d-\d\dT[\d-]+Z$|@sha256:[0-9a-f]{64}$"
)
OURS = {"redis", "setup", "service", "inference", "trainer"}


class Loader(yaml.SafeLoader):
    pass


Loader.add_constructor("!reset", lambda *_: "reset")


def read(name: str) -> dict:
    return yaml.load((ROOT / name).read_text(), Loader=Loader)


@pytest.fixture(scope="module")
def stack() -> dict:
    return read("docker-compose.yml")


def objects(*kinds: str) -> list[dict]:
    files = sorted(KUBERNETES.glob("*.yaml"))
    every = [one for file in files for one in yaml.safe_load_all(file.read_text())]
    return [one for one in every if not kinds or one["kind"] in kinds]


def pods() -> dict[str, dict]:
    """The name of what makes them -> their specification."""
    return {
        one["metadata"]["name"]: one["spec"]["template"]["spec"]
        for one in objects("Deployment", "StatefulSet")
    }


def containers(pod: dict) -> list[dict]:
    return [*pod.get("initContainers", []), *pod["containers"]]


class TestCompose:
    def test_it_has_a_name_that_no_folder_changes(self, stack):
        assert stack["name"] == "trce"

    def test_every_service_is_bounded_and_hardened(self, stack):
        for name, service in stack["services"].items():
            assert service["read_only"], name
            assert service["init"], name
            assert service["cap_drop"] == ["ALL"], name
            assert service["mem_limit"], name
            assert service["cpus"], name
            assert service["pids_limit"], name
            assert service["restart"] == ("no" if name in ONCE else "unless-stopped")

    def test_every_service_that_stays_says_how_it_is(self, stack):
        for name, service in stack["services"].items():
            if name in ONCE:
                assert service["healthcheck"] == {"disable": True}, name
            else:
                assert service["healthcheck"]["test"], name

    def test_nobody_is_root(self, stack):
        """Ours are who their Dockerfile says, and tests of its own hold that."""
        for name, service in stack["services"].items():
            assert "build" in service or service["user"].split(":")[0] not in {"", "0", "root"}, (
                name
            )

    def test_operators_are_told_who_must_be_able_to_read_each_secret(self):
        files = ["docker-compose.yml", *(f"deploy/compose.{one}.yml" for one in ("s3", "hosts"))]
        whole = compose_command.merged(files)
        readers = {
            (secret, UIDS.get(service.get("user", "ours"), service.get("user", "").split(":")[0]))
            for service in whole["services"].values()
            for secret in service.get("secrets", [])
        }
        operations = (ROOT / "docs" / "operations.md").read_text()
        told = re.findall(r"^\| `(\w+)` \|.*\| (\d+) \|$", operations, re.MULTILINE)

        assert set(told) == readers
        assert {name for name, _ in told} == set(whole["secrets"])

    def test_the_volume_of_minio_is_first_mounted_where_its_user_owns_the_folder(self, stack):
        first, minio = stack["services"]["minio-volume"], stack["services"]["minio"]

        assert minio["depends_on"]["minio-volume"] == {
            "condition": "service_completed_successfully"
        }
        assert first["image"] == stack["services"]["service"]["image"]
        assert first["volumes"] == minio["volumes"] == ["minio:/data"]
        dockerfile = (DEPLOY / "service.Dockerfile").read_text()
        assert "useradd --uid 10001" in dockerfile
        assert "install -d -o trce -g trce /data" in dockerfile
        assert minio["user"] == "10001:10001"

    def test_each_kind_of_job_has_a_worker_with_a_gpu(self, stack):
        for role in KINDS_OF_ROLE:
            service = stack["services"][role]
            (device,) = service["deploy"]["resources"]["reservations"]["devices"]
            assert service["command"] == [role]
            assert device["capabilities"] == ["gpu"]
            assert device["device_ids"] == [f"${{{role.upper()}_GPU:-0}}"], "a count is GPU 0"

    def test_the_override_for_cpus_drops_every_reservation(self, stack):
        override = read("deploy/compose.cpu.yml")["services"]

        reserving = {name for name, one in stack["services"].items() if "deploy" in one}
        assert {name for name, one in override.items() if one["deploy"] == "reset"} == reserving

    def test_a_host_with_two_cores_is_enough(self, stack):
        """Docker refuses a container more CPUs than there are."""
        for name, service in stack["services"].items():
            asked = re.fullmatch(r"(?:\$\{\w+:-)?(\d+)\}?", str(service.get("cpus", 1)))
            assert int(asked[1]) <= 2, name

    @pytest.mark.parametrize("store", ["s3", "minio"])
    def test_the_override_for_a_bucket_reaches_whoever_reads_or_fills_it(self, store):
        override = read(f"deploy/compose.{store}.yml")["services"]

        assert set(override) == OURS - {"redis"}
        for name, service in override.items():
            assert service["environment"]["TRCE_S3_BUCKET"], name
            assert service["secrets"] == ["trce_s3_secret_access_key"], name

    def test_whoever_uses_a_bucket_elsewhere_has_a_way_out(self):
        services = compose_command.merged(["docker-compose.yml", "deploy/compose.s3.yml"])
        for name in OURS - {"redis"}:
            assert set(services["services"][name]["networks"]) == {"inside", "outside"}, name
        assert services["services"]["redis"]["networks"] == ["inside"]

    def test_what_is_left_empty_for_a_bucket_elsewhere_stays_empty(self):
        """`:-` would put a default in its place: AWS has no address, a host's role no key."""
        given = read("deploy/compose.s3.yml")["services"]["service"]["environment"]

        assert given["TRCE_S3_ENDPOINT_URL"] == "${TRCE_S3_ENDPOINT_URL-}"
        assert given["TRCE_S3_ACCESS_KEY_ID"] == "${TRCE_S3_ACCESS_KEY_ID-}"
        assert given["TRCE_S3_BUCKET"].startswith("${TRCE_S3_BUCKET:?")

    def test_an_empty_secret_is_none(self, tmp_path):
        """As a file for the role of a host: Compose knows no optional ones."""
        (tmp_path / "trce_s3_secret_access_key").write_text("")

        settings = Settings(_env_file=None, _secrets_dir=tmp_path, s3_bucket="pictures")

        assert settings.s3_secret_access_key.get_secret_value() == ""

    def test_the_minio_beside_is_waited_for_and_known_by_name(self, stack):
        override = read("deploy/compose.minio.yml")["services"]
        minio = stack["services"]["minio"]

        assert override["setup"]["depends_on"] == {"minio": {"condition": "service_healthy"}}
        for service in override.values():
            given = service["environment"]
            assert given["TRCE_S3_ENDPOINT_URL"] == "http://minio:9000"
            assert given["TRCE_S3_ACCESS_KEY_ID"] == minio["environment"]["MINIO_ROOT_USER"]

    def test_what_must_be_there_before_is_waited_for(self, stack):
        for name in OURS - {"redis", "setup"}:
            waits = stack["services"][name]["depends_on"]
            assert waits["setup"] == {"condition": "service_completed_successfully"}, name

    def test_the_environment_names_settings_only(self, stack):
        services = {**stack["services"]}
        for file in OVERRIDES:
            services |= {f"{file}:{name}": one for name, one in read(file)["services"].items()}
        for name, service in services.items():
            if name.split(":")[-1] in OURS:
                given = set(service.get("environment", {})) - OF_LIBRARIES
                assert given <= SETTINGS, name

    def test_its_own_variables_are_known_where_names_are_checked(self):
        text = "".join((ROOT / name).read_text() for name in ("docker-compose.yml", *OVERRIDES))
        used = set(re.findall(r"\$\{(TRCE_[A-Z0-9_]+)", text))

        assert used <= SETTINGS | OTHERS | FOR_COMPOSE

    def test_every_line_of_the_env_file_reaches_what_reads_settings(self, stack):
        for name in OURS - {"redis"}:
            assert stack["services"][name]["env_file"] == [{"path": ".env", "required": False}]

    def test_what_only_the_containers_know_wins_over_the_env_file(self, stack):
        for name in OURS - {"redis"}:
            fixed = stack["services"][name]["environment"]
            assert fixed["REDIS_URL"] == "redis://redis:6379/0"
            assert fixed["TRCE_DATA_DIR"] == "/data"
            assert (fixed["TRCE_HOST"], fixed["TRCE_PORT"]) == ("0.0.0.0", "8000")

    @pytest.mark.parametrize(
        ("above", "profiles"),
        [
            pytest.param([], [], id="GPUs"),
            pytest.param(["cpu"], [], id="CPUs"),
            pytest.param(["compile"], [], id="compiled"),
            pytest.param(["s3"], [], id="another store"),
            pytest.param(["minio"], ["s3"], id="MinIO"),
            pytest.param(["s3", "hosts"], [], id="other hosts"),
            pytest.param([], ["monitoring", "alerts"], id="monitoring"),
        ],
    )
    def test_compose_accepts_the_files(self, above, profiles, tmp_path):
        files = ["docker-compose.yml", *(f"deploy/compose.{name}.yml" for name in above)]
        try:
            command = compose_command.compose("trce-test", files, tmp_path)
        except SystemExit as error:
            pytest.skip(str(error))
        command += [word for name in profiles for word in ("--profile", name)]
        env = os.environ | {"TRCE_S3_BUCKET": "pictures", "REDIS_BIND": "10.0.0.1"}
        done = subprocess.run(
            [*command, "config", "-q"],
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )

        assert done.returncode == 0, done.stderr

    def test_versions_are_pinned(self, stack):
        for name, service in stack["services"].items():
            image = re.sub(r"\$\{\w+:-([^}]+)\}", r"\1", service["image"])
            assert PINNED.search(image), name


class TestWhatAnInferenceWorkerSees:
    """Of the data volume only what it needs: docs/security.md says that it cannot sign a model."""

    READ_ONLY = frozenset({"keys/trusted", "keys/revoked", "keys/pictures"})

    @pytest.fixture
    def needed(self) -> set[str]:
        """Made by `trce setup`: a folder that is not there cannot be mounted."""
        settings = Settings(_env_file=None, data_dir=Path("/data"))
        return {str(one.relative_to("/data")) for one in folders_of_inference(settings)}

    def test_in_compose(self, stack, needed):
        mounted = stack["services"]["inference"]["volumes"]

        assert {one["volume"]["subpath"] for one in mounted} == needed
        for one in mounted:
            assert one["target"] == f"/data/{one['volume']['subpath']}"
            assert one.get("read_only", False) == (one["volume"]["subpath"] in self.READ_ONLY)

    def test_on_kubernetes(self, needed):
        (worker,) = pods()["inference"]["containers"]
        mounted = [one for one in worker["volumeMounts"] if one["name"] == "data"]

        assert {one["subPath"] for one in mounted} == needed
        for one in mounted:
            assert one["mountPath"] == f"/data/{one['subPath']}"
            assert one.get("readOnly", False) == (one["subPath"] in self.READ_ONLY)


def test_files_are_merged_for_an_old_compose(monkeypatch, tmp_path):
    """`!reset` drops a key, the environments of two files come together, `.env` may be missing."""
    (tmp_path / "deploy").mkdir()
    for name in ("docker-compose.yml", "deploy/compose.cpu.yml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    monkeypatch.setattr(compose_command, "ROOT", tmp_path)
    monkeypatch.setattr(compose_command, "_works", lambda _: False)
    monkeypatch.setattr(compose_command.shutil, "which", lambda _: "/bin/true")
    monkeypatch.setattr(compose_command, "_engine_folder", lambda: "/engine")

    files = ["docker-compose.yml", "deploy/compose.cpu.yml"]
    command = compose_command.compose("p", files, tmp_path)

    merged = json.loads(Path(command[-1]).read_text())
    inference = merged["services"]["inference"]
    assert "deploy" not in inference
    assert inference["environment"]["TRCE_DEVICE"] == "cpu"
    assert inference["environment"]["REDIS_URL"] == "redis://redis:6379/0"
    assert inference["env_file"] == []
    assert "/engine/volumes/p_data/_data/models:/data/models:rw" in inference["volumes"]
    assert (
        "/engine/volumes/p_data/_data/keys/trusted:/data/keys/trusted:ro" in inference["volumes"]
    )
    assert merged["services"]["trainer"]["volumes"] == ["data:/data"]
    assert "name" not in merged

    (tmp_path / ".env").write_text("TRCE_BATCH_ROWS=4\n")
    compose_command.compose("p", files, tmp_path)
    merged = json.loads(Path(command[-1]).read_text())
    assert merged["services"]["inference"]["env_file"] == [str(tmp_path / ".env")]


class TestKubernetes:
    def test_every_file_is_applied_and_the_one_for_keda_by_itself(self):
        listed = set(yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"])
        others = {"kustomization.yaml", "scaling.yaml", "ingress.yaml"}

        assert listed == {file.name for file in KUBERNETES.glob("*.yaml")} - others
        readme = (KUBERNETES / "README.md").read_text()
        assert "kubectl apply -f deploy/kubernetes/scaling.yaml" in readme
        assert "kubectl apply -f deploy/kubernetes/ingress.yaml" in readme

    @pytest.mark.parametrize("version", ["1.31.0", "1.35.0"])
    def test_every_object_is_as_kubernetes_has_it(self, version):
        """A key that is misspelt would be dropped on a cluster, with a warning at best."""
        kubernetes_validate = pytest.importorskip("kubernetes_validate")
        ours = [one for one in objects() if one["kind"] not in {"Kustomization", "ScaledObject"}]

        assert {"Deployment", "Ingress", "PodDisruptionBudget"} <= {one["kind"] for one in ours}
        for one in ours:
            kubernetes_validate.validate(one, version, strict=True)
            misspelt = one | {"sepc": {}}
            with pytest.raises(kubernetes_validate.ValidationError):
                kubernetes_validate.validate(misspelt, version, strict=True)

    def test_a_service_beside_them_gives_no_pod_settings(self):
        """Kubernetes would: TRCE_WEB_PORT and others, for one that is called trce-web."""
        given = {"TRCE_WEB_SERVICE_HOST": "10.0.0.1", "TRCE_WEB_PORT": "tcp://10.0.0.1:80"}
        assert check_names(given, ROOT / "none").state == "problem"

        for name, pod in pods().items():
            assert pod["enableServiceLinks"] is False, name

    def test_what_may_be_taken_away_at_a_time_is_bounded_where_there_may_be_several(self):
        budgets = {one["metadata"]["name"]: one["spec"] for one in objects("PodDisruptionBudget")}
        deployments = {one["metadata"]["name"]: one["spec"] for one in objects("Deployment")}

        assert set(budgets) == {"service", "inference"}
        for name, budget in budgets.items():
            assert budget["selector"] == deployments[name]["selector"]
            assert budget["maxUnavailable"] == 1, "of one pod, `minAvailable` would stop a drain"

    def test_the_ingress_leads_to_the_service_and_lets_its_bodies_through(self):
        (ingress,) = objects("Ingress")
        (rule,) = ingress["spec"]["rules"]
        (path,) = rule["http"]["paths"]
        services = {one["metadata"]["name"]: one["spec"]["ports"] for one in objects("Service")}
        backend = path["backend"]["service"]

        assert backend["port"]["name"] in {port["name"] for port in services[backend["name"]]}
        largest = ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-body-size"]
        assert int(largest.removesuffix("m")) << 20 == Settings(_env_file=None).max_picture_bytes

    def test_the_configuration_names_settings_only(self):
        (config,) = objects("ConfigMap")

        assert set(config["data"]) <= SETTINGS
        for pod in pods().values():
            for container in containers(pod):
                assert {one["name"] for one in container.get("env", [])} <= SETTINGS

    def test_the_settings_are_ones_that_a_process_starts_with(self, monkeypatch):
        (config,) = objects("ConfigMap")
        for name, value in config["data"].items():
            monkeypatch.setenv(name, value)

        settings = Settings(_env_file=None)
        assert settings.metrics_port == 9100
        assert settings.require_keys

    def test_every_object_says_what_it_is_and_stands_in_the_namespace(self):
        (space,) = objects("Namespace")
        named = [(one["kind"], one["metadata"]["name"]) for one in objects() if "metadata" in one]

        assert len(named) == len(set(named))
        for one in objects():
            assert one["apiVersion"], one
            if one["kind"] not in {"Namespace", "Kustomization"}:
                assert one["metadata"]["namespace"] == space["metadata"]["name"], one

    def test_every_container_is_bounded_and_hardened(self):
        for pod in pods().values():
            assert pod["securityContext"]["runAsNonRoot"]
            for container in containers(pod):
                assert container["securityContext"]["readOnlyRootFilesystem"]
                assert "memory" in container["resources"]["limits"]

    def test_what_is_mounted_is_there(self):
        """Volumes that a pod names, claims and configuration that this folder makes."""
        claims = {one["metadata"]["name"] for one in objects("PersistentVolumeClaim")}
        configs = {one["metadata"]["name"] for one in objects("ConfigMap")}
        templates = {
            claim["metadata"]["name"]
            for one in objects("StatefulSet")
            for claim in one["spec"]["volumeClaimTemplates"]
        }
        for name, pod in pods().items():
            volumes = {one["name"]: one for one in pod.get("volumes", [])}
            for container in containers(pod):
                mounted = {one["name"] for one in container["volumeMounts"]}
                assert mounted <= set(volumes) | (templates if name == "redis" else set())
                for source in container.get("envFrom", []):
                    assert source["configMapRef"]["name"] in configs
            for volume in volumes.values():
                if "persistentVolumeClaim" in volume:
                    assert volume["persistentVolumeClaim"]["claimName"] in claims

    def test_a_secret_that_somebody_else_makes_is_in_the_instructions(self):
        readme = (KUBERNETES / "README.md").read_text()
        for pod in pods().values():
            for volume in pod.get("volumes", []):
                if "secret" in volume:
                    assert volume["secret"]["secretName"] in readme

    def test_prometheus_is_told_of_every_pod_that_shows_metrics(self):
        for one in objects("Deployment"):
            told = one["spec"]["template"]["metadata"]["annotations"]
            assert told == {"prometheus.io/scrape": "true", "prometheus.io/port": "9100"}

    def test_trainers_are_scaled_by_every_kind_of_job_that_they_run(self):
        (query,) = [
            trigger["metadata"]["query"]
            for one in objects("ScaledObject")
            for trigger in one["spec"]["triggers"]
            if one["metadata"]["name"] == "trainer"
        ]
        (queues,) = re.findall(r'queue=~"([^"]*)"', query)

        assert set(queues.split("|")) == set(KINDS_OF_ROLE["trainer"])

    def test_services_lead_to_ports_that_pods_open(self):
        labelled = {
            one["metadata"]["name"]: one["spec"]["template"]
            for one in objects("Deployment", "StatefulSet")
        }
        for service in objects("Service"):
            wanted = service["spec"]["selector"]
            (template,) = [
                one
                for one in labelled.values()
                if wanted.items() <= one["metadata"]["labels"].items()
            ]
            opened = {
                port["containerPort"]
                for container in template["spec"]["containers"]
                for port in container["ports"]
            }
            assert {port["port"] for port in service["spec"]["ports"]} <= opened

    def test_probes_ask_what_is_answered(self):
        for pod in pods().values():
            for container in pod["containers"]:
                probes = [probe for name, probe in container.items() if name.endswith("Probe")]
                assert probes
                for probe in probes:
                    if "httpGet" in probe:
                        assert probe["httpGet"]["path"] in OPEN_TO_ALL
                        opened = [port["containerPort"] for port in container["ports"]]
                        assert probe["httpGet"]["port"] in opened
                    elif probe["exec"]["command"][0] == "python":
                        *_, module, role = probe["exec"]["command"]
                        assert find_spec(module)
                        assert [role] == container["args"]

    def test_a_first_run_has_an_endpoint_to_promote_a_model_by(self):
        """/readyz is 503 until a model is served."""
        (service,) = pods()["service"]["containers"]

        assert service["readinessProbe"]["httpGet"]["path"] == "/healthz"

    def test_images_are_pinned_and_those_of_ours_are_renamed_in_one_place(self):
        (kustomization,) = objects("Kustomization")
        renamed = {one["name"]: one["newTag"] for one in kustomization["images"]}
        used = {container["image"] for pod in pods().values() for container in containers(pod)}

        for image in used:
            name, tag = image.rsplit(":", 1)
            assert PINNED.search(image), image
            assert renamed.get(name, tag) == tag
        assert {image.rsplit(":", 1)[0] for image in used if "/" in image} == set(renamed)

    def test_selectors_find_their_pods_and_scalers_their_deployments(self):
        deployments = {one["metadata"]["name"]: one for one in objects("Deployment")}
        for one in deployments.values():
            wanted = one["spec"]["selector"]["matchLabels"]
            assert wanted.items() <= one["spec"]["template"]["metadata"]["labels"].items()
        scaled = {one["spec"]["scaleTargetRef"]["name"] for one in objects("ScaledObject")}
        assert scaled == set(KINDS_OF_ROLE)
        assert scaled <= set(deployments)
