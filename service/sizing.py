"""Sizes that third-party clients send whether the model can draw them or not."""

from core.manifests import Drawing

CUSTOMARY_PX = frozenset({256, 512, 768, 1024, 1536, 1792})
"""Sides that clients have built in; any other number somebody has chosen."""


def fitted(width: int, height: int, drawing: Drawing) -> tuple[int, int]:
    """A customary size that the model cannot draw, in the same proportions at its native size.

    A size that the model can draw, or that somebody has chosen, is left alone: what cannot be
    drawn of those is refused at admission, with the nearest that can.
    """
    step = drawing.multiple_px
    sides = width, height
    can_draw = all(side % step == 0 and side <= drawing.max_px for side in sides)
    if can_draw or not CUSTOMARY_PX.issuperset(sides):
        return width, height
    scale = drawing.native_px / max(sides)
    shrunk = [max(step, round(side * scale / step) * step) for side in sides]
    return shrunk[0], shrunk[1]
