"""The periodic staggered grid: differences, means between its points, Mandel order, symbols.

Voxel spacing is 1 (a displacement is counted in voxels). Along axis i a voxel centre I has the
face I on its lower side: a face value sits half a voxel below the centre of equal index.
"""

import math
from functools import lru_cache

import torch
from jaxtyping import Complex, Float
from torch import Tensor

SHEAR_PAIRS = {2: ((0, 1),), 3: ((1, 2), (0, 2), (0, 1))}
"""Axes of the Mandel shear components, in order, after the `dim` normal ones."""


def forward(field: Float[Tensor, "*dims"], axis: int) -> Float[Tensor, "*dims"]:
    """Return f[I + 1] - f[I] along a (negative) axis: from faces to centres."""
    return field.roll(-1, axis) - field


def backward(field: Float[Tensor, "*dims"], axis: int) -> Float[Tensor, "*dims"]:
    """Return f[I] - f[I - 1] along a (negative) axis: from centres to faces."""
    return field - field.roll(1, axis)


def harmonic_below(field: Float[Tensor, "*dims"], axis: int) -> Float[Tensor, "*dims"]:
    """Return the harmonic mean of f[I - 1] and f[I], 0 where either is 0."""
    below = field.roll(1, axis)
    tiny = torch.finfo(field.dtype).tiny
    return 2.0 * field * below / (field + below).clamp_min(tiny)


def to_centres(edge_field: Float[Tensor, "*dims"], *axes: int) -> Float[Tensor, "*dims"]:
    """Return the mean of the edge values around each voxel centre, over the given axes."""
    for axis in axes:
        edge_field = 0.5 * (edge_field + edge_field.roll(-1, axis))
    return edge_field


def add_weighted(
    weights: Float[Tensor, "batch load"],
    field: Float[Tensor, "batch *space"],
    total: Float[Tensor, "batch load *space"],
) -> None:
    """Add a field with one weight per sample and load to `total`; zero weights cost nothing."""
    for load in weights.any(0).nonzero().flatten().tolist():
        weight = weights[:, load].view(-1, *[1] * (field.ndim - 1))
        total[:, load].addcmul_(field, weight)


@lru_cache(maxsize=16)
def difference_symbols(
    shape: tuple[int, ...], device: torch.device
) -> tuple[Complex[Tensor, "..."], ...]:
    """Return exp(i theta_j) - 1 for each axis j, broadcastable over the rfft half grid.

    This is `forward` in Fourier space; `backward` is minus its conjugate.
    """
    symbols = []
    for axis, n in enumerate(shape):
        last = axis == len(shape) - 1
        modes = torch.arange(n // 2 + 1 if last else n, dtype=torch.float64, device=device)
        angle = 2.0 * math.pi * modes / n
        # 2 i sin(t/2) exp(i t/2) keeps full precision where exp(i t) - 1 would cancel.
        half = torch.sin(0.5 * angle)
        symbol = torch.polar(2.0 * half, 0.5 * angle) * 1j
        view = [1] * len(shape)
        view[axis] = -1
        symbols.append(symbol.view(view))
    return tuple(symbols)
