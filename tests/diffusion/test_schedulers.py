"""Schedulers are begun once for each number of steps, and copied for each picture."""

import gc
import json
import weakref

import pytest
import torch

from core.errors import SchedulerNotUsable
from core.schedulers import SCHEDULER_CONFIG, SCHEDULERS
from core.settings import SHIPPED_MODELS
from diffusion.schedulers import Kind, SchedulerFactory

STEPS = 5


@pytest.fixture
def config():
    return json.loads((SHIPPED_MODELS / "emoji" / SCHEDULER_CONFIG).read_text())


@pytest.fixture
def factory(config):
    return SchedulerFactory(config)


@pytest.fixture
def begun(monkeypatch):
    """The numbers of steps of which a scheduler was begun."""
    told = []
    begin = Kind.begun
    monkeypatch.setattr(
        Kind, "begun", lambda kind, steps: told.append(steps) or begin(kind, steps)
    )
    return told


def latents_of(factory: SchedulerFactory, name: str | None) -> torch.Tensor:
    """What a picture's latents come to be, were the UNet's output always the same."""
    generator = torch.Generator().manual_seed(0)
    scheduler, options = factory.create(STEPS, name=name, generator=generator)
    latents = torch.ones(1, 4, 2, 2) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        seen = scheduler.scale_model_input(latents, timestep)
        noise = torch.full_like(seen, 0.5)
        latents = scheduler.step(noise, timestep, latents, return_dict=False, **options)[0]
    return latents


@pytest.mark.parametrize("name", [None, *SCHEDULERS])
def test_a_picture_leaves_nothing_behind_for_the_next_one(begun, factory, name):
    first, second = (latents_of(factory, name) for _ in range(2))

    assert begun == [STEPS]
    assert torch.equal(first, second)


def test_each_number_of_steps_has_its_own(begun, factory):
    generator = torch.Generator()
    told = [
        len(factory.create(steps, name=name, generator=generator)[0].timesteps)
        for name in (None, "euler_a")
        for steps in (3, 4, 3)
    ]

    assert told == [3, 4, 3] * 2
    assert begun == [3, 4] * 2


def test_what_is_remembered_goes_with_the_factory(config):
    """At once: in a process that draws, the collector comes by seldom."""
    factory = SchedulerFactory(config)
    factory.create(STEPS, generator=torch.Generator())
    gone = weakref.ref(factory)
    gc.disable()
    try:
        del factory
        assert gone() is None
    finally:
        gc.enable()


def test_what_cannot_be_used_is_refused_each_time(factory):
    for _ in range(2):
        with pytest.raises(SchedulerNotUsable):
            factory.create(1000, name="lcm", generator=torch.Generator())
