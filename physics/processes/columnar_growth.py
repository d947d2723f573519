"""Competitive columnar growth: cubic crystals that grow upwards over each other."""

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import label
from scipy.spatial.transform import Rotation

# How strongly growth keeps to the direction of heat flow, against that of the crystal.
GUIDANCE = 1.0


def crystal_axes(quaternions: Float[np.ndarray, "grain 4"]) -> Float[np.ndarray, "grain 3 3"]:
    """Return <100> of each grain in sample axes, one a row, from quaternions (w, x, y, z)."""
    return np.swapaxes(Rotation.from_quat(quaternions[:, [1, 2, 3, 0]]).as_matrix(), 1, 2)


@dataclass(frozen=True)
class Front:
    """One layer of voxels: which grain is where (-1 none) and how late it came there."""

    grain: Int[np.ndarray, "*lateral"]
    time: Float[np.ndarray, "*lateral"]


def columnar_growth(
    solid: Bool[np.ndarray, "*space"],
    lean: Float[np.ndarray, "*space"],
    *,
    stray: Bool[np.ndarray, "*space"],
    floor: Int[np.ndarray, "*lateral"],
    axes: Float[np.ndarray, "orientation 3 3"],
    periodic: tuple[bool, ...],
) -> Int[np.ndarray, "*space"]:
    """Return which grain each solid voxel belongs to, grown upwards layer of voxels by layer.

    A cubic crystal left alone grows as an octahedron with its corners along <100>: a step r
    takes |r.a1| + |r.a2| + |r.a3| (Gandin and Rappaz 1997, doi:10.1016/S1359-6454(96)00303-5).
    Each voxel goes to the neighbour in the layer below that reaches it first, |r| - r.n being
    added to each step so that grains follow the heat flow n. Crystals with <100> along n are
    ahead and overgrow the others. What is not reached from below (above a pore) is filled from
    the side, and metal without any neighbour becomes a fresh grain.

    Args:
        solid: Where there is metal; axis 1 is the direction of growth.
        lean: Slope of the heat flow along axis 0, sideways over upwards.
        stray: Where a fresh grain appears in the metal by chance.
        floor: Grain below the first layer, shape of `solid` without axis 1.
        axes: <100> in sample axes; grain g has entry g modulo their number.
        periodic: One flag per axis of `solid`.

    Returns:
        Grains from 0; -1 where there is no metal.
    """
    wraps = tuple(p for axis, p in enumerate(periodic) if axis != 1)
    grains = np.full(solid.shape, -1, dtype=np.int64)
    front, count = Front(floor, np.zeros(floor.shape)), int(floor.max()) + 1
    for height in range(solid.shape[1]):
        metal, slope = solid[:, height], lean[:, height]
        front = _reached(front, metal, slope, axes, wraps, up=1)
        front = _filled(front, metal, axes, wraps)
        islands = np.zeros(metal.shape, dtype=np.int64)
        label(metal & (front.grain < 0), output=islands)
        numbers, places = np.unique(islands, return_index=True)
        places = places[numbers > 0]
        front.time.flat[places] = front.time.max(where=np.isfinite(front.time), initial=0.0)
        places = np.append(places, np.flatnonzero(stray[:, height] & (front.grain >= 0)))
        front.grain.flat[places] = count + np.arange(len(places))
        front, count = _filled(front, metal, axes, wraps), count + len(places)
        grains[:, height] = front.grain
        # Only differences matter.
        if metal.any():
            front = Front(front.grain, front.time - front.time.min(where=metal, initial=np.inf))
    return grains


def _reached(
    front: Front,
    target: np.ndarray,
    slope: np.ndarray | float,
    axes: np.ndarray,
    wraps: tuple[bool, ...],
    *,
    up: int,
) -> Front:
    """Return the grains that come first to the target voxels, `up` layers above the front."""
    best, winner = np.full(target.shape, np.inf), np.full(target.shape, -1, dtype=np.int64)
    for offset in itertools.product((-1, 0, 1), repeat=target.ndim):
        grain = _shifted(front.grain, offset, wraps, -1)
        step = np.array([offset[0], up, *offset[1:], *[0] * (2 - len(offset))], dtype=float)
        time = _shifted(front.time, offset, wraps, np.inf)
        time = time + np.abs(axes @ step).sum(1)[grain % len(axes)]
        forward = (step[0] * slope + step[1]) / np.sqrt(1 + np.square(slope))
        time = time + GUIDANCE * (np.linalg.norm(step) - forward)
        first = target & (grain >= 0) & (time < best)
        best, winner = np.where(first, time, best), np.where(first, grain, winner)
    return Front(winner, best)


def _filled(front: Front, metal: np.ndarray, axes: np.ndarray, wraps: tuple[bool, ...]) -> Front:
    """Return the front with its bare metal taken from the side, voxel after voxel."""
    while (metal & (front.grain < 0)).any():
        side = _reached(front, metal & (front.grain < 0), 0.0, axes, wraps, up=0)
        fresh = side.grain >= 0
        if not fresh.any():
            break
        front = Front(
            np.where(fresh, side.grain, front.grain), np.where(fresh, side.time, front.time)
        )
    return front


def _shifted(
    field: np.ndarray, offset: tuple[int, ...], wraps: tuple[bool, ...], rim: float
) -> np.ndarray:
    """Return the field moved by whole voxels; what enters over an open rim has this value."""
    moved = np.roll(field, offset, axis=tuple(range(field.ndim)))
    for axis, (o, wrap) in enumerate(zip(offset, wraps, strict=True)):
        if o and not wrap:
            edge = [slice(None)] * field.ndim
            edge[axis] = slice(0, 1) if o > 0 else slice(-1, None)
            moved[tuple(edge)] = rim
    return moved
