"""Smoothing of a volume until its sections have as much interface as sections should have."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from generators.denoiser import PhaseDenoiser
from generators.fractions import cut_exactly
from generators.sampler import sample_logits
from generators.smoothing import MOST_SMOOTHING, smooth

SECTION_STEPS = 8
SHARE_OF_PIXELS = 0.5  # reference sections have half as many pixels as the volume has voxels
LEAST_SIDE = 128
MOST_PASSES = 4  # of the binomial mask 1/4, 1/2, 1/4 along each axis: 1.4 voxels wide
HALVINGS = 9


def unlike_neighbours(
    labels: Int[Tensor, "batch *space"], periodic: Sequence[bool]
) -> Float64[Tensor, " batch"]:
    """Return the share of neighbouring pairs along the axes that differ, mean over axes.

    The number of interfaces that a line crosses per voxel: what a volume and its plane sections
    have in common (Underwood 1970, P_L), whatever the number of phases.
    """
    shares = []
    for axis, wraps in enumerate(periodic, start=1):
        n = labels.shape[axis]
        unlike = labels.narrow(axis, 1, n - 1) != labels.narrow(axis, 0, n - 1)
        if wraps:
            seam = labels.narrow(axis, 0, 1) != labels.narrow(axis, n - 1, 1)
            unlike = torch.cat([unlike, seam], axis)
        shares.append(unlike.flatten(1).double().mean(1))
    return torch.stack(shares).mean(0)


@torch.no_grad()
def wanted_interfaces(
    net: PhaseDenoiser,
    condition: Float[Tensor, " features"],
    plane: Sequence[int],
    *,
    pixels: int,
    fractions: Float[Tensor, " phase"] | None,
    generator: torch.Generator,
) -> float:
    """Return the interfaces per voxel of sections that a net draws at one condition.

    They are cut at the volume's fractions, and drawn at least `LEAST_SIDE` wide: sections of a
    volume need not have its fractions each, and large ones all but do.
    """
    wide = -(-LEAST_SIDE // net.size_multiple) * net.size_multiple
    plane = [max(side, wide) for side in plane]
    count = max(1, round(pixels / (plane[0] * plane[1])))
    noise = torch.randn(count, net.n_phases, *plane, generator=generator)
    rows = None if fractions is None else fractions.expand(count, -1)
    logits = sample_logits(
        net, noise, condition.expand(count, -1), steps=SECTION_STEPS, fractions=rows
    )
    labels = logits.argmax(1) if rows is None else cut_exactly(logits, rows)
    return float(unlike_neighbours(labels, net.config["periodic"]).mean())


def matching_passes(
    logits: Float[Tensor, "1 phase *space"],
    wanted: float,
    cut: Callable[[Tensor], Tensor],
    *,
    periodic: Sequence[bool],
) -> float:
    """Return the passes of smoothing after which the cut has the wanted interfaces.

    0 where there are not too many, and at most `MOST_PASSES`. Smoothing takes away roughness and
    leaves what is larger than a few voxels.
    """

    def excess(passes: float) -> float:
        made = cut(smooth_often(logits, passes, periodic=periodic))
        return float(unlike_neighbours(made, periodic)) - wanted

    if excess(0.0) <= 0:
        return 0.0
    low, high = 0.0, float(MOST_PASSES)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return (low + high) / 2


def smooth_often(
    logits: Float[Tensor, "batch phase *space"], passes: float, *, periodic: Sequence[bool]
) -> Float[Tensor, "batch phase *space"]:
    """Smooth by whole passes of the binomial mask, and a last one in part."""
    for _ in range(int(passes)):
        logits = smooth(logits, MOST_SMOOTHING, periodic=periodic)
    return smooth(logits, MOST_SMOOTHING * (passes - int(passes)), periodic=periodic)
