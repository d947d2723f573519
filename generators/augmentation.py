"""Training cells moved by the symmetries of their process: shifts, mirrors, exchanged axes."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from microstructures import DataError


def augment(
    phases: Tensor,
    *,
    periodic: tuple[bool, ...],
    isotropic: bool,
    flips: bool | Sequence[bool],
    generator: torch.Generator,
) -> Tensor:
    """Shift along periodic axes, mirror and exchange axes at random, each sample on its own."""
    dim = len(periodic)
    mirrored = [flips] * dim if isinstance(flips, bool) else list(flips)
    if len(mirrored) != dim:
        raise DataError(f"expected one flag of flips per axis, {dim} in all, got {flips}")
    square = len(set(phases.shape[1:])) == 1 and len(set(periodic)) == 1
    out = []
    for sample in phases:
        u = torch.rand(2 * dim + 1, generator=generator).tolist()
        for axis in range(dim):
            if periodic[axis]:
                sample = sample.roll(int(u[axis] * sample.shape[axis]), axis)
            if mirrored[axis] and u[dim + axis] < 0.5:
                sample = sample.flip(axis)
        if isotropic and square:
            sample = sample.permute(_permutation(int(u[-1] * math.factorial(dim)), dim))
        out.append(sample)
    return torch.stack(out)


def _permutation(index: int, dim: int) -> list[int]:
    """Return the index-th permutation of the axes (factorial number system)."""
    axes, order = list(range(dim)), []
    for left in range(dim, 0, -1):
        index, place = divmod(index, left)
        order.append(axes.pop(place))
    return order
