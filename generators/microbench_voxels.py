"""MicroBench M10: undecided voxels, and seams at periodic faces."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Integer
from torch import Tensor

UNDECIDED = (0.1, 0.9)


def undecided_share(soft: Float[Tensor, "batch phase *space"]) -> float:
    """Return the share of voxels with a soft phase between 0.1 and 0.9."""
    low, high = UNDECIDED
    return float(((soft > low) & (soft < high)).any(1).double().mean())


def seam_ratio(labels: Integer[Tensor, "batch *space"], periodic: Sequence[bool]) -> float | None:
    """Return phase changes across the periodic seam over those inside, of the worst axis.

    The share of neighbouring voxels in different phases, over all samples: between the last and
    the first layer against between all others. None where no axis is periodic or nothing changes.
    """
    ratios = []
    for axis, wraps in enumerate(periodic, start=1):
        if not wraps or labels.shape[axis] < 3:
            continue
        inside = float((labels.diff(dim=axis) != 0).double().mean())
        ends = labels.narrow(axis, 0, 1) != labels.narrow(axis, labels.shape[axis] - 1, 1)
        if inside > 0:
            ratios.append(float(ends.double().mean()) / inside)
    return (
        max(ratios, key=lambda r: abs(torch.tensor(max(r, 1e-12)).log().item())) if ratios else None
    )
