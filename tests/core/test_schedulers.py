import pytest
from diffusers import DDIMScheduler
from pydantic import ValidationError

from core.errors import ModelUnsupported, SchedulerNotUsable
from core.schedulers import OWN_ONLY, SCHEDULERS, check_own, check_usable, label_of, usable
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


@pytest.mark.parametrize("own", sorted(OWN_ONLY | {one.class_name for one in SCHEDULERS.values()}))
def test_a_model_may_have_a_scheduler_that_can_draw(own):
    check_own("m", DDIM | {"_class_name": own})


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({"_class_name": None}, "its scheduler is None"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "may be CMStochastic.*, UniPC"),
        ({"_class_name": "KarrasVeScheduler"}, "its scheduler is KarrasVeScheduler"),
        ({"prediction_type": "flow_prediction"}, "predicts flow_prediction.*may be epsilon"),
        ({"use_flow_sigmas": True}, "predicts a flow"),
    ],
    ids=str,
)
def test_a_model_with_another_scheduler_is_refused_with_those_that_can_draw(own, says):
    with pytest.raises(ModelUnsupported, match=says):
        check_own("m", DDIM | own)


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
        ({"_class_name": "HeunDiscreteScheduler", "use_beta_sigmas": True}, ("Heun", "Beta")),
        (
            {"_class_name": "UniPCMultistepScheduler", "use_exponential_sigmas": True},
            ("UniPC", "Exponential"),
        ),
        ({"_class_name": "EDMEulerScheduler"}, ("EDMEuler", "Automatic")),
    ],
    ids=str,
)
def test_a_models_own_scheduler_has_the_label_that_readers_know(config, label):
    assert label_of(config) == label


@pytest.mark.parametrize("own", ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"])
@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("euler", "Automatic"),
        ("euler_karras", "Karras"),
        ("euler_exponential", "Exponential"),
        ("euler_beta", "Beta"),
    ],
)
def test_levels_that_are_asked_for_take_the_place_of_a_models_own(own, name, levels):
    """diffusers takes no more than one."""
    config = {"_class_name": "EulerDiscreteScheduler", own: True, **SCHEDULERS[name].options}

    assert label_of(config) == ("Euler", levels)
    assert sum(value is True for value in config.values()) <= 1


def test_what_diffusers_could_use_besides_and_is_not_offered_is_known():
    """A new version may have more: then it is offered, or said in docs/api.md why not."""
    offered = {one.class_name for one in SCHEDULERS.values()}
    others = {one.__name__ for one in DDIMScheduler().compatibles} - offered

    assert others == {"DPMSolverSDEScheduler", "EDMEulerScheduler"}


def test_names_mean_different_things():
    meant = [(one.class_name, tuple(one.options.items())) for one in SCHEDULERS.values()]
    assert len(set(meant)) == len(meant)
