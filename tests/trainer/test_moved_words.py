"""Whose words stage 1 moves: those of a style, unless the spec says otherwise."""

import pytest
import torch

from core.specs import ErasureSpec
from trainer.solving import solve


def text_map(encoder, kind, cache, **textual):
    concept = {"name": "ink", "kind": kind, "replacement": "flower"}
    spec = ErasureSpec.model_validate(
        {"base_model": "base", "concepts": [concept], "textual": {"ridge": 1e-2, **textual}}
    )
    solution = solve(encoder, spec.concepts, spec, known=None, report=lambda _: None, cache=cache)
    return solution.erasure.text_map


@pytest.mark.parametrize(
    ("kind", "as_told"),
    [pytest.param("style", "all", id="style"), pytest.param("object", "none", id="object")],
)
def test_by_default_the_words_of_styles_are_moved_and_no_others(encoder, cache, kind, as_told):
    by_default = text_map(encoder, kind, cache)
    maps = {told: text_map(encoder, kind, cache, moved_words=told) for told in ("all", "none")}

    assert torch.equal(by_default, maps[as_told])
    assert not torch.allclose(maps["all"], maps["none"])
