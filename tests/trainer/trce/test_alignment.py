import pytest

from trainer.trce.alignment import align

START = 0


@pytest.mark.parametrize(
    ("unsafe", "safe", "aligned"),
    [
        pytest.param([1, 7, 2], [1, 8, 2], [(2, 2), (3, 3)], id="one word, and what follows"),
        pytest.param([1, 7], [1, 8], [(2, 2)], id="the last word"),
        pytest.param([7, 1], [8, 1], [(1, 1), (2, 2)], id="the first word"),
        pytest.param([1, 7, 2], [1, 8, 9, 2], [(2, 2), (3, 4)], id="two in its place"),
        pytest.param([1, 6, 7, 2], [1, 8, 2], [(2, 2), (3, 2), (4, 3)], id="one for two"),
        pytest.param([1, 7, 2], [1, 2], [(2, 1), (3, 2)], id="nothing in its place"),
        pytest.param([1, 1], [1], [(2, 1)], id="a word less of the same"),
        pytest.param([1, 2], [1, 2], [], id="no difference"),
    ],
)
def test_words_from_the_first_that_differs_stand_beside_their_partners(unsafe, safe, aligned):
    assert align([START, *unsafe], [START, *safe]) == aligned
