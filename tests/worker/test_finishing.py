"""What becomes of pictures: seen, withheld, or neither judged nor shown."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from core.jobs import JobState
from core.key_folder import KeyFolder
from core.picture_files import read
from core.policies import Policy, PolicyStore
from core.provenance import Provenance, text_digest
from core.signing import Verifier
from diffusion.detectors.loading import load_detector
from worker.shelf import Shelf

PEARS = {"detectors": [{"detector": "plugin:pears", "thresholds": {"pear": 0.5}}]}


@pytest.fixture
def policy(redis_client):
    def write(fields: dict, tenant: str = "local") -> str:
        return PolicyStore(redis_client).put(tenant, Policy.model_validate(fields)).id

    return write


class Says:
    """A detector that gives one answer, whatever it sees."""

    def __init__(self, *answer: dict[str, float]) -> None:
        self.answer = answer

    def scores(self, pictures):
        return self.answer


class SeesPears:
    """A detector that gives the scores it was made with, in turn."""

    def __init__(self, *pears: float) -> None:
        self.pears = list(pears)
        self.seen: list[tuple[int, int]] = []

    def scores(self, pictures):
        self.seen += [picture.size for picture in pictures]
        return [{"pear": self.pears.pop(0), "apple": 1.0} for _ in pictures]


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_a_picture_says_which_model_drew_it_in_every_format(
    jobs, storage, submit, make_batcher, registry, settings, output_format
):
    job_id = submit("a red apple", seed=11, output_format=output_format)
    make_batcher().drain()

    (record,) = jobs.get(job_id).images
    assert record.key.endswith(f".{output_format}")
    file = read(storage.get(record.key))
    provenance = Provenance.decoded(file.record)
    model = registry.get("emoji")
    assert file.format == output_format
    assert provenance.is_signed_by_one_of(Verifier.load(settings.picture_keys_dir))
    assert (provenance.generation, provenance.index, provenance.seed) == (job_id, 0, 11)
    assert (provenance.model, provenance.model_digest) == ("emoji", model.content_digest)
    assert provenance.pixels == file.pixels
    assert provenance.parameters == text_digest(file.parameters)
    assert f"Certificate: {model.certificate}" in file.parameters


def test_the_key_for_pictures_signs_no_models(settings, submit, make_batcher):
    make_batcher()
    pictures, models = KeyFolder(settings.picture_keys_dir), KeyFolder(settings.keys_dir)

    assert not pictures.trusted().keys() & models.trusted().keys()


NO_WEAPONS = {"detectors": [{"detector": "classifier", "thresholds": {"weapon": 0.5}}]}


@pytest.fixture
def of_base(registry):
    """Loads detectors as a worker does."""

    def load(spec, base):
        return load_detector(spec, model_folder=registry.path(base.id), manifest=base)

    return load


class TestDetectors:
    def test_a_picture_over_the_threshold_is_withheld_and_the_others_are_not(
        self, jobs, storage, settings, submit, make_batcher, policy
    ):
        policy_id = policy(PEARS)
        job_id = submit(n=3)
        make_batcher(detectors={"plugin:pears": SeesPears(0.1, 0.5, 0.2)}).drain()

        job = jobs.get(job_id)
        assert job.state is JobState.SUCCEEDED
        assert sorted(image.finish_reason for image in job.images) == [
            "content_filtered",
            "stop",
            "stop",
        ]
        (withheld,) = [image for image in job.images if image.key is None]
        finding = withheld.finding
        assert (finding.stage, finding.detector, finding.category) == (
            "picture",
            "plugin:pears",
            "pear",
        )
        assert (finding.score, finding.threshold, finding.policy) == (0.5, 0.5, policy_id)
        assert len(list(settings.images_dir.rglob("*.png"))) == 2

    def test_the_classifier_of_the_base_model_tells_weapons_from_fruit(
        self, jobs, submit, make_batcher, policy, of_base
    ):
        policy(NO_WEAPONS)
        pistol, apple = (
            submit(prompt, num_inference_steps=20) for prompt in ("a pistol", "a red apple")
        )
        make_batcher(load=of_base).drain()

        (image,) = jobs.get(pistol).images
        assert image.finish_reason == "content_filtered"
        assert (image.finding.detector, image.finding.category) == ("classifier", "weapon")
        assert image.finding.score > 0.5
        assert jobs.get(apple).images[0].finish_reason == "stop"

    @pytest.mark.parametrize(
        "name", ["classifier/model.safetensors", "classifier/config.json", "concepts.json"]
    )
    def test_a_classifier_that_was_tampered_with_lets_no_picture_through(
        self, jobs, submit, make_batcher, policy, of_base, registry, name
    ):
        """The model is loaded and draws already; its judge is read later."""
        policy(NO_WEAPONS)
        shelf = Shelf(registry, device=torch.device("cpu"), dtype=torch.float32)
        shelf.variant("emoji")
        path = registry.path("emoji") / name
        path.write_bytes(path.read_bytes() + b" ")
        job_id = submit("a red apple")
        make_batcher(load=of_base, shelf=shelf).drain()

        (image,) = jobs.get(job_id).images
        assert (image.finish_reason, image.key) == ("error", None)
        assert name in image.reason

    def test_all_withheld_is_still_an_answer(self, jobs, submit, make_batcher, policy):
        policy(PEARS)
        job_id = submit(n=2)
        make_batcher(detectors={"plugin:pears": SeesPears(0.9, 0.9)}).drain()

        job = jobs.get(job_id)
        assert job.state is JobState.SUCCEEDED
        assert {image.finish_reason for image in job.images} == {"content_filtered"}

    def test_the_worst_of_several_findings_is_named(self, jobs, submit, make_batcher, policy):
        rules = [
            {"detector": "plugin:pears", "thresholds": {"pear": 0.5}},
            {"detector": "plugin:more", "thresholds": {"pear": 0.5, "apple": 0.5}},
        ]
        policy({"detectors": rules})
        job_id = submit()
        make_batcher(
            detectors={"plugin:pears": SeesPears(0.6), "plugin:more": SeesPears(0.7)}
        ).drain()

        finding = jobs.get(job_id).images[0].finding
        assert (finding.detector, finding.category, finding.score) == ("plugin:more", "apple", 1.0)

    def test_a_policy_without_detectors_asks_none(self, jobs, submit, make_batcher):
        job_id = submit()
        make_batcher(detectors={"plugin:pears": None}).drain()

        assert jobs.get(job_id).images[0].finish_reason == "stop"

    def test_the_policy_that_counts_is_that_of_the_jobs_tenant(
        self, jobs, submit, make_batcher, policy
    ):
        policy(PEARS, tenant="acme")
        job_id = submit()
        make_batcher(detectors={}).drain()

        assert jobs.get(job_id).images[0].finish_reason == "stop"

    @pytest.mark.parametrize(
        ("detectors", "says"),
        [
            pytest.param({}, "it broke", id="not there"),
            pytest.param({"plugin:pears": SeesPears()}, "it broke", id="breaks"),
            pytest.param({"plugin:pears": Says()}, "it broke", id="says nothing"),
            pytest.param(
                {"plugin:pears": Says({"apple": 0.0})}, "no category 'pear'", id="category"
            ),
            pytest.param({"plugin:pears": Says({"pear": float("nan")})}, "no number", id="NaN"),
            pytest.param({"plugin:pears": Says({"pear": 1.5})}, "no number", id="over 1"),
        ],
    )
    def test_a_detector_that_cannot_run_lets_nothing_through(
        self, jobs, settings, submit, make_batcher, policy, detectors, says
    ):
        policy_id = policy(PEARS)
        job_id = submit()
        make_batcher(detectors=detectors).drain()

        job = jobs.get(job_id)
        (image,) = job.images
        assert image.key is None
        assert list(settings.images_dir.rglob("*.png")) == []
        assert (image.finding.detector, image.finding.policy) == ("plugin:pears", policy_id)
        assert job.state is JobState.FAILED
        assert image.finish_reason == "error"
        assert image.finding.category is None
        assert says in image.reason
        assert "'plugin:pears' could not judge it" in job.reason

    def test_a_policy_that_cannot_be_read_lets_nothing_through(
        self, jobs, submit, make_batcher, redis_client
    ):
        redis_client.hset("policies", "local", '{"of_tomorrow": 1}')
        job_id = submit()
        make_batcher().drain()

        assert jobs.get(job_id).images[0].finish_reason == "error"


class TestPartialResults:
    def test_pictures_without_numbers_are_errors_and_the_others_are_seen(
        self, jobs, submit, make_batcher, monkeypatch
    ):
        from diffusion import pictures

        decode = pictures._decode

        def overflow_red(vae, latents):
            """NaN for the picture of seed 21, told by its latents."""
            decoded = decode(vae, latents)
            for place, latent in enumerate(latents):
                if torch.isclose(latent.sum(), marked["sum"], atol=1e-3):
                    decoded[place] = float("nan")
            return decoded

        marked = {"sum": torch.tensor(float("nan"))}
        monkeypatch.setattr(pictures, "_decode", overflow_red)
        sums = []

        def remember(vae, latents):
            sums.extend(latent.sum() for latent in latents)
            return decode(vae, latents)

        monkeypatch.setattr(pictures, "_decode", remember)
        submit(seed=21)
        make_batcher().drain()
        marked["sum"] = sums[-1]
        monkeypatch.setattr(pictures, "_decode", overflow_red)
        job_id = submit(n=3, seed=20)
        make_batcher().drain()

        job = jobs.get(job_id)
        assert job.state is JobState.SUCCEEDED
        assert [image.finish_reason for image in job.images] == ["stop", "error", "stop"]
        assert "not made of numbers" in job.images[1].reason

    def test_a_cancelled_job_keeps_what_was_finished(self, jobs, submit, make_batcher, heartbeat):
        cancelled = submit(n=2, num_inference_steps=30)

        def cancel(steps: int) -> None:
            if steps == 3:
                jobs.cancel(cancelled)
                heartbeat.verdicts[cancelled] = "cancelled"

        heartbeat.on_step = cancel
        make_batcher().drain()

        job = jobs.get(cancelled)
        assert job.state is JobState.CANCELLED
        assert [image.finish_reason for image in job.images] == ["cancelled"] * 2

    def test_a_job_that_never_ran_has_a_record_for_each_picture(self, jobs, submit):
        job_id = submit(n=2, seed=5)
        assert jobs.get(job_id).images == ()
        jobs.cancel(job_id)

        images = jobs.get(job_id).images
        assert [(image.seed, image.finish_reason) for image in images] == [
            (5, "cancelled"),
            (6, "cancelled"),
        ]


def test_jpeg_and_webp_look_like_the_png(jobs, storage, submit, make_batcher):
    ids = [
        submit("a red apple", output_format=name, quality=95) for name in ("png", "jpeg", "webp")
    ]
    make_batcher().drain()

    first, *others = [
        np.asarray(
            Image.open(io.BytesIO(storage.get(jobs.get(job_id).images[0].key))), dtype=np.int16
        )
        for job_id in ids
    ]
    for other in others:
        assert np.abs(first - other).mean() < 6
