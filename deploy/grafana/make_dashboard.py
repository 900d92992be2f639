"""Writes dashboards/trce.json: eight questions, a row of panels for each."""

import json
from pathlib import Path
from typing import Any

OUT = Path(__file__).parent / "dashboards" / "trce.json"
WAIT = "sum by (le) (rate(t2i_queue_wait_seconds_bucket{kind='generation'}[5m]))"
STEP = "sum by (le, shape) (rate(t2i_denoise_step_seconds_bucket[5m]))"
SITTING = ".*/events|/v1/images/generations|/sdapi/v1/txt2img|/hf/models/.*"
"""Routes that last as long as a job, or its client, does: how long says nothing of the service. So
it is with requests that prefer to wait, on whichever route."""
REQUEST = (
    "sum by (le, route) "
    f"(rate(t2i_http_request_duration_seconds_bucket{{route!~'{SITTING}', waited='no'}}[5m]))"
)
LOADING = (
    "sum by (kind) (rate(t2i_model_swap_seconds_sum[15m]))"
    " / sum by (kind) (rate(t2i_model_swap_seconds_count[15m]))"
)

# Question -> panels: title, kind, unit, (expression, legend) ...
ROWS: dict[str, list[tuple[str, str, str, list[tuple[str, str]]]]] = {
    "Is it healthy?": [
        ("Redis", "stat", "bool_yes_no", [("max(t2i_redis_up)", "answers")]),
        (
            "Workers",
            "stat",
            "none",
            [("count by (role) (max by (role, worker) (t2i_worker_up))", "{{role}}")],
        ),
        (
            "Requests",
            "timeseries",
            "reqps",
            [("sum by (code) (rate(t2i_http_requests_total[1m]))", "{{code}}")],
        ),
        (
            "Jobs ended",
            "timeseries",
            "ops",
            [
                (
                    "sum by (kind, outcome) (max by (kind, outcome) (rate(t2i_jobs_total[5m])))",
                    "{{kind}} {{outcome}}",
                )
            ],
        ),
    ],
    "What waits?": [
        (
            "Jobs in the queues",
            "timeseries",
            "none",
            [("max by (queue, priority) (t2i_queue_depth)", "{{queue}}, priority {{priority}}")],
        ),
        (
            "Wait of generations",
            "timeseries",
            "s",
            [(f"histogram_quantile({q}, {WAIT})", f"p{int(q * 100)}") for q in (0.5, 0.95)],
        ),
        (
            "Erasure that runs",
            "timeseries",
            "percentunit",
            [("max by (stage) (t2i_erasure_progress_ratio)", "{{stage}}")],
        ),
    ],
    "What is slow?": [
        (
            "Denoising step, p95",
            "timeseries",
            "s",
            [(f"histogram_quantile(0.95, {STEP})", "{{shape}}")],
        ),
        (
            "Pictures in a batch",
            "timeseries",
            "none",
            [
                (
                    "sum(rate(t2i_batch_size_sum[5m])) / sum(rate(t2i_batch_size_count[5m]))",
                    "mean",
                ),
                ("max(t2i_batch_limit)", "at most"),
            ],
        ),
        (
            "Requests that wait for no picture, p95",
            "timeseries",
            "s",
            [(f"topk(8, histogram_quantile(0.95, {REQUEST}))", "{{route}}")],
        ),
        (
            "Loading of models, mean",
            "timeseries",
            "s",
            [
                (
                    LOADING,
                    "{{kind}}",
                )
            ],
        ),
    ],
    "What is full?": [
        (
            "Device in use, share of time",
            "timeseries",
            "percentunit",
            [("sum by (instance) (rate(t2i_device_busy_seconds_total[5m]))", "{{instance}}")],
        ),
        (
            "At what",
            "timeseries",
            "percentunit",
            [("sum by (work) (rate(t2i_device_busy_seconds_total[5m]))", "{{work}}")],
        ),
        (
            "GPU utilisation, by its driver",
            "timeseries",
            "percentunit",
            [("t2i_gpu_utilisation_ratio", "{{instance}} {{gpu}}")],
        ),
        (
            "GPU memory",
            "timeseries",
            "bytes",
            [("t2i_gpu_memory_bytes", "{{instance}} {{state}}")],
        ),
    ],
    "What fills up?": [
        (
            "Memory of Redis, of its maxmemory",
            "timeseries",
            "percentunit",
            [
                (
                    "max(t2i_redis_memory_bytes{state='used'})"
                    " / max(t2i_redis_memory_bytes{state='max'})",
                    "used",
                )
            ],
        ),
        (
            "Memory of Redis",
            "timeseries",
            "bytes",
            [("max by (state) (t2i_redis_memory_bytes)", "{{state}}")],
        ),
        (
            "Free below the data folder",
            "timeseries",
            "bytes",
            [
                (
                    "min by (job, instance) (t2i_data_disk_bytes{state='free'})",
                    "{{job}} {{instance}}",
                )
            ],
        ),
    ],
    "What was blocked?": [
        (
            "Blocked, by stage and category",
            "timeseries",
            "none",
            [
                (
                    "sum by (stage, category) (increase(t2i_safety_blocks_total[1h]))",
                    "{{stage}}: {{category}}",
                )
            ],
        ),
        (
            "Pictures, by outcome",
            "timeseries",
            "ops",
            [("sum by (outcome) (rate(t2i_images_total[5m]))", "{{outcome}}")],
        ),
    ],
    "Which model serves?": [
        ("Served models", "table", "none", [("max by (model) (t2i_model_served)", "{{model}}")]),
        (
            "What `default` means, and whether it is served",
            "stat",
            "bool_yes_no",
            [("max by (model) (t2i_default_model_served)", "{{model}}")],
        ),
    ],
}
WIDTH, HEIGHT = 24, 7


def dashboard() -> dict[str, Any]:
    panels: list[dict[str, Any]] = []
    y = 0
    for question, row in ROWS.items():
        panels.append({"type": "row", "title": question, "gridPos": _place(0, y, WIDTH, 1)})
        width = WIDTH // len(row)
        panels += [
            _panel(one, _place(x * width, y + 1, width, HEIGHT)) for x, one in enumerate(row)
        ]
        y += HEIGHT + 1
    for number, panel in enumerate(panels, 1):
        panel["id"] = number
    return {
        "uid": "trce",
        "title": "TRCE service",
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "panels": panels,
    }


def _panel(
    described: tuple[str, str, str, list[tuple[str, str]]], place: dict[str, int]
) -> dict[str, Any]:
    title, kind, unit, queries = described
    source = {"type": "prometheus", "uid": "prometheus"}
    return {
        "type": kind,
        "title": title,
        "datasource": source,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": source,
                "expr": expression,
                "legendFormat": legend,
                "instant": kind != "timeseries",
                "format": "table" if kind == "table" else "time_series",
            }
            for number, (expression, legend) in enumerate(queries)
        ],
    }


def _place(x: int, y: int, w: int, h: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": w, "h": h}


if __name__ == "__main__":
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(dashboard(), indent=1) + "\n")
