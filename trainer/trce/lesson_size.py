"""TRCE stage 2: how large a lesson will be, known before anything is drawn."""

from core.specs import SteeringOptions

FLOAT32_BYTES = 4
OF_A_POINT, OF_AN_ANCHOR = 3, 2
"""Latents of each: x_t, f_safe, f_unsafe; u_t and its prediction."""
TEXTS_AT_MOST = 2
"""At a step of a trajectory: the prediction with its caption and without."""


def lesson_bytes(options: SteeringOptions, *, latent: int, text: int) -> int:
    """At the most.

    Args:
        latent: the numbers of one latent.
        text: the numbers of one prompt's embeddings.
    """
    ways = options.anchor_trajectories + options.kept_trajectories
    early = max(1, round(options.early * options.trajectory_steps))
    points = min(options.steps * options.batch, options.trajectories * early)
    anchors = min(options.steps * options.anchors, ways * options.trajectory_steps * TEXTS_AT_MOST)
    latents = OF_A_POINT * points + OF_AN_ANCHOR * anchors
    return (latents * latent + prompts(options) * text) * FLOAT32_BYTES


def prompts(options: SteeringOptions) -> int:
    """Unsafe ones, captions to keep and the empty prompt; safe ones are gone by then."""
    return options.trajectories + options.kept_trajectories + 1
