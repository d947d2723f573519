"""The ancestral sampler: fresh noise at every level, so that opinions which disagree can meet."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from generators.fractions import balance
from generators.given_voxels import pin_given, show_given
from generators.sample_noise import white_noise

SIGMA_MIN = 1.0
SIGMA_MAX = 60.0
"""The highest level of training: a walk of white noise from lower down lacks long correlations."""
CURVE = 7.0  # exponent of the noise levels (Karras et al. 2022)


def ancestral_logits(
    denoiser: Callable[[Tensor, Tensor, Tensor], Tensor],
    generators: Sequence[torch.Generator],
    condition: Float[Tensor, "batch features"],
    *,
    size: Sequence[int],
    steps: int,
    fractions: Float[Tensor, "batch phase"] | None,
    given: Int[Tensor, "*space"] | None = None,
) -> Float[Tensor, "batch phase *space"]:
    """Return the logits of the phases after `steps` levels of a reverse random walk.

    Euler steps of the ancestral form (Song et al. 2021): each level keeps part of the noise that
    is there and replaces the rest, with the variance that the level asks for. Where a denoiser is
    put together from nets that see different sections, an error of one level is forgotten at the
    next, while along the probability-flow ODE it would freeze. Fractions and given voxels as in
    `sample_logits`, the mean image at the start included. Sample k draws all its noise from
    generators[k].

    Args:
        denoiser: Maps noisy phases in ±1, noise levels and conditions to logits.
        size: (phase, *space) of one sample.
    """
    levels = _levels(steps).tolist()
    x = levels[0] * white_noise(generators, size)
    if fractions is not None:
        x = x + (2 * fractions.to(x) - 1).view(len(x), -1, *[1] * (x.ndim - 2))
    logits = x
    for index, sigma in enumerate(levels):
        shown = show_given(x, given, sigma)
        logits = pin_given(denoiser(shown, x.new_full((len(x),), sigma), condition), given)
        if fractions is not None:
            offsets = balance(logits.detach(), fractions)
            logits = logits + offsets.view(*offsets.shape, *[1] * (x.ndim - 2))
        if index + 1 == steps:
            break
        below = levels[index + 1]
        fresh = (below**2 * (sigma**2 - below**2) / sigma**2) ** 0.5
        kept = (below**2 - fresh**2) ** 0.5
        denoised = 2 * F.softmax(logits, 1) - 1
        x = denoised + (kept / sigma) * (x - denoised) + fresh * white_noise(generators, size)
    return logits


def _levels(steps: int) -> Float[Tensor, " steps"]:
    share = torch.linspace(0, 1, steps, dtype=torch.float64)
    high, low = SIGMA_MAX ** (1 / CURVE), SIGMA_MIN ** (1 / CURVE)
    return (high + share * (low - high)) ** CURVE
