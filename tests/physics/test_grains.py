"""Grain statistics against tilings in closed form, Euler's relation, discs and Poisson-Voronoi."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from microstructures import DataError
from physics.statistics.grains import (
    grain_size_number,
    grain_statistics,
    planimetric_grain_size_number,
)


def boxes(shape, sides):
    """Labels of a tiling by boxes."""
    counts = [n // s for n, s in zip(shape, sides, strict=True)]
    index = [k // s for k, s in zip(np.indices(shape), sides, strict=True)]
    return np.ravel_multi_index(index, counts)[None]


def voronoi(shape, sites):
    """Labels of the periodic Voronoi tessellation of sites in voxels."""
    centres = np.stack([k.ravel() for k in np.indices(shape)], 1) + 0.5
    return cKDTree(sites % shape, boxsize=shape).query(centres)[1].reshape(shape)


def poisson_voronoi(shape, *, cells, n, seed):
    """Labels of n Voronoi tessellations of as many uniform sites."""
    rng = np.random.default_rng(seed)
    return np.stack([voronoi(shape, rng.random((cells, len(shape))) * shape) for _ in range(n)])


def ellipsoid(shape, centre, semi_axes, turn):
    """One ellipsoid (label 1) in a periodic background 0; columns of `turn` are its axes."""
    grid = np.indices(shape).reshape(len(shape), -1).T + 0.5
    apart = (grid - centre + np.array(shape) / 2) % shape - np.array(shape) / 2
    return ((apart @ turn / semi_axes) ** 2).sum(1).reshape(1, *shape) < 1


@pytest.mark.parametrize(
    ("shape", "sides", "sphericity"),
    [
        ((72, 72), (24, 24), math.sqrt(math.pi) / 2),
        ((24, 32), (6, 8), None),
        ((12, 18, 16), (4, 6, 4), None),
        ((54, 54, 54), (18, 18, 18), (math.pi / 6) ** (1 / 3)),
    ],
)
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_boxes_have_their_closed_forms(shape, sides, sphericity, kind):
    h, ndim = 0.25, len(shape)
    found = grain_statistics(kind(boxes(shape, sides)), voxel_size_um=h)
    assert found.sample.tolist() == [0] * len(found.label)
    assert (found.voxels == math.prod(sides)).all()
    assert (found.neighbours == 2 * ndim).all()
    measure = math.prod(sides) * h**ndim
    ball = math.pi / 4 if ndim == 2 else math.pi / 6
    assert np.allclose(ball * found.equivalent_diameter_um**ndim, measure)
    # A box of side a has the variance a^2 / 12 along it.
    expected = np.sqrt((ndim + 2) / 12) * h * np.sort(sides)[::-1]
    assert np.allclose(found.semi_axes_um, expected)
    assert np.allclose(found.aspect_ratio, max(sides) / min(sides))
    assert np.allclose(found.mean_intercept_um, h * np.array(sides))
    planes = itertools.combinations(sides, 2)
    sections = np.mean([1 / (a * b) for a, b in planes]) / (h * 1e-3) ** 2
    assert np.allclose(found.sections_per_mm2, sections)
    assert not found.cut.any()
    assert (found.weight == 1).all()
    if sphericity:
        assert np.allclose(found.sphericity, sphericity, rtol=0.12)
        assert (found.sphericity > sphericity).all()


def test_bricks_have_six_sides():
    rows, columns = np.indices((24, 32))
    bricks = rows // 4 * 4 + (columns + rows // 4 % 2 * 4) % 32 // 8
    found = grain_statistics(bricks[None])
    assert (found.neighbours == 6).all()
    assert len(found.label) == 24
    assert np.allclose(found.major_axis, [0, 1])


def test_hexagons():
    # Lattice of regular hexagons of area A: distance of flats sqrt(2 A / sqrt 3).
    side, columns, rows = 30.0, 6, 8
    shape = (round(columns * math.sqrt(3) * side), round(rows * 1.5 * side))
    sites = [
        ((i + (j % 2) / 2) * shape[0] / columns, j * shape[1] / rows)
        for i in range(columns)
        for j in range(rows)
    ]
    found = grain_statistics(voronoi(shape, np.array(sites) + 0.1)[None])
    assert (found.neighbours == 6).all()
    area = 1.5 * math.sqrt(3) * side**2
    assert np.allclose(found.equivalent_diameter_um, math.sqrt(4 * area / math.pi), rtol=5e-3)
    assert np.allclose(found.sphericity, math.sqrt(math.pi / (2 * math.sqrt(3))), rtol=0.02)
    # Mean chord along a direction: area over the width across it.
    chords = [area / (2 * side), area / (math.sqrt(3) * side)]
    assert np.allclose(found.mean_intercept_um, chords, rtol=5e-3)


def connected_pieces(labels):
    """Labels of the regions that hang together by voxel faces: sharp tips come off."""
    number = np.arange(labels.size).reshape(labels.shape)
    same = [(labels == np.roll(labels, -1, axis), axis) for axis in (1, 2)]
    here = np.concatenate([number[alike] for alike, _ in same])
    there = np.concatenate([np.roll(number, -1, axis)[alike] for alike, axis in same])
    graph = coo_array((np.ones(len(here)), (here, there)), shape=(labels.size,) * 2)
    return connected_components(graph, directed=False)[1].reshape(labels.shape)


def test_cells_have_six_sides_on_average():
    # Euler on the torus, V - E + F = 0: 2 E / F = 6 - 2 V4 / F, where V4 corners have four sides,
    # which a voxel grid makes of sides shorter than a voxel.
    labels = connected_pieces(poisson_voronoi((128, 128), cells=50, n=4, seed=4))
    found = grain_statistics(labels)
    right, below = np.roll(labels, -1, 2), np.roll(labels, -1, 1)
    across = np.roll(right, -1, 1)
    fourfold = (labels != right) & (right != across) & (across != below) & (below != labels)
    assert 0 < fourfold.sum() < 0.05 * len(found.label)
    assert found.neighbours.sum() == 6 * len(found.label) - 2 * fourfold.sum()
    assert found.neighbours.std() > 1


@pytest.mark.parametrize("shape", [(64, 60), (40, 36, 44)])
def test_discs_and_balls_wherever_they_lie(shape):
    ndim, radius = len(shape), 14.3
    rng = np.random.default_rng(0)
    for centre in rng.random((4, ndim)) * shape:
        ball = ellipsoid(shape, centre, np.full(ndim, radius), np.eye(ndim))
        found = grain_statistics(ball.astype(int), background=0)
        assert found.label.tolist() == [1]
        assert found.equivalent_diameter_um == pytest.approx(2 * radius, rel=0.01)
        assert found.semi_axes_um == pytest.approx(np.full((1, ndim), radius), rel=0.02)
        assert found.sphericity == pytest.approx(1, abs=0.02)
        # Mean chord of a ball: 2 R pi / 4 in a plane, 4 R / 3 in space.
        chord = math.pi / 2 * radius if ndim == 2 else 4 / 3 * radius
        assert found.mean_intercept_um == pytest.approx(np.full((1, ndim), chord), rel=0.03)
        assert found.neighbours.tolist() == [0]


@pytest.mark.parametrize("ndim", [2, 3])
def test_an_ellipsoid_shows_its_axes(ndim):
    rng = np.random.default_rng(ndim)
    shape, semi_axes = (64,) * ndim, np.array([22.0, 13.0, 9.0][:ndim])
    for _ in range(3):
        turn, _ = np.linalg.qr(rng.normal(size=(ndim, ndim)))
        label = ellipsoid(shape, rng.random(ndim) * 64, semi_axes, turn)
        found = grain_statistics(label.astype(int), background=0, voxel_size_um=2.0)
        assert found.semi_axes_um[0] == pytest.approx(2 * semi_axes, rel=0.015)
        assert found.aspect_ratio[0] == pytest.approx(22 / semi_axes[-1], rel=0.015)
        assert abs(found.major_axis[0] @ turn[:, 0]) > math.cos(math.radians(1))
        assert found.major_axis[0, 0] > 0


def test_moving_a_periodic_sample_changes_nothing():
    labels = poisson_voronoi((40, 48), cells=25, n=2, seed=5)
    here = grain_statistics(labels)
    there = grain_statistics(np.roll(labels, (17, 29), (1, 2)))
    turned = grain_statistics(labels.swapaxes(1, 2))
    assert set(here.sample) == {0, 1}
    for name in ("label", "neighbours", "semi_axes_um", "sphericity", "mean_intercept_um"):
        assert np.allclose(getattr(here, name), getattr(there, name))
    assert np.allclose(here.mean_intercept_um, turned.mean_intercept_um[:, ::-1])
    assert np.allclose(here.semi_axes_um, turned.semi_axes_um)
    second = grain_statistics(labels[1:])
    assert np.array_equal(here.neighbours[here.sample == 1], second.neighbours)


def test_poisson_voronoi_intercept_follows_its_boundary():
    # Boundary per area 2 sqrt(rho) (Miles 1970), and P_L = 2 L_A / pi: mean chord
    # pi / (4 sqrt(rho)).
    n, shape = 12, (320, 320)
    labels = poisson_voronoi(shape, cells=64, n=n, seed=1)
    density = 64 / math.prod(shape)
    found = grain_statistics(labels)
    crossings = (1 / found.mean_intercept_um).mean(1)
    exact = 4 * math.sqrt(density) / math.pi
    # A chord shorter than a voxel may be missed: 1 %.
    assert abs(crossings.mean() - exact) < 4 * crossings.std() / math.sqrt(n) + 0.01 * exact
    perimeter = math.pi * found.equivalent_diameter_um / found.sphericity
    length = np.bincount(found.sample, perimeter) / 2 / math.prod(shape)
    assert np.allclose(crossings, 2 * length / math.pi, rtol=0.03)
    assert 2 * length.mean() / math.pi == pytest.approx(crossings.mean(), rel=0.01)
    # So G by intercept exceeds G by counting, both being made for another chord: l sqrt(N) =
    # pi / 4 here, 0.32 sqrt(7.75) there.
    gap = found.intercept_grain_size_number - found.planimetric_grain_size_number
    expected = 2 * math.log2(0.32 * math.sqrt(7.75) / (math.pi / 4))
    assert gap.mean() == pytest.approx(expected, abs=0.05)


def test_poisson_voronoi_in_space():
    # S_V = 2.910 rho^(1/3) (Meijering 1953), mean chord 2 / S_V.
    n, shape = 3, (64, 64, 64)
    found = grain_statistics(poisson_voronoi(shape, cells=64, n=n, seed=3))
    density = 64 / math.prod(shape)
    chord = 2 / (2.910 * density ** (1 / 3))
    assert found.mean_intercept_um.mean() == pytest.approx(chord, rel=0.04)
    surface = math.pi * found.equivalent_diameter_um**2 / found.sphericity
    per_volume = surface.sum() / 2 / (n * math.prod(shape))
    assert 2 / per_volume == pytest.approx(found.mean_intercept_um.mean(), rel=0.03)
    # Mean neighbours of Poisson-Voronoi cells 2 + 48 pi^2 / 35 (Meijering 1953); the smallest
    # faces are lost between voxels.
    assert found.neighbours.mean() == pytest.approx(2 + 48 * math.pi**2 / 35, rel=0.06)


def test_the_grain_size_number_has_the_values_of_the_standard():
    # ASTM E112-13, table 4: G, grains per mm^2, mean intercept in um.
    table = np.array(
        [
            [0.0, 7.75, 320.0],
            [1.0, 15.50, 226.3],
            [5.0, 248.0, 56.6],
            [8.0, 1984.0, 20.0],
            [10.0, 7936.0, 10.0],
            [14.0, 126976.0, 2.5],
        ]
    )
    assert np.allclose(planimetric_grain_size_number(table[:, 1]), table[:, 0], atol=2e-3)
    assert np.allclose(grain_size_number(table[:, 2]), table[:, 0], atol=5e-3)
    halved = grain_size_number(10.0) - grain_size_number(20.0)
    assert halved == pytest.approx(2, abs=1e-6)


@pytest.mark.parametrize("flags", [(False, False), (True, False)])
def test_grains_cut_at_rims_are_allowed_for(flags):
    # All windows of a periodic map with squares of two sizes: means are exact.
    side, window = 40, 18
    cell = np.zeros((side, side), int)
    corners = [(0, 0), (20, 5), (8, 22), (30, 30)]
    for k, (i, j) in enumerate(corners, start=1):
        cell[i : i + 9, j : j + 7] = k
    for k, (i, j) in enumerate([(12, 3), (3, 14), (22, 20), (32, 12)], start=5):
        cell[i : i + 2, j : j + 2] = k
    rows = window if not flags[0] else side
    wide = np.pad(cell, (0, window), mode="wrap")[: side if flags[0] else None]
    windows = [
        wide[i : i + rows, j : j + window]
        for i in range(1 if flags[0] else side)
        for j in range(side)
    ]
    found = grain_statistics(np.stack(windows), periodic=flags, background=0)
    truth = grain_statistics(cell[None], background=0)
    exact = truth.equivalent_diameter_um.mean()
    assert found.weighted_mean(found.equivalent_diameter_um) == pytest.approx(exact, rel=1e-12)
    assert found.equivalent_diameter_um[~found.cut].mean() < 0.95 * exact
    assert found.sections_per_mm2.mean() == pytest.approx(truth.sections_per_mm2[0], rel=1e-12)
    assert np.isnan(found.sphericity[found.cut]).all()
    assert np.isfinite(found.sphericity[~found.cut]).all()


def test_intercepts_of_a_window_are_unbiased():
    squares = np.pad(boxes((24, 24), (8, 8))[0], (0, 16), mode="wrap")
    windows = [squares[i : i + 12, j : j + 12] for i in range(8) for j in range(8)]
    found = grain_statistics(np.stack(windows), periodic=False)
    assert (1 / found.mean_intercept_um).mean(0) == pytest.approx([1 / 8, 1 / 8])
    assert found.sections_per_mm2.mean() == pytest.approx(1e6 / 64)


def test_grains_without_end_have_no_shape():
    layers = boxes((12, 8), (4, 8))
    found = grain_statistics(layers, voxel_size_um=2.0)
    assert np.isnan(found.semi_axes_um).all()
    assert np.isnan(found.major_axis).all()
    assert found.mean_intercept_um.tolist() == [[8.0, math.inf]]
    assert found.intercept_grain_size_number.tolist() == [-math.inf]
    alone = grain_statistics(np.zeros((1, 4, 4), int))
    assert np.isnan(alone.sphericity).all()
    # A grain longer than half the cell is unwrapped all the same.
    bar = np.zeros((1, 16, 16), int)
    bar[0, 3, np.arange(9, 22) % 16] = 1
    found = grain_statistics(bar, background=0)
    assert found.semi_axes_um[0] == pytest.approx([13 / math.sqrt(3), 1 / math.sqrt(3)])


def test_bad_input_is_refused():
    with pytest.raises(DataError, match=r"2 or more voxels, got \(4, 4\)"):
        grain_statistics(np.zeros((4, 4), int))
    with pytest.raises(DataError, match=r"2 or more voxels, got \(1, 4, 1\)"):
        grain_statistics(np.zeros((1, 4, 1), int))
    with pytest.raises(DataError, match="beside the background 0, got none"):
        grain_statistics(np.zeros((1, 4, 4), int), background=0)
    with pytest.raises(DataError, match=r"above 0, got -1\.0"):
        grain_statistics(np.zeros((1, 4, 4), int), voxel_size_um=-1.0)
    with pytest.raises(DataError, match="periodic flag"):
        grain_statistics(np.zeros((1, 4, 4), int), periodic=(True, True, False))
    with pytest.raises(DataError, match=r"mean_intercept_um of 0 or more, got -1\.0"):
        grain_size_number(-1.0)
    with pytest.raises(DataError, match="sections_per_mm2 of 0 or more, got nan"):
        planimetric_grain_size_number(math.nan)
