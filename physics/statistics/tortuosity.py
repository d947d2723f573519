"""Tortuosity of a phase along an axis: by shortest paths, and by diffusion."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float64, Shaped
from scipy import sparse
from scipy.sparse import csgraph
from torch import Tensor

from microstructures import DataError
from physics.statistics.clusters import is_inside, percolating_part
from physics.statistics.correlation import periodic_flags
from physics.statistics.diffusion import effective_diffusivity
from physics.statistics.phase_correlations import lattice_directions


def diffusional_tortuosity(
    a: Shaped[Tensor, "batch *space"],
    *,
    axis: int = 0,
    periodic: bool | Sequence[bool] = False,
    tolerance: float = 1e-3,
) -> Float64[Tensor, " batch"]:
    """Return the tortuosity factor of a phase for diffusion along an axis.

    tau = phi D_0 / D_eff with phi the phase's fraction, the rest being impermeable: 1 for straight
    channels, infinite where nothing percolates by voxel faces. Without periodicity the
    concentrations on the two faces across the axis are held, half a voxel before the first and
    behind the last centre, and nothing leaves through the other faces: an experiment's walls, and
    taufactor's (Cooper et al. 2016, doi:10.1016/j.softx.2016.09.002). A periodic axis has no
    walls: across it the structure goes on, and along it a mean gradient is laid upon the repeating
    cell, as in `effective_conductivity`.

    The finite volumes take the voxels for the geometry: passages a voxel or two wide are resolved
    poorly, and those by edges and corners alone are shut.

    Args:
        a: Indicators, `(batch, *space)`; soft ones are cut at 1/2.
        axis: Space axis of the transport, from 0.
        periodic: One flag for all axes, or one per axis.
        tolerance: Residual of the solver relative to that of linear concentrations; tau is off by
            about its square, and never too large.

    Raises:
        DataError: Not 2-D or 3-D, no such axis, or a tolerance not between 0 and 1.
        ConvergenceError: The solver did not reach the tolerance.

    Example:
        >>> channel = torch.zeros(1, 6, 6)
        >>> channel[:, :, 2:4] = 1
        >>> diffusional_tortuosity(channel)    # 1
    """
    inside = is_inside(a)
    flags = periodic_flags(periodic, inside.ndim - 1)
    _check_axis(axis, len(flags))
    if not 0 < tolerance < 1:
        raise DataError(f"expected a tolerance between 0 and 1, got {tolerance}")
    # Blind alleys carry nothing.
    through = percolating_part(inside, periodic=flags)[:, axis]
    tau = torch.full((len(a),), math.inf, dtype=torch.float64, device=a.device)
    for k, part in enumerate(through):
        if bool(part.any()):
            d = effective_diffusivity(part, axis=axis, wraps=flags, tolerance=tolerance)
            tau[k] = float(inside[k].double().mean()) / d
    return tau


def geometric_tortuosity(
    a: Shaped[Tensor, "batch *space"],
    *,
    axis: int = 0,
    periodic: bool | Sequence[bool] = False,
    path: Literal["mean", "shortest"] = "mean",
) -> Float64[Tensor, " batch"]:
    """Return the length of shortest paths through a phase over the straight distance.

    Paths run between the centres of voxels on the two faces across the axis, from voxel to
    neighbouring voxel by faces, edges and corners, whose steps are 1, sqrt(2) and sqrt(3) long: at
    least 1, and up to 8 % (2-D) or 13 % (3-D) longer than the straight line in a direction between
    those of the neighbours. Infinite where no path leads through.

    Args:
        a: Indicators, `(batch, *space)`; soft ones are cut at 1/2.
        axis: Space axis of the transport, from 0; its own periodicity does not matter.
        periodic: One flag for all axes, or one per axis: paths go on across these faces.
        path: The mean over the voxels of the far face that a path reaches, each by its shortest
            (mean geodesic tortuosity, Stenzel et al. 2016, doi:10.1002/aic.15160), or the one
            shortest of all.

    Raises:
        DataError: Not 2-D or 3-D, no such axis, or only one voxel along it.

    Example:
        >>> channel = torch.zeros(1, 6, 6)
        >>> channel[:, :, 2:4] = 1
        >>> geometric_tortuosity(channel)    # 1
    """
    inside = is_inside(a)
    flags = list(periodic_flags(periodic, inside.ndim - 1))
    _check_axis(axis, len(flags))
    if a.shape[axis + 1] < 2:
        raise DataError(f"expected 2 voxels or more along axis {axis}, got {tuple(a.shape[1:])}")
    flags[axis] = False
    lengths = []
    for sample in inside.cpu().numpy():
        reached = _path_lengths(sample, axis, flags)
        reached = reached[np.isfinite(reached)]
        chosen = reached.mean if path == "mean" else reached.min
        lengths.append(float(chosen()) if len(reached) else math.inf)
    return torch.tensor(lengths, dtype=torch.float64, device=a.device) / (a.shape[axis + 1] - 1)


def _path_lengths(
    inside: Bool[np.ndarray, "*space"], axis: int, wraps: Sequence[bool]
) -> Float64[np.ndarray, " exit"]:
    """Return the shortest distance of every voxel of the phase on the far face from the near."""
    number = np.full(inside.shape, -1)
    count = int(inside.sum())
    number[inside] = np.arange(count)
    near, far = (number.take(end, axis)[inside.take(end, axis)] for end in (0, -1))
    if not len(near) or not len(far):
        return np.zeros(0)
    steps = [_step(number, v, wraps) for v in lattice_directions(inside.ndim)]
    start, end, length = (np.concatenate(column) for column in zip(*steps, strict=True))
    graph = sparse.coo_array((length, (start, end)), (count, count)).tocsr()
    return csgraph.dijkstra(graph, directed=False, indices=near, min_only=True)[far]


def _step(
    number: np.ndarray, v: Sequence[int], wraps: Sequence[bool]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return all pairs of voxels of the phase one step v apart, and the step's length."""
    here = there = number
    for axis, (k, wrap) in enumerate(zip(v, wraps, strict=True)):
        n = number.shape[axis]
        # Of two voxels both neighbours are the same one.
        if wrap and n > 2:
            there = np.roll(there, -k, axis)
        elif k:
            along = [(slice(None),) * axis + (slice(max(s, 0), n + min(s, 0)),) for s in (-k, k)]
            here, there = here[along[0]], there[along[1]]
    joined = (here >= 0) & (there >= 0)
    return here[joined], there[joined], np.full(int(joined.sum()), math.hypot(*v))


def _check_axis(axis: int, ndim: int) -> None:
    if not 0 <= axis < ndim:
        raise DataError(f"expected an axis from 0 to {ndim - 1}, got {axis}")
