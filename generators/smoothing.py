"""Smoothing of phase logits, which evens out interfaces before they are cut."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

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
