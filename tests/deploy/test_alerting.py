"""Whoever is to be told of an alert is told: rules, Prometheus, Alertmanager and Compose agree."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
SECRET = re.compile(r"/run/secrets/(\w+)")


def read(path: Path) -> dict:
    return yaml.safe_load(path.read_text())


@pytest.fixture(scope="module")
def alertmanager() -> dict:
    return read(DEPLOY / "alertmanager" / "alertmanager.yml")


@pytest.fixture(scope="module")
def stack() -> dict:
    return read(ROOT / "docker-compose.yml")


@pytest.fixture(scope="module")
def rules() -> dict[str, dict]:
    (group,) = read(DEPLOY / "prometheus" / "alerts.yml")["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def routes(route: dict) -> list[dict]:
    return [route, *(below for one in route.get("routes", []) for below in routes(one))]


def test_every_route_leads_to_somebody(alertmanager):
    receivers = {one["name"] for one in alertmanager["receivers"]}

    assert alertmanager["route"]["receiver"] in receivers
    assert {one["receiver"] for one in routes(alertmanager["route"])} == receivers
    for one in alertmanager["receivers"]:
        assert [key for key in one if key.endswith("_configs")], one["name"]


def test_routes_and_inhibitions_match_alerts_that_there_are(alertmanager, rules):
    matchers = [
        matcher for one in routes(alertmanager["route"]) for matcher in one.get("matchers", [])
    ]
    for rule in alertmanager["inhibit_rules"]:
        matchers += [*rule["source_matchers"], *rule["target_matchers"]]
    known = {
        "alertname": set(rules),
        "severity": {rule["labels"]["severity"] for rule in rules.values()},
    }
    for matcher in matchers:
        label, value = re.fullmatch(r'(\w+)="([^"]+)"', matcher).groups()
        assert value in known[label], matcher


def test_what_is_to_be_equal_is_a_label_of_both(alertmanager, rules):
    for one in alertmanager["inhibit_rules"]:
        for label in one.get("equal", []):
            for matcher in (*one["source_matchers"], *one["target_matchers"]):
                name = matcher.split('"')[1]
                assert re.search(rf"by \([^)]*\b{label}\b", rules[name]["expr"]), name


def test_prometheus_looks_where_compose_puts_it(stack):
    (place,) = read(DEPLOY / "prometheus" / "prometheus.yml")["alerting"]["alertmanagers"]
    (found,) = place["dns_sd_configs"]
    service = stack["services"]["alertmanager"]

    assert found["names"] == ["alertmanager"]
    assert found["port"] == 9093, "where Alertmanager listens unless it is told otherwise"
    assert set(stack["services"]["prometheus"]["networks"]) & set(service["networks"])


def test_it_can_reach_the_world_and_reads_what_is_mounted(stack, alertmanager):
    service = stack["services"]["alertmanager"]
    assert not (stack["networks"]["outside"] or {}).get("internal")
    assert "outside" in service["networks"]

    used = set(SECRET.findall(yaml.safe_dump(alertmanager)))
    assert used == set(service["secrets"]) <= set(stack["secrets"])
    config = service["command"][0].removeprefix("--config.file=")
    assert f"./deploy/alertmanager:{Path(config).parent}:ro" in service["volumes"]
    assert (DEPLOY / "alertmanager" / Path(config).name).is_file()


def test_every_alert_is_explained_to_operators(rules):
    operations = (ROOT / "docs" / "operations.md").read_text()
    _, _, section = operations.partition("**Who is told.**")
    table = section.partition("**Traces**")[0]
    lines = [line.split("|") for line in table.splitlines() if line.count("|") == 4]
    told = {name.strip(): one[2].strip() for one in lines for name in one[1].split(",")}

    assert {name: told.get(name) for name in rules} == {
        name: rule["labels"]["severity"] for name, rule in rules.items()
    }


def test_the_profile_is_one_that_operators_are_told_of(stack):
    (profile,) = stack["services"]["alertmanager"]["profiles"]
    operations = (ROOT / "docs" / "operations.md").read_text()

    assert f"--profile monitoring --profile {profile} up" in operations
