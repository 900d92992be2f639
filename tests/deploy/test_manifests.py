"""What is written for Docker Compose, Kubernetes, Prometheus and Grafana agrees with the code."""

import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from prometheus_client import REGISTRY

from core.checkup.names import FOR_COMPOSE, OTHERS
from core.settings import Settings
from worker import metrics  # noqa: F401  (registers what a worker shows)
from worker.roles import KINDS_OF_ROLE

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
ROOT = DEPLOY.parent
KUBERNETES = DEPLOY / "kubernetes"
SETTINGS = {f"TRCE_{name.upper()}" for name in Settings.model_fields} | {"REDIS_URL"}
OURS = {"redis", "setup", "service", "inference", "trainer"}


class Loader(yaml.SafeLoader):
    pass


Loader.add_constructor("!reset", lambda *_: "reset")


def read(name: str) -> dict:
    return yaml.load((ROOT / name).read_text(), Loader=Loader)


@pytest.fixture(scope="module")
def stack() -> dict:
    return read("docker-compose.yml")


def objects() -> list[dict]:
    files = sorted(KUBERNETES.glob("*.yaml"))
    return [one for file in files for one in yaml.safe_load_all(file.read_text())]


class TestCompose:
    def test_it_has_a_name_that_no_folder_changes(self, stack):
        assert stack["name"] == "trce"

    def test_every_service_is_bounded_and_hardened(self, stack):
        for name, service in stack["services"].items():
            assert service["read_only"], name
            assert service["init"], name
            assert service["cap_drop"] == ["ALL"], name
            assert service["mem_limit"], name
            assert service["pids_limit"], name
            assert service["restart"] == ("no" if name == "setup" else "unless-stopped")

    def test_each_kind_of_job_has_a_worker_with_a_gpu(self, stack):
        for role in KINDS_OF_ROLE:
            service = stack["services"][role]
            (device,) = service["deploy"]["resources"]["reservations"]["devices"]
            assert service["command"] == [role]
            assert device["capabilities"] == ["gpu"]

    def test_the_override_for_cpus_drops_every_reservation(self, stack):
        override = read("deploy/compose.cpu.yml")["services"]

        reserving = {name for name, one in stack["services"].items() if "deploy" in one}
        assert {name for name, one in override.items() if one["deploy"] == "reset"} == reserving

    def test_what_must_be_there_before_is_waited_for(self, stack):
        for name in OURS - {"redis", "setup"}:
            waits = stack["services"][name]["depends_on"]
            assert waits["setup"] == {"condition": "service_completed_successfully"}, name

    def test_the_environment_names_settings_only(self, stack):
        services = {**stack["services"]}
        for file in ("deploy/compose.cpu.yml", "deploy/compose.s3.yml"):
            services |= {f"{file}:{name}": one for name, one in read(file)["services"].items()}
        for name, service in services.items():
            if name.split(":")[-1] in OURS:
                given = set(service.get("environment", {})) - {"OMP_NUM_THREADS"}
                assert given <= SETTINGS, name

    def test_its_own_variables_are_known_where_names_are_checked(self):
        text = "".join(
            (ROOT / name).read_text()
            for name in ("docker-compose.yml", "deploy/compose.cpu.yml", "deploy/compose.s3.yml")
        )
        used = set(re.findall(r"\$\{(TRCE_[A-Z0-9_]+)", text))

        assert used <= SETTINGS | OTHERS | FOR_COMPOSE

    def test_versions_are_pinned(self, stack):
        for name, service in stack["services"].items():
            image = service["image"]
            assert ":" in image, name
            assert "latest" not in image, name


def test_files_are_merged_for_an_old_compose(monkeypatch, tmp_path):
    """`!reset` drops a key; the environments of two files come together."""
    monkeypatch.syspath_prepend(str(DEPLOY))
    import compose_command

    monkeypatch.setattr(compose_command, "_works", lambda _: False)
    monkeypatch.setattr(compose_command.shutil, "which", lambda _: "/bin/true")

    files = ["docker-compose.yml", "deploy/compose.cpu.yml"]
    command = compose_command.compose("p", files, tmp_path)

    merged = json.loads(Path(command[-1]).read_text())
    inference = merged["services"]["inference"]
    assert "deploy" not in inference
    assert inference["environment"]["TRCE_DEVICE"] == "cpu"
    assert inference["environment"]["REDIS_URL"] == "redis://redis:6379/0"
    assert "name" not in merged
    del sys.modules["compose_command"]


class TestKubernetes:
    def test_every_file_is_applied(self):
        listed = set(yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"])

        assert listed == {file.name for file in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}

    def test_the_configuration_names_settings_only(self):
        (config,) = [one for one in objects() if one["kind"] == "ConfigMap"]

        assert set(config["data"]) <= SETTINGS

    def test_every_container_is_bounded_and_hardened(self):
        for one in objects():
            if one["kind"] not in {"Deployment", "StatefulSet"}:
                continue
            pod = one["spec"]["template"]["spec"]
            assert pod["securityContext"]["runAsNonRoot"]
            for container in [*pod["containers"], *pod.get("initContainers", [])]:
                assert container["securityContext"]["readOnlyRootFilesystem"]
                assert "memory" in container["resources"]["limits"]

    def test_selectors_find_their_pods_and_scalers_their_deployments(self):
        every = objects()
        deployments = {
            one["metadata"]["name"]: one for one in every if one["kind"] == "Deployment"
        }
        for one in deployments.values():
            wanted = one["spec"]["selector"]["matchLabels"]
            assert wanted.items() <= one["spec"]["template"]["metadata"]["labels"].items()
        scaled = {
            one["spec"]["scaleTargetRef"]["name"] for one in every if one["kind"] == "ScaledObject"
        }
        assert scaled == set(KINDS_OF_ROLE)
        assert scaled <= set(deployments)


class TestMonitoring:
    @pytest.fixture
    def shown(self) -> set[str]:
        """Every name that a service or a worker shows."""
        source = (ROOT / "service" / "metrics.py").read_text()
        names = set(re.findall(r'"(t2i_\w+)"', source))
        for family in REGISTRY.collect():
            names.add(family.name)
        full = set()
        for name in names:
            full |= {name, f"{name}_total", f"{name}_bucket", f"{name}_sum", f"{name}_count"}
        return full

    def test_every_panel_asks_for_what_is_shown(self, shown):
        board = json.loads((DEPLOY / "grafana" / "dashboards" / "trce.json").read_text())
        asked = [
            target["expr"] for panel in board["panels"] for target in panel.get("targets", [])
        ]

        assert len(asked) > 10
        for expression in asked:
            assert set(re.findall(r"t2i_\w+", expression)) <= shown, expression

    def test_every_alert_asks_for_what_is_shown_and_names_a_fix(self, shown):
        (group,) = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]

        for rule in group["rules"]:
            assert set(re.findall(r"t2i_\w+", rule["expr"])) <= shown, rule["alert"]
            assert rule["annotations"]["fix"]

    def test_the_dashboard_is_the_one_that_its_script_writes(self, monkeypatch):
        monkeypatch.syspath_prepend(str(DEPLOY / "grafana"))
        import make_dashboard

        written = json.loads((DEPLOY / "grafana" / "dashboards" / "trce.json").read_text())
        assert make_dashboard.dashboard() == written

    def test_names_are_described_for_operators(self):
        operations = (ROOT / "docs" / "operations.md").read_text()
        source = (ROOT / "service" / "metrics.py").read_text()
        source += (ROOT / "worker" / "metrics.py").read_text()

        for name in re.findall(r'"(t2i_\w+)"', source):
            assert f"`{name}" in operations, name
