"""Draw, erase, promote, draw again: over HTTP, by real processes."""

import io

import pytest
from PIL import Image

pytestmark = pytest.mark.stack


def picture(stack, job: dict) -> Image.Image:
    response = stack.http.get(job["images"][0]["url"])
    assert response.headers["content-type"] == "image/png"
    return Image.open(io.BytesIO(response.content))


def test_a_prompt_becomes_a_picture(stack):
    job = stack.ended(stack.generate("a red apple", seed=1))

    assert job["state"] == "succeeded", job
    assert picture(stack, job).size == (64, 64)


def test_the_same_request_is_the_same_picture(stack):
    jobs = [stack.ended(stack.generate(seed=5, strict=True)) for _ in range(2)]
    first, second = (picture(stack, job).tobytes() for job in jobs)

    assert first == second


def test_whoever_draws_asks_for_huge_pages(stack):
    children = stack.pool_children()
    assert children
    assert all("hugetlb=1" in child.environ().get("GLIBC_TUNABLES", "") for child in children)


def test_an_erased_model_is_served_only_after_its_promotion(stack):
    done = stack.ended(stack.erase_axes())
    assert done["state"] == "succeeded", done
    model = done["erased_model"]

    refused = stack.http.post("/v1/generations", json={"prompt": "an axe", "model": model})
    assert refused.status_code == 409
    assert "promote it first" in refused.json()["detail"]

    stack.post(f"/v1/models/{model}/promotion")
    drawn = stack.ended(stack.generate("an axe", model=model, seed=3))
    base = stack.ended(stack.generate("an axe", seed=3))
    assert drawn["state"] == "succeeded", drawn
    assert picture(stack, drawn).tobytes() != picture(stack, base).tobytes()

    stack.post(f"/v1/models/{model}/retirement")
    refused = stack.http.post("/v1/generations", json={"prompt": "an axe", "model": model})
    assert refused.status_code == 409


def test_a_running_job_can_be_cancelled(stack):
    path = stack.generate(num_inference_steps=100, n=8)
    stack.wait_until(lambda: stack.http.get(path).json()["state"] == "running", 30)
    stack.http.delete(path)

    assert stack.ended(path, within_s=20)["state"] == "cancelled"


def test_a_tampered_model_is_refused_by_name(stack):
    model = stack.ended(stack.erase_axes())["erased_model"]
    stack.post(f"/v1/models/{model}/promotion")
    weights = stack.data_dir / "models" / model / "erasure.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)

    job = stack.ended(stack.generate("an axe", model=model))

    assert job["state"] == "failed"
    assert "erasure.safetensors differs from its manifest" in job["reason"]
