"""Connected clusters of a phase, across periodic faces too, and which of them percolate."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from scipy import ndimage, sparse
from scipy.sparse import csgraph
from torch import Tensor

from microstructures import DataError
from physics.statistics.correlation import as_indicators, periodic_flags


@dataclass(frozen=True)
class Clusters:
    """The clusters of one sample: pieces inside the cell, joined where they meet across faces.

    Args:
        pieces: Piece of every voxel, `(*space)`, counted from 1; 0 outside the phase.
        cluster_of: Cluster of every piece, `(piece + 1,)`, counted from 1; 0 for 0.
        images: Cell in which each piece lies when its cluster is unwrapped, `(piece + 1, axis)`.
        spans: Whether each cluster percolates along each axis, `(cluster + 1, axis)`.
    """

    pieces: np.ndarray
    cluster_of: np.ndarray
    images: np.ndarray
    spans: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """Cluster of every voxel, `(*space)`."""
        return self.cluster_of[self.pieces]


def label_clusters(
    a: Shaped[Tensor, "batch *space"],
    *,
    periodic: bool | Sequence[bool] = True,
    connectivity: int = 1,
) -> Int64[Tensor, "batch *space"]:
    """Return the connected cluster that each voxel of a phase belongs to, counted from 1.

    Voxels outside the phase have 0. Clusters go on across periodic faces.

    Args:
        a: Indicators, `(batch, *space)`; soft ones are cut at 1/2.
        periodic: One flag for all axes, or one per axis.
        connectivity: 1 joins voxels by faces, 2 by edges too, 3 by corners too.

    Raises:
        DataError: Not 2-D or 3-D, or no such connectivity.

    >>> label_clusters(torch.tensor([[[1, 0, 1], [0, 0, 0], [0, 1, 0]]]))[0]
    tensor([[1, 0, 1],
            [0, 0, 0],
            [0, 2, 0]])
    """
    found = each_sample(a, periodic=periodic, connectivity=connectivity)
    labels = np.stack([clusters.labels for clusters in found])
    return torch.from_numpy(labels).to(a.device, torch.int64)


def percolating_part(
    a: Shaped[Tensor, "batch *space"],
    *,
    periodic: bool | Sequence[bool] = True,
    connectivity: int = 1,
) -> Bool[Tensor, "batch axis *space"]:
    """Return, per axis, the voxels of the phase whose cluster percolates along that axis.

    Along an axis that is not periodic a cluster percolates when it touches both faces; along a
    periodic one when it meets its own image a whole number of cells further along that axis, so
    that it goes on for ever. Arguments and errors as for `label_clusters`.
    """
    parts = [
        np.stack([spans[clusters.labels] for spans in clusters.spans.T])
        for clusters in each_sample(a, periodic=periodic, connectivity=connectivity)
    ]
    return torch.from_numpy(np.stack(parts)).to(a.device)


def percolates(
    a: Shaped[Tensor, "batch *space"],
    *,
    periodic: bool | Sequence[bool] = True,
    connectivity: int = 1,
) -> Bool[Tensor, "batch axis"]:
    """Return whether some cluster of the phase percolates along each axis.

    Arguments and errors as for `label_clusters`, the meaning as for `percolating_part`.
    """
    found = each_sample(a, periodic=periodic, connectivity=connectivity)
    return torch.from_numpy(np.stack([clusters.spans.any(0) for clusters in found])).to(a.device)


def percolating_fraction(
    a: Shaped[Tensor, "batch *space"],
    *,
    periodic: bool | Sequence[bool] = True,
    connectivity: int = 1,
) -> Float64[Tensor, "batch axis"]:
    """Return the share of the phase's volume in clusters that percolate along each axis.

    0 where the phase is absent. Arguments and errors as for `label_clusters`.
    """
    part = percolating_part(a, periodic=periodic, connectivity=connectivity)
    volume = is_inside(a).flatten(1).sum(1, dtype=torch.float64)
    return part.flatten(2).sum(2, dtype=torch.float64) / volume.clamp(min=1)[:, None]


def each_sample(
    a: Shaped[Tensor, "batch *space"], *, periodic: bool | Sequence[bool], connectivity: int
) -> list[Clusters]:
    """Return the clusters of every sample."""
    inside = is_inside(a).cpu().numpy()
    wraps = periodic_flags(periodic, inside.ndim - 1)
    if not 1 <= connectivity <= len(wraps):
        raise DataError(f"expected connectivity from 1 to {len(wraps)}, got {connectivity}")
    return [_find_clusters(sample, wraps, connectivity) for sample in inside]


def is_inside(a: Shaped[Tensor, "batch *space"]) -> Bool[Tensor, "batch *space"]:
    """Return indicators as booleans, soft ones cut at 1/2."""
    as_indicators(a[:1])
    return a > 0.5 if a.is_floating_point() else a != 0


def _find_clusters(inside: np.ndarray, wraps: Sequence[bool], connectivity: int) -> Clusters:
    structure = ndimage.generate_binary_structure(inside.ndim, connectivity)
    pieces, count = ndimage.label(inside, structure)  # pyright: ignore[reportGeneralTypeIssues]
    contacts = list(_contacts(pieces, wraps, connectivity))
    rows = np.concatenate([np.zeros((0, 2 + inside.ndim), dtype=np.int64), *contacts])
    rows = np.unique(rows, axis=0)
    joined = sparse.coo_array((np.ones(len(rows)), rows[:, :2].T), (count + 1, count + 1))
    # Components count in the order of their first piece; 0, the outside, meets nothing.
    _, cluster_of = csgraph.connected_components(joined, directed=False)
    images = _unwrapped(rows, cluster_of, count + 1)
    spans = np.zeros((int(cluster_of.max()) + 1, inside.ndim), dtype=bool)
    turns = images[rows[:, 0]] + rows[:, 2:] - images[rows[:, 1]]
    for axis in range(inside.ndim):
        spans[cluster_of[rows[turns[:, axis] != 0, 0]], axis] = True
    for axis, wrap in enumerate(wraps):
        if not wrap:
            faces = (cluster_of[pieces.take(end, axis)] for end in (0, -1))
            spans[np.intersect1d(*faces), axis] = True
    spans[0] = False
    return Clusters(pieces, cluster_of, images, spans)


def _contacts(
    pieces: np.ndarray, wraps: Sequence[bool], connectivity: int
) -> Iterator[Int64[np.ndarray, "contact columns"]]:
    """Yield (piece, piece it meets across a periodic face, cell in which it meets it)."""
    axes = range(pieces.ndim)
    for axis in axes:
        if not wraps[axis]:
            continue
        below, above = pieces.take(-1, axis), pieces.take(0, axis)
        for step in itertools.product((-1, 0, 1), repeat=pieces.ndim - 1):
            if np.count_nonzero(step) >= connectivity:
                continue
            beside = np.roll(above, [-k for k in step], range(above.ndim))
            met = (below > 0) & (beside > 0)
            places, cell = np.nonzero(met), [1] * pieces.ndim
            others = [other for other in axes if other != axis]
            valid = np.ones(len(places[0]), dtype=bool)
            for other, place, k in zip(others, places, step, strict=True):
                cell[other] = (place + k) // pieces.shape[other]
                valid &= wraps[other] | (cell[other] == 0)
            columns = np.broadcast_arrays(below[met], beside[met], *cell)
            yield np.stack(columns, 1).astype(np.int64)[valid]


def _unwrapped(rows: np.ndarray, cluster_of: np.ndarray, count: int) -> np.ndarray:
    """Return the cell of every piece such that pieces lie as they meet, but around a winding."""
    _, first = np.unique(cluster_of, return_index=True)
    # A tree from one root through the first piece of every cluster to all its pieces.
    ends = np.concatenate([rows[:, :2], np.stack([np.full_like(first, count), first], 1)])
    tree = sparse.csr_array((np.ones(len(ends)), ends.T), (count + 1, count + 1))
    _, parent = csgraph.breadth_first_order(tree, count, directed=False)
    parent = parent[:count]
    parent[first] = first
    # Each contact both ways, to be looked up by the pair (parent, piece).
    both = np.concatenate([rows, np.concatenate([rows[:, 1::-1], -rows[:, 2:]], 1)])
    keys = both[:, 0] * count + both[:, 1]
    order = np.argsort(keys, kind="stable")
    images = np.zeros((count, rows.shape[1] - 2), dtype=np.int64)
    child = np.flatnonzero(parent != np.arange(count))
    wanted = parent[child].astype(np.int64) * count + child
    images[child] = both[order[np.searchsorted(keys, wanted, sorter=order)], 2:]
    while (parent != parent[parent]).any():
        images, parent = images + images[parent], parent[parent]
    return images
