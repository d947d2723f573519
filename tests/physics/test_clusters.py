"""Clusters, winding and percolation against a flood fill that walks the unwrapped lattice."""

import itertools
from collections import deque

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from microstructures import DataError
from physics.statistics import (
    label_clusters,
    percolates,
    percolating_fraction,
    percolating_part,
)

from .test_correlation import soft

SHAPES = [(5, 6), (1, 4), (2, 3), (3, 4, 4)]


def neighbours(ndim, connectivity):
    steps = itertools.product((-1, 0, 1), repeat=ndim)
    return [v for v in steps if 0 < sum(map(abs, v)) <= connectivity]


def flood(inside, flags, connectivity):
    """Labels of one sample, and which clusters percolate along each axis, voxel by voxel."""
    shape = inside.shape
    labels = torch.zeros(shape, dtype=torch.int64)
    spans = [[False] * len(shape)]
    for seed in map(tuple, inside.nonzero().tolist()):
        if labels[seed]:
            continue
        spans.append([False] * len(shape))
        place, queue = {seed: seed}, deque([seed])
        labels[seed] = len(spans) - 1
        while queue:
            here = queue.popleft()
            for v in neighbours(len(shape), connectivity):
                there = tuple(x + k for x, k in zip(place[here], v, strict=True))
                cell = [x // n for x, n in zip(there, shape, strict=True)]
                if any(c and not wrap for c, wrap in zip(cell, flags, strict=True)):
                    continue
                voxel = tuple(x % n for x, n in zip(there, shape, strict=True))
                if not inside[voxel]:
                    continue
                if voxel not in place:
                    place[voxel] = there
                    labels[voxel] = len(spans) - 1
                    queue.append(voxel)
                for axis, (x, y) in enumerate(zip(there, place[voxel], strict=True)):
                    spans[-1][axis] |= x != y
        for axis, wrap in enumerate(flags):
            if not wrap:
                rows = {voxel[axis] for voxel in place}
                spans[-1][axis] = {0, shape[axis] - 1} <= rows
    return labels, torch.tensor(spans)


@given(st.integers(0, 10_000), st.sampled_from(SHAPES), st.floats(0.2, 0.8), st.data())
def test_labels_and_percolation_equal_those_of_a_flood_fill(seed, shape, fraction, data):
    a = soft(shape, batch=2, seed=seed) < fraction
    flags = data.draw(st.tuples(*[st.booleans()] * len(shape)))
    connectivity = data.draw(st.integers(1, len(shape)))
    options = {"periodic": flags, "connectivity": connectivity}
    found = label_clusters(a, **options)
    part = percolating_part(a, **options)
    for k in range(2):
        labels, spans = flood(a[k], flags, connectivity)
        # The same partition: each label of one goes with one label of the other.
        both = torch.stack([labels, found[k]]).flatten(1).unique(dim=1)
        assert both.shape[1] == len(labels.unique()) == len(found[k].unique())
        assert int(found[k].max()) == len(spans) - 1
        for axis in range(len(shape)):
            assert torch.equal(part[k, axis], spans[labels, axis])
    assert torch.equal(percolates(a, **options), part.flatten(2).any(2))
    share = part.flatten(2).sum(2) / a.flatten(1).sum(1).clamp(min=1)[:, None]
    assert torch.allclose(percolating_fraction(a, **options), share.double(), atol=1e-7)


def test_touching_both_periodic_faces_is_not_winding():
    # A bracket: it crosses the face of axis 1, but goes back the way it came.
    bracket = torch.zeros(1, 6, 6)
    bracket[0, 1, [5, 0]] = 1
    assert int(label_clusters(bracket).max()) == 1
    assert percolates(bracket).tolist() == [[False, False]]
    assert int(label_clusters(bracket, periodic=False).max()) == 2
    bracket[0, 1, :] = 1
    assert percolates(bracket).tolist() == [[False, True]]


def test_a_helix_winds_along_every_axis_it_advances_on():
    # Round axis 1 once while it climbs axis 0 once: neither row nor column is full.
    helix = torch.zeros(1, 8, 8)
    steps = torch.arange(8)
    helix[0, steps, steps] = 1
    assert percolates(helix, connectivity=2).tolist() == [[True, True]]
    assert percolates(helix, connectivity=1).tolist() == [[False, False]]
    assert percolates(helix, connectivity=2, periodic=(True, False)).tolist() == [[False, True]]
    helix[0, steps, (steps + 1) % 8] = 1
    assert percolates(helix, connectivity=1).tolist() == [[True, True]]


def test_a_checkerboard_is_joined_by_corners_only():
    board = (torch.arange(6)[:, None] + torch.arange(6)) % 2 == 0
    assert int(label_clusters(board[None]).max()) == 18
    assert int(label_clusters(board[None], connectivity=2).max()) == 1
    assert not percolates(board[None]).any()
    assert percolates(board[None], connectivity=2).all()


def test_percolating_fraction_leaves_islands_out():
    cell = torch.zeros(1, 8, 10, 10)
    cell[0, :, 2, 2] = 1
    cell[0, 3, 6:8, 6:8] = 1
    assert percolating_fraction(cell, periodic=False)[0].tolist() == pytest.approx([8 / 12, 0, 0])
    assert percolating_fraction(torch.zeros(1, 4, 4)).tolist() == [[0, 0]]
    part = percolating_part(cell, periodic=False)
    assert torch.equal(part[0, 0].nonzero()[:, 1:].unique(dim=0), torch.tensor([[2, 2]]))


def test_bad_input_is_refused():
    with pytest.raises(DataError, match="connectivity from 1 to 2"):
        label_clusters(torch.ones(1, 4, 4), connectivity=3)
    with pytest.raises(DataError, match="batch"):
        percolates(torch.ones(4, 4))
