"""Smoothing of phase logits, which evens out interfaces before they are cut."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from generators.fractions import balance

MOST_SMOOTHING = 0.25  # of each neighbour: the voxel itself keeps a half per axis


def smooth(
    logits: Float[Tensor, "batch phase *space"], share: float, *, periodic: Sequence[bool]
) -> Float[Tensor, "batch phase *space"]:
    """Mix into every voxel the given share of either neighbour's logits, axis by axis.

    Differentiable. At the rim of an axis that is not periodic the voxel stands in for its missing
    neighbour.
    """
    if share == 0:
        return logits
    for axis, wraps in enumerate(periodic, start=2):
        n = logits.shape[axis]
        first, last = logits.narrow(axis, 0, 1), logits.narrow(axis, n - 1, 1)
        before = torch.cat([last if wraps else first, logits.narrow(axis, 0, n - 1)], axis)
        after = torch.cat([logits.narrow(axis, 1, n - 1), first if wraps else last], axis)
        logits = (1 - 2 * share) * logits + share * (before + after)
    return logits


def smooth_in_place(
    logits: Float[Tensor, "batch phase *space"], share: float, *, periodic: Sequence[bool]
) -> Float[Tensor, "batch phase *space"]:
    """Smooth, then shift the logits per phase so that every sample keeps its own mean phases.

    For samples that are not cut at wanted fractions: smoothing alone would wear thin and rare
    phases away.
    """
    if share == 0:
        return logits
    smoothed = smooth(logits, share, periodic=periodic)
    shares = F.softmax(logits.detach(), 1).flatten(2).mean(2)
    offsets = balance(smoothed.detach(), shares)
    return smoothed + offsets.view(*offsets.shape, *[1] * (logits.ndim - 2))
