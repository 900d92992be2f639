"""Each alert fires when it should, and only then, as Prometheus itself decides."""

import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
PROMTOOL = shutil.which("promtool")
AMTOOL = shutil.which("amtool")
RULES = DEPLOY / "prometheus" / "alerts.yml"
ALERTMANAGER = DEPLOY / "alertmanager" / "alertmanager.yml"
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
needs_amtool = pytest.mark.skipif(AMTOOL is None, reason="amtool is not installed")

GIB = 2**30
USED, MAX = 't2i_redis_memory_bytes{state="used"}', 't2i_redis_memory_bytes{state="max"}'
FREE = 't2i_data_disk_bytes{job="trainer", instance="a:9100", state="free"}'
SIZE = 't2i_data_disk_bytes{job="trainer", instance="a:9100", state="size"}'
WAITING = 't2i_queue_depth{queue="%s", priority="1", instance="%s"}'
WAIT = 't2i_queue_wait_seconds_bucket{kind="generation", le="%s"}'
JOBS = 't2i_jobs_total{kind="generation", outcome="%s", instance="%s"}'
REQUESTS = 't2i_http_requests_total{route="%s", code="%s"}'
NOT_STORED = 't2i_pictures_not_stored_total{instance="%s"}'
DEFAULT = 't2i_default_model_served{model="%s", instance="%s"}'
READING = (
    't2i_http_request_duration_seconds_bucket{route="/v1/generations/{generation_id}", le="%s"}'
)


@dataclass(frozen=True)
class Case:
    """Series and what they are each minute of half an hour, at whose end is looked."""

    alert: str
    why: str
    series: dict[str, str]
    fires: bool = True
    labels: dict[str, str] = field(default_factory=dict)
    """Of the alert, beside its severity."""


def still(value: float) -> str:
    return f"{value:.0f}x30"


def growing(by: float, start: float = 0) -> str:
    return f"{start:.0f}{by:+.0f}x30"


A_TRAINER = {"job": "trainer", "instance": "a:9100"}
CASES = [
    Case(
        "ServiceDown",
        "the only one is down",
        {'up{job="service", instance="a"}': still(0)},
    ),
    Case("ServiceDown", "none is known", {'up{job="inference", instance="a"}': still(1)}),
    Case(
        "ServiceDown",
        "one of two answers",
        {
            'up{job="service", instance="a"}': still(0),
            'up{job="service", instance="b"}': still(1),
        },
        fires=False,
    ),
    Case("RedisDown", "nobody reaches it", {'t2i_redis_up{instance="a"}': still(0)}),
    Case(
        "RedisDown",
        "one of two reaches it",
        {'t2i_redis_up{instance="a"}': still(0), 't2i_redis_up{instance="b"}': still(1)},
        fires=False,
    ),
    Case("RedisFills", "four fifths", {USED: still(800), MAX: still(1000)}),
    Case("RedisFills", "seven tenths", {USED: still(700), MAX: still(1000)}, fires=False),
    Case("RedisFills", "there is no bound", {USED: still(10**12)}, fires=False),
    Case("RedisFull", "nineteen twentieths", {USED: still(950), MAX: still(1000)}),
    Case("RedisFull", "four fifths", {USED: still(800), MAX: still(1000)}, fires=False),
    Case(
        "DataDiskFills",
        "a twentieth is left",
        {FREE: still(5 * GIB), SIZE: still(100 * GIB)},
        labels=A_TRAINER,
    ),
    Case(
        "DataDiskFills",
        "a fifth is left",
        {FREE: still(20 * GIB), SIZE: still(100 * GIB)},
        fires=False,
    ),
    Case("DataDiskFull", "half a GiB is left", {FREE: still(GIB / 2)}, labels=A_TRAINER),
    Case("DataDiskFull", "two GiB are left", {FREE: still(2 * GIB)}, fires=False),
    Case(
        "PicturesNotStored",
        "by one of two workers",
        {NOT_STORED % "a:9100": growing(2), NOT_STORED % "b:9100": still(0)},
        labels={"instance": "a:9100"},
    ),
    Case(
        "PicturesNotStored",
        "twice, and then no more",
        {NOT_STORED % "a:9100": "0 1 2 2x27"},
        fires=False,
    ),
    Case("NoInferenceWorker", "none has beaten", {"t2i_redis_up": still(1)}),
    Case(
        "NoInferenceWorker",
        "only a trainer beats",
        {"t2i_redis_up": still(1), 't2i_worker_up{role="trainer", worker="t"}': still(1)},
    ),
    Case(
        "NoInferenceWorker",
        "one of two beats",
        {
            "t2i_redis_up": still(1),
            't2i_worker_up{role="inference", worker="a"}': still(1),
            't2i_worker_up{role="inference", worker="b"}': still(0),
        },
        fires=False,
    ),
    Case("NoInferenceWorker", "nobody can know", {"t2i_redis_up": still(0)}, fires=False),
    Case("NoTrainer", "an erasure waits", {WAITING % ("erasure", "a"): still(1)}),
    Case(
        "NoTrainer",
        "a trainer beats",
        {
            WAITING % ("erasure", "a"): still(1),
            't2i_worker_up{role="trainer", worker="t"}': still(1),
        },
        fires=False,
    ),
    Case("NoTrainer", "nothing waits", {WAITING % ("erasure", "a"): still(0)}, fires=False),
    Case("QueueGrows", "ten more a minute", {WAITING % ("generation", "a"): growing(10, 300)}),
    Case(
        "QueueGrows",
        "ten fewer a minute",
        {WAITING % ("generation", "a"): growing(-10, 900)},
        fires=False,
    ),
    Case(
        "QueueGrows",
        "two services tell of the same few",
        {WAITING % ("generation", one): growing(5, 0) for one in "ab"},
        fires=False,
    ),
    Case(
        "LongWait",
        "a minute",
        {WAIT % "30": still(0)} | dict.fromkeys([WAIT % "60", WAIT % "+Inf"], growing(60)),
    ),
    Case(
        "LongWait",
        "a second",
        dict.fromkeys([WAIT % "1", WAIT % "+Inf"], growing(60)),
        fires=False,
    ),
    Case(
        "JobsFail",
        "one in five",
        {JOBS % ("failed", "a"): growing(5), JOBS % ("succeeded", "a"): growing(20)},
    ),
    Case(
        "JobsFail",
        "one in a hundred",
        {JOBS % ("failed", "a"): growing(1), JOBS % ("succeeded", "a"): growing(99)},
        fires=False,
    ),
    Case(
        "ServerErrors",
        "one in ten",
        {
            REQUESTS % ("/v1/models", "500"): growing(60),
            REQUESTS % ("/v1/models", "200"): growing(540),
        },
    ),
    Case(
        "ServerErrors",
        "only whoever asks whether it is ready",
        {
            REQUESTS % ("/readyz", "503"): growing(60),
            REQUESTS % ("/v1/models", "200"): growing(60),
        },
        fires=False,
    ),
    Case(
        "SlowRequests",
        "half a second",
        {READING % "0.25": still(0)}
        | dict.fromkeys([READING % "0.5", READING % "+Inf"], growing(60)),
    ),
    Case(
        "SlowRequests",
        "a tenth",
        dict.fromkeys([READING % "0.1", READING % "+Inf"], growing(60)),
        fires=False,
    ),
    Case("NothingServed", "no model", {"t2i_redis_up": still(1)}),
    Case(
        "NothingServed",
        "one model",
        {"t2i_redis_up": still(1), 't2i_model_served{model="m"}': still(1)},
        fires=False,
    ),
    Case("NothingServed", "nobody can know", {"t2i_redis_up": still(0)}, fires=False),
    Case(
        "DefaultNotServed",
        "another model is served",
        {DEFAULT % ("gone", "a"): still(0), 't2i_model_served{model="m"}': still(1)},
        labels={"model": "gone"},
    ),
    Case(
        "DefaultNotServed",
        "one of two services has it",
        {
            DEFAULT % ("m", "a"): still(0),
            DEFAULT % ("m", "b"): still(1),
            't2i_model_served{model="m"}': still(1),
        },
        fires=False,
    ),
    Case(
        "DefaultNotServed",
        "nothing is served, which another alert says",
        {DEFAULT % ("gone", "a"): still(0), "t2i_redis_up": still(1)},
        fires=False,
    ),
    Case(
        "ModelRefused",
        "by one of two services",
        {
            't2i_model_refused{model="m", instance="a"}': still(1),
            't2i_model_refused{model="m", instance="b"}': still(0),
        },
        labels={"model": "m"},
    ),
    Case("ModelRefused", "well again", {'t2i_model_refused{model="m"}': still(0)}, fires=False),
]


@pytest.fixture(scope="module")
def rules() -> dict[str, dict]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def run(*command: str | Path | None) -> str:
    done = subprocess.run(list(command), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def told(rule: dict, labels: dict[str, str]) -> dict:
    """The alert, with its labels in its words."""
    words = {
        name: re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels[found[1]], text)
        for name, text in rule["annotations"].items()
    }
    return {"exp_labels": rule["labels"] | labels, "exp_annotations": words}


@pytest.fixture
def alertmanager(tmp_path) -> Path:
    """Its configuration, with the secret's file as an address for versions before 0.26."""
    text = ALERTMANAGER.read_text()
    version = re.search(r"version (\d+)\.(\d+)", run(AMTOOL, "--version"))
    if version and tuple(map(int, version.groups())) < (0, 26):
        text = text.replace("- url_file: /run/secrets/", "- url: http://alerts.example.org/")
    path = tmp_path / "alertmanager.yml"
    path.write_text(text)
    return path


@needs_promtool
def test_prometheus_takes_its_configuration_and_the_rules():
    assert "SUCCESS" in run(PROMTOOL, "check", "config", DEPLOY / "prometheus" / "prometheus.yml")


def test_every_alert_is_tried_both_ways(rules):
    assert {one.alert for one in CASES if one.fires} == set(rules)
    assert {one.alert for one in CASES if not one.fires} == set(rules)


@needs_promtool
@pytest.mark.parametrize(
    "case",
    CASES,
    ids=lambda one: f"{one.alert} {'fires' if one.fires else 'is silent'}: {one.why}",
)
def test_it_fires_when_it_should_and_is_silent_when_it_should_be(case, rules, tmp_path):
    looked_at = {
        "eval_time": "30m",
        "alertname": case.alert,
        "exp_alerts": [told(rules[case.alert], case.labels)] if case.fires else [],
    }
    series = [{"series": name, "values": values} for name, values in case.series.items()]
    whole = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": series, "alert_rule_test": [looked_at]}],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(whole))

    assert "SUCCESS" in run(PROMTOOL, "test", "rules", tmp_path / "test.yml")


@needs_amtool
def test_alertmanager_takes_its_configuration(alertmanager):
    assert "SUCCESS" in run(AMTOOL, "check-config", alertmanager)


@needs_amtool
@pytest.mark.parametrize("severity", ["page", "ticket"])
def test_alertmanager_tells_the_operators(severity, alertmanager):
    command = [AMTOOL, "config", "routes", "test", f"--config.file={alertmanager}"]

    assert run(*command, f"severity={severity}").split() == ["operators"]
