"""The two-point cluster function: how often two points lie in one and the same cluster."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Shaped
from scipy.fft import next_fast_len
from torch import Tensor

from physics.statistics.clusters import Clusters, each_sample
from physics.statistics.correlation import periodic_flags
from physics.statistics.lag_maps import lag_maps

PAIRS_PER_VOXEL = 16
"""Pairs counted one by one in the time that one voxel of a transformed box takes."""

CHUNK = 2**22
"""Pairs or voxels held at a time."""


def two_point_cluster(
    a: Shaped[Tensor, "batch *space"],
    *,
    periodic: bool | Sequence[bool] = True,
    connectivity: int = 1,
) -> Float64[Tensor, "batch *lag"]:
    """Return the probability that x and x + r lie in the same cluster of the phase.

    C2(r) of Torquato, Beasley and Chiew 1988 (doi:10.1063/1.454440), the connected part of the
    two-point correlation: S2 - C2 is the probability that both lie in the phase, but in different
    clusters. C2(0) is the fraction, and the sum of C2 over all lags of a periodic cell is the
    fraction times the mean size of the cluster about a point of the phase. Lags and the number of
    pairs are those of `two_point_correlation`. Not differentiable.

    Pairs are counted exactly, those of small clusters one by one, those of large ones by FFT on
    the box around each.

    Args:
        a: Indicators, `(batch, *space)`; soft ones are cut at 1/2.
        periodic: One flag for all axes, or one per axis; clusters go on across periodic faces.
        connectivity: 1 joins voxels by faces, 2 by edges too, 3 by corners too.

    Raises:
        DataError: Not 2-D or 3-D, or no such connectivity.

    >>> checkerboard = torch.tensor([[[1, 0], [0, 1]]])
    >>> two_point_cluster(checkerboard)[0]
    tensor([[0.5000, 0.0000],
            [0.0000, 0.0000]], dtype=torch.float64)
    """
    found = each_sample(a, periodic=periodic, connectivity=connectivity)
    wraps = periodic_flags(periodic, a.ndim - 1)
    maps = np.stack([_cluster_map(clusters, wraps) for clusters in found])
    return torch.from_numpy(maps).to(a.device)


@dataclass(frozen=True)
class _Boxes:
    """Voxels of one sample sorted by cluster, and the box around each cluster.

    Args:
        points: Places in the cell, `(voxel, axis)`.
        local: Places in the box, from 0, `(voxel, axis)`.
        sizes: Voxels of each cluster, `(cluster,)`.
        sides: Box of each cluster, `(cluster, axis)`, a little larger than needed so that fewer
            sizes of transforms occur.
        whole: Whether the box is as long as the periodic cell, `(cluster, axis)`: where there is
            no room for all lags, as when the cluster winds round it.
    """

    points: np.ndarray
    local: np.ndarray
    sizes: np.ndarray
    sides: np.ndarray
    whole: np.ndarray

    @classmethod
    def around(cls, clusters: Clusters, wraps: Sequence[bool]) -> "_Boxes":
        shape = np.array(clusters.pieces.shape)
        points = np.argwhere(clusters.pieces)
        pieces = clusters.pieces[tuple(points.T)]
        order = np.argsort(clusters.cluster_of[pieces], kind="stable")
        points, pieces = points[order], pieces[order]
        sizes = np.bincount(clusters.cluster_of[pieces], minlength=len(clusters.spans))[1:]
        starts = np.cumsum(sizes) - sizes
        unwrapped = points + clusters.images[pieces] * shape
        low = np.minimum.reduceat(unwrapped, starts)
        extent = np.maximum.reduceat(unwrapped, starts) - low + 1
        fast = [int(next_fast_len(max(2 * n - 1, 1), True) or 0) for n in range(extent.max() + 1)]
        sides = np.minimum((np.array(fast)[extent] + 1) // 2, shape)
        whole = np.array(wraps) & (2 * sides - 1 >= shape)
        local = np.where(np.repeat(whole, sizes, 0), points, unwrapped - np.repeat(low, sizes, 0))
        return cls(points, local, sizes, np.where(whole, shape, sides), whole)

    @property
    def few(self) -> np.ndarray:
        """Whether a cluster has so few voxels that its pairs are counted one by one."""
        lags = np.where(self.whole, self.sides, 2 * self.sides - 1)
        return self.sizes**2 <= PAIRS_PER_VOXEL * lags.prod(1)

    def rows(self, chosen: np.ndarray) -> np.ndarray:
        """Return the rows of the voxels of some clusters, one cluster after the other."""
        sizes = self.sizes[chosen]
        shifts = (np.cumsum(self.sizes) - self.sizes)[chosen] - (np.cumsum(sizes) - sizes)
        return np.arange(sizes.sum()) + np.repeat(shifts, sizes)

    def filled(self, chosen: np.ndarray) -> Float64[Tensor, "cluster *space"]:
        """Return the indicators of clusters with equal boxes."""
        boxes = np.zeros((len(chosen), *self.sides[chosen[0]]))
        which = np.repeat(np.arange(len(chosen)), self.sizes[chosen])
        boxes[(which, *self.local[self.rows(chosen)].T)] = 1
        return torch.from_numpy(boxes)


def _cluster_map(clusters: Clusters, wraps: Sequence[bool]) -> Float64[np.ndarray, "*lag"]:
    """Return C2 of one sample."""
    shape = clusters.pieces.shape
    counts = np.zeros([n if wrap else 2 * n - 1 for n, wrap in zip(shape, wraps, strict=True)])
    if clusters.pieces.any():
        boxes = _Boxes.around(clusters, wraps)
        _add_one_by_one(counts, boxes, shape)
        _add_by_transform(counts, boxes)
    for pairs in _numbers_of_pairs(shape, wraps):
        counts /= pairs
    return counts


def _add_one_by_one(
    counts: Float64[np.ndarray, "*lag"], boxes: _Boxes, shape: tuple[int, ...]
) -> None:
    """Add the numbers of pairs in small clusters, for every lag."""
    wide = [2 * n - 1 for n in shape]
    # A voxel's place on a grid wide enough for the difference of two places to name their lag.
    place = boxes.points @ np.cumprod([1, *wide[:0:-1]])[::-1]
    found = np.zeros(math.prod(wide), dtype=np.int64)
    held: list[np.ndarray] = []
    for size in np.unique(boxes.sizes[boxes.few]):
        chosen = np.flatnonzero(boxes.few & (boxes.sizes == size))
        for part in _runs(chosen, int(size) ** 2):
            at = place[boxes.rows(part)].reshape(-1, size)
            held.append((at[:, :, None] - at[:, None, :] + len(found) // 2).ravel())
            if sum(map(len, held)) >= CHUNK:
                found += np.bincount(np.concatenate(held), minlength=len(found))
                held = []
    found += np.bincount(np.concatenate([*held, np.zeros(0, int)]), minlength=len(found))
    found = found.reshape(wide)
    for axis, (n, lags) in enumerate(zip(shape, counts.shape, strict=True)):
        found = np.moveaxis(found, axis, 0)
        found = np.concatenate([found[n - 1 :], found[: n - 1]])
        if lags == n:
            found[1:n] += found[n:]
        found = np.moveaxis(found[:lags], 0, axis)
    counts += found


def _add_by_transform(counts: Float64[np.ndarray, "*lag"], boxes: _Boxes) -> None:
    """Add the numbers of pairs in large clusters, those in equal boxes together."""
    large = np.flatnonzero(~boxes.few)
    kinds = np.stack([boxes.sides, boxes.whole], 1)[large]
    kinds, kind_of = np.unique(kinds, axis=0, return_inverse=True)
    for k, (side, whole) in enumerate(kinds.tolist()):
        chosen, whole = large[kind_of.ravel() == k], [bool(w) for w in whole]
        lags = [np.arange(n if w else 2 * n - 1) for n, w in zip(side, whole, strict=True)]
        found = np.zeros([len(r) for r in lags])
        for part in _runs(chosen, found.size):
            maps = lag_maps([boxes.filled(part)], [(0, 0)], wraps=whole)[0]
            found += maps.sum(0).numpy()
        for pairs in _numbers_of_pairs(side, whole):
            found *= pairs
        signed = [np.where(r < n, r, r - len(r)) for r, n in zip(lags, side, strict=True)]
        into = np.ix_(*[r % n for r, n in zip(signed, counts.shape, strict=True)])
        counts[into] += np.rint(found)


def _runs(chosen: np.ndarray, cost: int) -> list[np.ndarray]:
    """Split clusters of equal cost each into runs of about a chunk."""
    step = max(1, CHUNK // cost)
    return [chosen[start : start + step] for start in range(0, len(chosen), step)]


def _numbers_of_pairs(shape: Sequence[int], wraps: Sequence[bool]) -> list[np.ndarray]:
    """Return, per axis, the number of places x with x + r in the cell, to be multiplied."""
    numbers = []
    for axis, (n, wrap) in enumerate(zip(shape, wraps, strict=True)):
        k = np.arange(n if wrap else 2 * n - 1)
        along = np.full(n, n) if wrap else n - np.minimum(k, 2 * n - 1 - k)
        numbers.append(along.reshape(-1, *[1] * (len(shape) - 1 - axis)))
    return numbers
