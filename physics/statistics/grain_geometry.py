"""Geometry of numbered grains on voxels: extents, moments, boundaries, chords and sections."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from microstructures import DataError

# Weights of axis, face-diagonal and body-diagonal directions in the mean over the sphere: the
# shares of its surface nearest to each (Legland, Kieu and Devaux 2007, doi:10.5566/ias.v26.p83-92).
DIRECTION_WEIGHTS = {
    2: (0.25, 0.25),
    3: (2 * 0.04577789120476, 2 * 0.03698062787608, 2 * 0.03519563978232),
}


@dataclass(frozen=True)
class Grains:
    """Voxels numbered by grain over the whole batch, -1 in the background."""

    ids: np.ndarray
    sample: np.ndarray
    label: np.ndarray
    voxels: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, background: int | None) -> "Grains":
        low, stride = int(labels.min()), int(labels.max()) - int(labels.min()) + 1
        sample = np.arange(len(labels)).reshape(-1, *[1] * (labels.ndim - 1))
        codes, ids, voxels = np.unique(
            (labels - low) + stride * sample, return_inverse=True, return_counts=True
        )
        label = codes % stride + low
        kept = label != background
        if not kept.any():
            raise DataError(
                f"expected grains beside the background {background}, got none; pass labels with "
                "at least one grain"
            )
        number = np.where(kept, kept.cumsum() - 1, -1)
        ids = number[ids.reshape(labels.shape)]
        return cls(ids, codes[kept] // stride, label[kept], voxels[kept])

    def pairs(self, step: Sequence[int], flags: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
        """Return the grains of all voxels a step apart that lie inside the sample."""
        here, there = self.ids, self.ids
        for axis, (k, wrap) in enumerate(zip(step, flags, strict=True), start=1):
            n = self.ids.shape[axis]
            if wrap:
                there = np.roll(there, -k, axis)
            else:
                here = here.take(range(max(-k, 0), n - max(k, 0)), axis)
                there = there.take(range(max(k, 0), n + min(k, 0)), axis)
        return here, there

    def count(self, ids: np.ndarray) -> np.ndarray:
        """Return how often each grain occurs among ids."""
        return np.bincount(ids[ids >= 0].ravel(), minlength=len(self.voxels))


@dataclass(frozen=True)
class Extents:
    """Where each grain lies: unwrapped voxel positions, rims, and weight as a complete grain."""

    positions: tuple[np.ndarray, ...]
    unbounded: np.ndarray
    cut: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, grains: Grains, flags: Sequence[bool]) -> "Extents":
        inside = grains.ids >= 0
        where = np.nonzero(inside)[1:]
        ids, n_grains = grains.ids[inside], len(grains.voxels)
        positions = []
        unbounded, cut = np.zeros(n_grains, bool), np.zeros(n_grains, bool)
        weight = np.ones(n_grains)
        for n, x, wrap in zip(grains.ids.shape[1:], where, flags, strict=True):
            occupied = np.zeros((n_grains, n), bool)
            occupied[ids, x] = True
            if wrap:
                x = (x - _after_widest_gap(occupied)[ids]) % n
                unbounded |= occupied.all(1)
            else:
                extent = n - occupied.argmax(1) - occupied[:, ::-1].argmax(1)
                cut |= occupied[:, 0] | occupied[:, -1]
                weight *= (n - 1) / np.maximum(n - 1 - extent, 1)
            positions.append(x)
        return cls(tuple(positions), unbounded, cut, np.where(cut, 0.0, weight))


def equivalent_diameter(voxels: np.ndarray, ndim: int) -> np.ndarray:
    """Return the diameter in voxels of the disc or ball of as many voxels."""
    unit_ball = {2: math.pi, 3: 4 * math.pi / 3}[ndim]
    return 2 * (voxels / unit_ball) ** (1 / ndim)


def _after_widest_gap(occupied: np.ndarray) -> np.ndarray:
    """Return the first coordinate after each grain's widest gap on a closed axis."""
    n_grains, n = occupied.shape
    run, widest, start = (np.zeros(n_grains, np.int64) for _ in range(3))
    for k in range(2 * n):
        run = np.where(occupied[:, k % n], 0, run + 1)
        wider = run > widest
        widest, start = np.where(wider, run, widest), np.where(wider, (k + 1) % n, start)
    return start


def ellipsoids(grains: Grains, extents: Extents) -> tuple[np.ndarray, np.ndarray]:
    """Return semi-axes, falling, and the direction of the first."""
    ids, ndim = grains.ids[grains.ids >= 0], len(extents.positions)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(ids, values, len(grains.voxels)) / grains.voxels

    apart = [x - mean(x)[ids] for x in extents.positions]
    # A voxel is a cube, with second moments of its own.
    moments = np.array([[mean(u * v) for v in apart] for u in apart]).transpose(2, 0, 1)
    values, vectors = np.linalg.eigh(moments + np.eye(ndim) / 12)
    major = vectors[:, :, -1]
    first = (np.abs(major) > 1e-9).argmax(1)
    major = major * np.sign(np.take_along_axis(major, first[:, None], 1))
    values[extents.unbounded], major[extents.unbounded] = np.nan, np.nan
    return np.sqrt((ndim + 2) * values[:, ::-1]), major


def neighbours(grains: Grains, flags: Sequence[bool]) -> np.ndarray:
    """Return with how many other grains each shares a voxel face."""
    codes, n_grains = [], len(grains.voxels)
    for step in np.eye(len(flags), dtype=int).tolist():
        here, there = grains.pairs(step, flags)
        met = (here != there) & (here >= 0) & (there >= 0)
        low, high = np.minimum(here, there)[met], np.maximum(here, there)[met]
        codes.append(np.unique(low * n_grains + high))
    low, high = np.divmod(np.unique(np.concatenate(codes)), n_grains)
    return grains.count(low) + grains.count(high)


def boundary(grains: Grains, flags: Sequence[bool]) -> np.ndarray:
    """Return each grain's perimeter or surface in voxel edges or faces, by Crofton's formula."""
    ndim = len(flags)
    total = np.zeros(len(grains.voxels))
    for step in _half_of_the_directions(ndim):
        here, there = grains.pairs(step, flags)
        differ = here != there
        crossings = grains.count(here[differ]) + grains.count(there[differ])
        n_steps = sum(map(abs, step))
        total += DIRECTION_WEIGHTS[ndim][n_steps - 1] * crossings / math.sqrt(n_steps)
    return {2: math.pi / 2, 3: 2.0}[ndim] * total


def _half_of_the_directions(ndim: int) -> Iterator[tuple[int, ...]]:
    for step in itertools.product((-1, 0, 1), repeat=ndim):
        if step > (0,) * ndim:
            yield step


def mean_intercepts(grains: Grains, flags: Sequence[bool]) -> np.ndarray:
    """Return the mean chord in voxels of each sample along each axis."""
    intercepts = []
    for step in np.eye(len(flags), dtype=int).tolist():
        ends = grains.pairs(step, flags)
        differ = ends[0] != ends[1]
        axes = tuple(range(1, differ.ndim))
        length = np.sum([(end >= 0).sum(axes) for end in ends], axis=0)
        chords = np.sum([(differ & (end >= 0)).sum(axes) for end in ends], axis=0)
        intercepts.append(ratio(length, chords, otherwise=np.inf))
    return np.stack(intercepts, 1)


def sections(grains: Grains, flags: Sequence[bool]) -> np.ndarray:
    """Return each sample's grain sections per voxel face of plane, the mean over all planes."""
    if len(flags) == 2:
        return _sections_of_planes(grains.ids[:, None], flags, len(grains.voxels))
    return np.mean(
        [
            _sections_of_planes(
                np.moveaxis(grains.ids, normal + 1, 1),
                [*flags[:normal], *flags[normal + 1 :]],
                len(grains.voxels),
            )
            for normal in range(3)
        ],
        axis=0,
    )


def _sections_of_planes(ids: np.ndarray, flags: Sequence[bool], n_grains: int) -> np.ndarray:
    n_samples, n_planes, *sides = ids.shape
    plane = np.arange(n_samples * n_planes).reshape(n_samples, n_planes, 1, 1)
    codes = np.where(ids >= 0, plane * n_grains + ids, -1)
    found = np.unique(codes[codes >= 0])
    share, area = np.ones(len(found)), 1
    for axis, (n, wrap) in enumerate(zip(sides, flags, strict=True), start=2):
        area *= n if wrap else n - 1
        if not wrap:
            rims = (np.isin(found, codes.take(k, axis)) for k in (0, -1))
            share *= 1 - sum(rims) / 2
    sample = found // (n_grains * n_planes)
    return np.bincount(sample, share, n_samples) / (n_planes * area)


def ratio(a: np.ndarray, b: np.ndarray, *, otherwise: float) -> np.ndarray:
    """Return a / b, and `otherwise` where b is not above 0."""
    return np.divide(a, b, out=np.full(np.shape(a), otherwise), where=b > 0)
