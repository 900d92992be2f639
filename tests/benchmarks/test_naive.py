"""The server that ours is compared with is as fast as it can be."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from benchmarks.serving import load, naive, throughput
from benchmarks.serving.load import Answer, Run
from benchmarks.serving.workload import MEAN_STEPS, orders


def test_all_pictures_are_drawn_in_one_thread(monkeypatch):
    drawn_in = []

    def draw(pipeline, order):
        drawn_in.append((threading.get_ident(), order.steps))
        threading.Event().wait(0.02)
        return Image.new("RGB", (8, 8))

    monkeypatch.setattr(naive, "load_pipeline", lambda: None)
    monkeypatch.setattr(naive, "draw", draw)
    ahead = orders(seed=1)
    bodies = [next(ahead).body for _ in range(12)]
    with TestClient(naive.create_app()) as client, ThreadPoolExecutor(6) as callers:
        answers = list(callers.map(lambda body: client.post("/", json=body), bodies))

    assert all(answer.content.startswith(load.PNG) for answer in answers)
    assert len({thread for thread, _ in drawn_in}) == 1
    asked = [body["parameters"]["num_inference_steps"] for body in bodies]
    assert sorted(steps for _, steps in drawn_in) == sorted(asked)


def test_a_server_is_tried_with_one_thread_and_with_all_cores(monkeypatch):
    """Under load, each as often as the other, and both are stopped."""
    running, loaded = set(), []

    @contextmanager
    def running_server(module, *, threads):
        running.add(threads)
        yield f"http://{module}/{threads}"
        running.remove(threads)

    def run(urls, **_):
        [url] = urls
        loaded.append(url)
        steps = 10 * len(loaded) if url.endswith("/1") else 30
        return Run([Answer(steps, began, began + 1) for began in (0.0, 1.0)], 1.0, 2.0)

    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(throughput, "running_server", running_server)
    monkeypatch.setattr(load, "run", run)

    speeds = throughput.speeds_by_threads("naive")

    assert loaded == ["http://naive/1", "http://naive/4"] * throughput.PROBES
    assert speeds == pytest.approx({1: 20 / MEAN_STEPS, 4: 30 / MEAN_STEPS})
    assert not running
