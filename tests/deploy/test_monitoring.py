"""Dashboard, alerts and scalers ask Prometheus for what is shown, in sentences that hold together.

No Prometheus reads them here: what is checked is names, labels and their values against the code,
brackets, functions and durations. Whether an alert fires when it should is not.
"""

import json
import re
from pathlib import Path

import pytest
import yaml

from core.jobs import JobState
from core.queue import TASK_OF_KIND
from service.main import create_app
from worker.roles import KINDS_OF_ROLE

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
SOURCES = ("service/metrics.py", "worker/metrics.py", "core/disk_metrics.py")
DEFINED = re.compile(r'"(t2i_\w+)",\s*"[^"]*"(?:,\s*(?:labels=)?\[([^\]]*)\])?')
SUFFIXES = ("_total", "_bucket", "_sum", "_count")
OF_PROMETHEUS = {"le", "job", "instance"}
FUNCTIONS = {
    *(
        "sum",
        "max",
        "min",
        "count",
        "topk",
        "rate",
        "increase",
        "deriv",
        "absent",
        "histogram_quantile",
    ),
    *("by", "on", "and", "unless"),
}
VALUES = {
    "kind": {*TASK_OF_KIND},
    "queue": {*TASK_OF_KIND},
    "role": {*KINDS_OF_ROLE},
    "outcome": {state.value for state in JobState if state.ended},
}
SELECTED = re.compile(r"(\w+)\{([^}]*(?:\{\w+\}[^}\"']*)*[^}]*)\}")
MATCHER = re.compile(r"""(\w+)\s*=~?\s*["']([^"']*)["']""")


def labels_of_metrics() -> dict[str, set[str]]:
    """Every series that a service or a worker shows, by all of its names."""
    found: dict[str, set[str]] = {}
    for source in SOURCES:
        for name, labels in DEFINED.findall((ROOT / source).read_text()):
            names = set(re.findall(r'"(\w+)"', labels))
            bare = name.removesuffix("_total")
            for full in (name, bare, *(f"{bare}{suffix}" for suffix in SUFFIXES)):
                found.setdefault(full, set()).update(names)
    return found


def board() -> dict:
    return json.loads((DEPLOY / "grafana" / "dashboards" / "trce.json").read_text())


def alerts() -> list[dict]:
    (group,) = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    return group["rules"]


def expressions() -> list[str]:
    panels = [target["expr"] for panel in board()["panels"] for target in panel.get("targets", [])]
    scalers = [
        trigger["metadata"]["query"]
        for one in yaml.safe_load_all((DEPLOY / "kubernetes" / "scaling.yaml").read_text())
        for trigger in one["spec"]["triggers"]
    ]
    assert len(panels) > 10
    return [*panels, *(rule["expr"] for rule in alerts()), *scalers]


@pytest.fixture(scope="module")
def jobs_of_prometheus() -> set[str]:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    return {one["job_name"] for one in config["scrape_configs"]}


@pytest.mark.parametrize("expression", expressions())
class TestExpressions:
    def test_it_asks_for_what_is_shown(self, expression):
        assert set(re.findall(r"t2i_\w+", expression)) <= set(labels_of_metrics())

    def test_it_selects_by_labels_and_values_that_there_are(self, expression, jobs_of_prometheus):
        known, values = labels_of_metrics(), VALUES | {"job": jobs_of_prometheus}
        for metric, selector in SELECTED.findall(expression):
            for label, value in MATCHER.findall(selector):
                if metric == "up":
                    assert label == "job"
                else:
                    assert label in known[metric], metric
                if label in values:
                    assert set(value.split("|")) <= values[label], metric

    def test_it_groups_by_labels_that_there_are(self, expression):
        known = labels_of_metrics()
        asked = re.findall(r"t2i_\w+", expression)
        labels = OF_PROMETHEUS.union(*(known[name] for name in asked))
        for group in re.findall(r"\bby \(([^)]*)\)", expression):
            assert {label.strip() for label in group.split(",")} <= labels

    def test_it_holds_together(self, expression):
        bare = re.sub(r'"[^"]*"|\'[^\']*\'', "", expression)
        for opening, closing in ("()", "[]", "{}"):
            assert bare.count(opening) == bare.count(closing)
        assert set(re.findall(r"\b([a-z_]+) ?\(", bare)) <= FUNCTIONS
        for window in re.findall(r"\[([^\]]*)\]", bare):
            assert re.fullmatch(r"[1-9][0-9]*[smh]", window)
        for counted in re.findall(r"(?:rate|increase)\((\w+)", bare):
            assert counted.endswith(SUFFIXES), "only counters have a rate"


class TestAlerts:
    def test_each_has_a_name_a_patience_a_severity_and_a_fix(self):
        names = [rule["alert"] for rule in alerts()]

        assert len(set(names)) == len(names)
        for rule in alerts():
            assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}, rule
            assert re.fullmatch(r"[1-9][0-9]*[smh]", rule["for"]), rule["alert"]
            assert rule["labels"]["severity"] in {"page", "ticket"}, rule["alert"]
            assert rule["annotations"]["summary"].endswith("."), rule["alert"]
            assert rule["annotations"]["fix"], rule["alert"]

    def test_what_a_summary_names_is_a_label_of_its_expression(self):
        for rule in alerts():
            for label in re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]):
                assert re.search(rf"by \([^)]*\b{label}\b", rule["expr"]), rule["alert"]

    def test_routes_that_are_watched_are_routes(self):
        document = (ROOT / "docs" / "api.md").read_text()
        routes = [value for one in expressions() for value in re.findall(r'route="([^"]*)"', one)]

        assert routes
        for route in routes:
            assert f"GET {route}`" in document

    def test_the_rules_are_read(self):
        config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())

        assert config["rule_files"] == ["alerts.yml"]


class TestScraping:
    def test_every_process_shows_its_metrics_where_they_are_looked_for(self):
        compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
        config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())

        for one in config["scrape_configs"]:
            (place,) = one["dns_sd_configs"]
            (name,) = place["names"]
            shown = compose["services"][name]["environment"]
            assert str(place["port"]) == str(shown["TRCE_METRICS_PORT"]), name
            assert shown["TRCE_METRICS_HOST"] == "0.0.0.0", name


class TestDashboard:
    def test_it_is_the_one_that_its_script_writes(self, monkeypatch):
        monkeypatch.syspath_prepend(str(DEPLOY / "grafana"))
        import make_dashboard

        assert make_dashboard.dashboard() == board()

    def test_requests_that_sit_by_a_job_do_not_hide_those_that_are_slow(self, settings):
        (panel,) = [one for one in board()["panels"] if one["title"].startswith("Requests that")]
        expression = panel["targets"][0]["expr"]
        left_out = re.search(r"route!~'([^']+)'", expression)[1]
        paths = create_app(settings).openapi()["paths"]
        sitting = {path for path in paths if path.endswith("/events")}
        sitting |= {"/v1/images/generations", "/sdapi/v1/txt2img", "/hf/models/{model_id}"}

        assert len(sitting) >= 6
        assert {path for path in paths if re.fullmatch(left_out, path)} == sitting
        assert "waited='no'" in expression

    def test_every_panel_has_a_place_of_its_own(self):
        panels = board()["panels"]
        taken: set[tuple[int, int]] = set()
        for panel in panels:
            place = panel["gridPos"]
            cells = {
                (place["x"] + x, place["y"] + y)
                for x in range(place["w"])
                for y in range(place["h"])
            }
            assert not cells & taken, panel["title"]
            assert place["x"] + place["w"] <= 24, panel["title"]
            taken |= cells
        assert len({panel["id"] for panel in panels}) == len(panels)

    def test_what_a_legend_names_is_left_by_its_expression(self):
        known = labels_of_metrics()
        for panel in board()["panels"]:
            for target in panel.get("targets", []):
                expression = target["expr"]
                left = {
                    label.strip()
                    for group in re.findall(r"by \(([^)]*)\)", expression)
                    for label in group.split(",")
                } or (OF_PROMETHEUS | known[expression] if expression in known else set())
                named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
                assert named <= left, panel["title"]

    def test_it_reads_the_source_that_is_provided_and_lies_where_it_is_looked_for(self):
        provisioning = DEPLOY / "grafana" / "provisioning"
        (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())[
            "datasources"
        ]
        (provider,) = yaml.safe_load((provisioning / "dashboards" / "trce.yml").read_text())[
            "providers"
        ]
        grafana = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["grafana"]
        used = {
            target["datasource"]["uid"]
            for panel in board()["panels"]
            for target in panel.get("targets", [])
        }

        assert used == {source["uid"]}
        mounted = [volume.split(":")[1] for volume in grafana["volumes"]]
        assert provider["options"]["path"] in mounted


def test_names_are_described_for_operators():
    operations = (ROOT / "docs" / "operations.md").read_text()
    for source in SOURCES:
        for name in re.findall(r'"(t2i_\w+)"', (ROOT / source).read_text()):
            assert f"`{name}" in operations, name
