import pytest

from service.waiting import wait_s


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        pytest.param(None, 0, id="no header"),
        pytest.param("wait=10", 10, id="plain"),
        pytest.param('Wait = "7"', 7, id="quoted"),
        pytest.param("respond-async, wait=5", 5, id="second"),
        pytest.param("wait=5; x, return=minimal", 5, id="first"),
        pytest.param("wait=3600", 60, id="too long"),
        pytest.param("wait=" + "9" * 5000, 0, id="absurd"),
        pytest.param("wait=-1", 0, id="negative"),
        pytest.param("wait=soon", 0, id="no number"),
        pytest.param("await=9", 0, id="another word"),
        pytest.param("wait=²", 0, id="superscript"),
    ],
)
def test_a_preference_is_followed_where_it_makes_sense(prefer, seconds):
    assert wait_s(prefer) == seconds
