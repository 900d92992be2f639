"""Which base images the stack test builds on."""

import pytest

from deploy.stack_test.stand_ins import MADE_HERE, pinned, stand_ins


def test_every_pinned_image_has_a_stand_in_of_its_minor_version():
    assert set(pinned()) == set(MADE_HERE)
    for variable, image in pinned().items():
        name, _, tag = MADE_HERE[variable].partition(":")
        version, _, distribution = tag.partition("-")
        assert image.startswith(f"{name}:{version}."), "it would test another version"
        assert image.endswith(distribution)


@pytest.mark.parametrize(
    ("here", "environ", "chosen"),
    [
        pytest.param(set(MADE_HERE.values()), {}, MADE_HERE, id="stand-ins alone"),
        pytest.param(set(), {}, {}, id="nothing: the engine fetches the pinned ones"),
        pytest.param(set(MADE_HERE.values()) | set(pinned().values()), {}, {}, id="both"),
        pytest.param(
            set(MADE_HERE.values()),
            {"REDIS_IMAGE": "valkey:8"},
            {"PYTHON_IMAGE": MADE_HERE["PYTHON_IMAGE"]},
            id="one is chosen",
        ),
    ],
)
def test_they_are_used_where_the_pinned_ones_cannot_be(here, environ, chosen):
    assert stand_ins(here.__contains__, environ) == chosen
