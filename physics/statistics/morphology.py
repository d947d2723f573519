"""Lineal path, specific surface and Euler density of voxel indicators."""

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from microstructures import DataError
from physics.statistics.correlation import as_indicators, check_max_lag, periodic_flags

# A digital surface consists of axis-parallel faces; for isotropic surfaces its area is too large
# by the mean of |n_1| + ... + |n_d| over directions n.
FACE_TO_AREA = {2: math.pi / 4, 3: 2 / 3}


def lineal_path(
    a: Shaped[Tensor, "batch *space"],
    *,
    max_lag: int,
    periodic: bool | Sequence[bool] = True,
) -> Float[Tensor, "batch axis lag"]:
    """Return the probability that a whole segment of z voxels' length lies in the phase.

    L_i(z) = <a(x) a(x + e_i) ... a(x + z e_i)>: z + 1 voxel centres along axis i, so L(0) is the
    fraction (Lu and Torquato 1992, doi:10.1103/PhysRevA.45.922). An axis that is not periodic
    averages over the segments that fit. Differentiable in soft indicators.

    Args:
        a: Indicators, `(batch, *space)`; bool and integers are taken as float32.
        max_lag: Longest segment in voxels, below the shortest axis.
        periodic: One flag for all axes, or one per axis.

    Returns:
        Shape `(batch, axis, max_lag + 1)`.

    Raises:
        DataError: Not 2-D or 3-D, or max_lag does not fit the shape.
    """
    a = as_indicators(a)
    check_max_lag(max_lag, min(a.shape[1:]) - 1)
    axes = tuple(range(1, a.ndim))
    curves = []
    for axis, wrap in zip(axes, periodic_flags(periodic, len(axes)), strict=True):
        n = a.shape[axis]
        line = torch.cat([a, a.narrow(axis, 0, max_lag)], axis) if wrap and max_lag else a
        path, curve = a, [a.mean(axes)]
        for z in range(1, max_lag + 1):
            starts = n if wrap else n - z
            path = path.narrow(axis, 0, starts) * line.narrow(axis, z, starts)
            curve.append(path.mean(axes))
        curves.append(torch.stack(curve, -1))
    return torch.stack(curves, 1)


def specific_surface(
    a: Shaped[Tensor, "batch *space"],
    *,
    periodic: bool | Sequence[bool] = True,
    voxel_size_um: float = 1.0,
) -> Float[Tensor, " batch"]:
    """Return the phase's surface per volume in 1/um (per voxel edge at the default size).

    Counts voxel faces between the phase and the rest and corrects for their being axis-parallel,
    s = c sum_i <|a(x + e_i) - a(x)|> / voxel size with c = pi/4 in 2-D and 2/3 in 3-D, exact for
    isotropic surfaces (flat axis-parallel ones come out c times too small). This is Debye's
    relation, s = -pi S2'(0) in 2-D and -4 S2'(0) in 3-D, on the voxel grid.

    Args:
        a: Indicators, `(batch, *space)`; bool and integers are taken as float32.
        periodic: One flag for all axes, or one per axis; faces on the rim of an axis that is not
            periodic do not count.
        voxel_size_um: Voxel edge.

    Raises:
        DataError: Not 2-D or 3-D, or the voxel size is not above 0.
    """
    a = as_indicators(a)
    if not (math.isfinite(voxel_size_um) and voxel_size_um > 0):
        raise DataError(f"expected voxel_size_um above 0, got {voxel_size_um}")
    axes = tuple(range(1, a.ndim))
    faces = torch.zeros(len(a)).to(a)
    for axis, wrap in zip(axes, periodic_flags(periodic, len(axes)), strict=True):
        if a.shape[axis] > 1:
            step = a.roll(-1, axis) - a if wrap else a.diff(dim=axis)
            faces = faces + step.abs().mean(axes)
    return FACE_TO_AREA[len(axes)] * faces / voxel_size_um


def euler_density(
    a: Shaped[Tensor, "batch *space"],
    *,
    periodic: bool | Sequence[bool] = True,
    voxel_size_um: float = 1.0,
) -> Float[Tensor, " batch"]:
    """Return the Euler characteristic per area (1/um^2) or volume (1/um^3) of hard indicators.

    Counts the cells of the closed voxel complex (voxels that touch at a corner are joined):
    vertices - edges + pixels in 2-D, one dimension more in 3-D. In 2-D this is particles minus
    holes. Equals skimage.measure.euler_number at full connectivity; unlike it, a periodic axis
    has no rim.
    """
    a = as_indicators(a)
    axes = tuple(range(1, a.ndim))
    flags = periodic_flags(periodic, len(axes))
    total = torch.zeros(len(a)).to(a)
    for chosen in itertools.product((False, True), repeat=len(axes)):
        cells = a
        for axis, wrap, joined in zip(axes, flags, chosen, strict=True):
            # A face between two voxels belongs to the complex when either of them does.
            if joined:
                cells = _either_side(cells, axis, wrap)
        total = total + (-1) ** sum(chosen) * cells.sum(axes)
    # The sign above counts voxels positive; the alternating sum starts from vertices.
    return (-1) ** len(axes) * total / (math.prod(a.shape[1:]) * voxel_size_um ** len(axes))


def _either_side(cells: Tensor, axis: int, periodic: bool) -> Tensor:
    if periodic:
        return torch.maximum(cells, cells.roll(-1, axis))
    rim = torch.zeros_like(cells.narrow(axis, 0, 1))
    return torch.maximum(torch.cat([cells, rim], axis), torch.cat([rim, cells], axis))
