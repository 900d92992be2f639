import pytest
from pydantic import ValidationError

from core.errors import SchedulerNotUsable
from core.schedulers import SCHEDULERS, check_usable, label_of, usable
from core.specs import GenerationSpec

DDIM = {"_class_name": "DDIMScheduler", "prediction_type": "epsilon"}


def test_a_name_that_is_none_is_refused_with_those_that_are():
    with pytest.raises(ValidationError, match=r"no scheduler 'flow'; there are ddim, ddpm"):
        GenerationSpec(prompt="a cat", scheduler="flow")
    assert GenerationSpec(prompt="a cat", scheduler="euler_a").scheduler == "euler_a"


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction"])
def test_a_model_of_stable_diffusion_can_use_all(predicts):
    assert usable(DDIM | {"prediction_type": predicts}) == list(SCHEDULERS)


@pytest.mark.parametrize(
    "own", [{"_class_name": "EDMEulerScheduler"}, {"prediction_type": "sample"}], ids=str
)
def test_a_model_of_another_process_can_use_its_own_only(own):
    with pytest.raises(SchedulerNotUsable, match="its own only"):
        check_usable("euler", 20, DDIM | own)


def test_more_steps_than_a_distilled_model_knows_are_refused():
    check_usable("lcm", 50, DDIM)
    with pytest.raises(SchedulerNotUsable, match="lcm takes at most 50 steps"):
        check_usable("lcm", 51, DDIM)


@pytest.mark.parametrize(
    ("config", "label"),
    [
        (DDIM, ("DDIM", "Automatic")),
        (
            {"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True},
            ("Euler", "Karras"),
        ),
        (
            {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++"},
            ("DPM++ 2M SDE", "Automatic"),
        ),
        ({"_class_name": "EDMEulerScheduler"}, ("EDMEuler", "Automatic")),
    ],
    ids=str,
)
def test_a_models_own_scheduler_has_the_label_that_readers_know(config, label):
    assert label_of(config) == label


def test_names_mean_different_things():
    meant = [(one.class_name, tuple(one.options.items())) for one in SCHEDULERS.values()]
    assert len(set(meant)) == len(meant)
