"""Crops of label maps: resampling by majority, and windows that hold no ignored voxel."""

import math
from collections.abc import Sequence

import numpy as np

from microstructures.seeds import derive_seed


def resample_labels(
    labels: np.ndarray, ignored: np.ndarray, *, factor: float, n_phases: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and ignored voxels on a grid whose voxels are `factor` times as wide.

    Coarser: each new voxel takes the phase with the largest share of its area (of the smallest
    label when shares are equal), and is ignored when it touches an ignored voxel at all. Finer:
    the nearest old voxel. A rest at the far edge that fills no whole voxel is dropped.

    Args:
        labels: Shape `(*space)`; values at ignored voxels do not matter.
        ignored: Booleans, shape `(*space)`.
        factor: New voxel size divided by the old one.
        n_phases: Labels are below this number.
    """
    if math.isclose(factor, 1.0, rel_tol=1e-9):
        return labels, ignored
    sizes = [math.floor(n / factor + 1e-6) for n in labels.shape]
    if factor < 1:
        nearest = _nearest(sizes, labels.shape, factor)
        return labels[nearest], ignored[nearest]
    weights = [_overlaps(m, n, factor) for m, n in zip(sizes, labels.shape, strict=True)]
    best = np.zeros(sizes, np.float32)
    coarse = np.zeros(sizes, np.uint8)
    for phase in range(n_phases):
        share = _average((labels == phase) & ~ignored, weights)
        larger = share > best + 1e-5
        best[larger] = share[larger]
        coarse[larger] = phase
    return coarse, _average(ignored, weights) > 1e-6


def resample_grey(grey: np.ndarray, *, factor: float) -> np.ndarray:
    """Return grey values on a grid whose voxels are `factor` times as wide, as float32.

    Coarser: the mean over the new voxel. Finer: the nearest old voxel. The grid is that of
    `resample_labels`.
    """
    if math.isclose(factor, 1.0, rel_tol=1e-9):
        return grey.astype(np.float32)
    sizes = [math.floor(n / factor + 1e-6) for n in grey.shape]
    if factor < 1:
        return grey[_nearest(sizes, grey.shape, factor)].astype(np.float32)
    weights = [_overlaps(m, n, factor) for m, n in zip(sizes, grey.shape, strict=True)]
    return _average(grey, weights)


def crop_origins(
    ignored: np.ndarray,
    *,
    crop: int,
    stride: int,
    count: int | None = None,
    seed: Sequence[int | str] = (0,),
) -> list[tuple[int, ...]]:
    """Return the low corners of crops without ignored voxels, in order of the axes.

    Corners lie on an even grid over the box of used voxels, from edge to edge, at most `stride`
    apart; of these, `count` are drawn at random without repetition (all, if there are fewer).

    Args:
        ignored: Booleans, shape `(*space)`.
        crop: Voxels per side.
        stride: Largest distance of neighbouring corners; 1 allows every position.
        count: How many to draw; None takes all.
        seed: Parts for `derive_seed`.
    """
    used = ~ignored
    if not used.any():
        return []
    grid = []
    for axis in range(used.ndim):
        along = np.flatnonzero(used.any(axis=tuple(a for a in range(used.ndim) if a != axis)))
        grid.append(_corners(int(along[0]), int(along[-1]) + 1, crop, stride))
    clean = np.argwhere(_window_sums(ignored, grid, crop) == 0)
    if count is not None and count < len(clean):
        draw = np.random.default_rng(derive_seed(*seed)).choice(len(clean), count, replace=False)
        clean = clean[np.sort(draw)]
    return [tuple(int(grid[a][k]) for a, k in enumerate(index)) for index in clean]


def _nearest(sizes: Sequence[int], old: Sequence[int], factor: float) -> tuple[np.ndarray, ...]:
    """Return the open mesh of old voxels that are nearest to each new one."""
    return np.ix_(
        *[
            np.minimum(((np.arange(m) + 0.5) * factor).astype(int), n - 1)
            for m, n in zip(sizes, old, strict=True)
        ]
    )


def _corners(low: int, high: int, crop: int, stride: int) -> np.ndarray:
    room = high - low - crop
    if room < 0:
        return np.empty(0, int)
    steps = math.ceil(room / stride)
    return low + np.round(np.linspace(0, room, steps + 1)).astype(int)


def _window_sums(mask: np.ndarray, grid: Sequence[np.ndarray], crop: int) -> np.ndarray:
    """Count the true voxels in each window, one axis after the other by running sums."""
    total = mask.astype(np.int64)
    for axis, corners in enumerate(grid):
        before = np.zeros_like(np.take(total, [0], axis))
        running = np.concatenate([before, np.cumsum(total, axis)], axis)
        total = np.take(running, corners + crop, axis) - np.take(running, corners, axis)
    return total


def _overlaps(m: int, n: int, factor: float) -> np.ndarray:
    """Share of new voxel k (of m) that old voxel i (of n) covers, shape `(m, n)`."""
    low, left = np.arange(m)[:, None] * factor, np.arange(n)[None]
    shared = np.minimum(low + factor, left + 1) - np.maximum(low, left)
    return (np.clip(shared, 0, None) / factor).astype(np.float32)


def _average(field: np.ndarray, weights: Sequence[np.ndarray]) -> np.ndarray:
    field = field.astype(np.float32)
    for axis, overlap in enumerate(weights):
        field = np.moveaxis(np.tensordot(overlap, field, axes=(1, axis)), 0, axis)
    return field
