"""Nothing accepted is lost, and nothing is left behind, however processes end."""

import subprocess
import sys

import psutil
import pytest

pytestmark = pytest.mark.stack


def all_succeed(stack, paths: list[str]) -> bool:
    return all(stack.ended(path)["state"] == "succeeded" for path in paths)


def test_killed_pool_children_lose_nothing(stack):
    paths = [stack.generate(seed=seed) for seed in range(12)]
    stack.wait_until(lambda: stack.http.get(paths[0]).json()["state"] == "running", 30)
    children = stack.pool_children()
    assert len(children) == 2
    for child in children:
        child.kill()

    assert all_succeed(stack, paths)
    assert max(stack.http.get(path).json()["attempt"] for path in paths) == 2


def test_killed_workers_lose_nothing(stack):
    paths = [stack.generate(seed=seed) for seed in range(12)]
    stack.wait_until(lambda: stack.http.get(paths[0]).json()["state"] == "running", 30)
    workers = stack.members("worker inference")
    assert len(workers) == 2
    for worker in workers:
        worker.kill()

    assert all_succeed(stack, paths)
    assert max(stack.http.get(path).json()["attempt"] for path in paths) == 2


def test_a_killed_broker_loses_nothing(stack):
    paths = [stack.generate(seed=seed) for seed in range(12)]
    (broker,) = stack.members("unixsocket:")
    broker.kill()
    stack.wait_until(lambda: stack.http.get("/readyz").status_code == 200, 60)

    assert all_succeed(stack, paths)


def test_a_killed_service_comes_back(stack):
    path = stack.generate()
    (service,) = stack.members("-m service")
    service.kill()

    assert all_succeed(stack, [path])


def test_a_killed_trainer_worker_loses_no_erasure(stack):
    path = stack.erase_axes()
    stack.wait_until(lambda: stack.http.get(path).json()["state"] == "running", 30)
    (worker,) = stack.members("worker trainer")
    worker.kill()

    done = stack.ended(path)
    assert done["state"] == "succeeded", done
    assert done["attempt"] == 2


def test_a_second_stack_on_the_same_folder_is_refused(stack):
    command = [sys.executable, "-m", "cli.main", "up", "--data-dir", str(stack.data_dir)]
    second = subprocess.run([*command, "--port", "0"], capture_output=True, text=True, check=False)

    assert second.returncode == 2
    assert str(stack.process.pid) in second.stderr
    assert stack.http.get("/readyz").status_code == 200


def test_ctrl_c_leaves_no_process_and_loses_no_job(own_stack):
    # More than the grace lets a worker draw, so that it has something to hand back.
    large = {"num_inference_steps": 100, "width": 128, "height": 128, "n": 2}
    paths = [own_stack.generate(seed=seed, **large) for seed in range(4)]
    own_stack.wait_until(lambda: own_stack.http.get(paths[0]).json()["state"] == "running", 30)
    family = own_stack.process.children(recursive=True)

    assert own_stack.interrupt() == 0
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []

    own_stack.start()
    jobs = [own_stack.ended(path) for path in paths]
    assert {job["state"] for job in jobs} == {"succeeded"}
    assert max(job["attempt"] for job in jobs) == 1
    assert "its worker is shutting down" in own_stack.http.get(f"{paths[0]}/events").text


def test_a_killed_stack_leaves_no_process_and_loses_no_job(own_stack):
    paths = [own_stack.generate(seed=seed) for seed in range(6)]
    family = own_stack.process.children(recursive=True)
    own_stack.kill()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == []

    own_stack.start()
    assert all_succeed(own_stack, paths)
