"""A1111's samplers, and schedulers in general, at the door."""

import pytest

from core.schedulers import SCHEDULERS
from service.a1111.samplers import SAMPLERS, scheduler_named


@pytest.mark.parametrize(
    ("sampler", "schedule", "means"),
    [
        ("", "", None),
        ("Automatic", "automatic", None),
        ("Euler a", "automatic", "euler_a"),
        ("euler A", "", "euler_a"),
        ("Euler", "Karras", "euler_karras"),
        ("DPM++ 2M Karras", "", "dpmpp_2m_karras"),
        ("DPM++ 2M", "Automatic", "dpmpp_2m_karras"),
        ("DPM++ 2M", "Exponential", "dpmpp_2m_exponential"),
        ("DPM++ 2M SDE Exponential", "", "dpmpp_2m_sde_exponential"),
        ("Euler", "beta", "euler_beta"),
        ("DPM++ 2M SDE", "Automatic", "dpmpp_2m_sde"),
        ("PLMS", "", "pndm"),
    ],
)
def test_a_sampler_and_its_schedule_mean_one_scheduler(sampler, schedule, means):
    assert scheduler_named(sampler, schedule) == means


def test_every_sampler_that_is_listed_means_something():
    assert all(scheduler_named(name, "automatic") in SCHEDULERS for name in SAMPLERS)


@pytest.mark.parametrize(
    ("sampler", "schedule", "says"),
    [
        ("DPM fast", "", "no sampler 'DPM fast'; there are Automatic, DDIM"),
        (
            "Euler",
            "Polyexponential",
            "no schedule 'Polyexponential'; there are Automatic, Karras, Exponential, Beta",
        ),
        ("Euler a", "Beta", "'Euler a' has no schedule 'Beta'"),
        ("DDIM", "Karras", "'DDIM' has no schedule 'Karras'"),
    ],
)
def test_what_there_is_not_is_told_with_what_there_is(sampler, schedule, says):
    with pytest.raises(ValueError, match=says.replace("+", r"\+")):
        scheduler_named(sampler, schedule)


def test_a_client_of_a1111_hears_of_a_sampler_that_there_is_not(client):
    answer = client.post("/sdapi/v1/txt2img", json={"prompt": "a cat", "sampler_name": "UniPC 3"})

    assert answer.status_code == 422
    assert "no sampler 'UniPC 3'" in answer.text


class TestAtTheDoor:
    @pytest.fixture
    def ask(self, client, installation):
        """Ask for a scheduler, of a model whose own is of this configuration."""

        def post(own: str, **fields):
            base = installation.add_base("other", files={"scheduler/scheduler_config.json": own})
            installation.add_erased("another", base=base)
            body = {"prompt": "a cat", "model": "another"} | fields
            return client.post("/v1/generations", json=body)

        return post

    def test_one_that_the_model_can_use_is_admitted(self, ask):
        answer = ask('{"_class_name": "DDIMScheduler"}', scheduler="euler_a")

        assert answer.status_code == 202
        assert answer.json()["request"]["scheduler"] == "euler_a"

    def test_one_that_it_cannot_is_refused(self, ask):
        answer = ask('{"_class_name": "EDMEulerScheduler"}', scheduler="euler_a")

        assert answer.status_code == 422
        assert "cannot use 'euler_a'; it can use its own only" in answer.json()["detail"]

    def test_one_that_nobody_knows_is_refused_with_the_list(self, ask):
        answer = ask('{"_class_name": "DDIMScheduler"}', scheduler="flow_match")

        assert answer.status_code == 422
        assert "there are ddim, ddpm" in answer.text

    def test_a_changed_configuration_is_not_believed(self, ask, installation, client):
        ask('{"_class_name": "EDMEulerScheduler"}')
        path = installation.models / "other" / "scheduler" / "scheduler_config.json"
        path.write_text('{"_class_name": "DDIMScheduler"}')
        body = {"prompt": "a cat", "model": "another", "scheduler": "euler"}

        assert "differs from its manifest" in client.post("/v1/generations", json=body).text
