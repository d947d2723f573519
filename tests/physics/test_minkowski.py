"""Minkowski functionals against closed forms, Miles' formulas and the theory of their weights."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.spatial import ConvexHull

from microstructures import DataError
from physics.statistics import (
    configuration_counts,
    euler_density,
    minkowski_functionals,
    specific_surface,
)
from physics.statistics.minkowski import _tables

from .test_correlation import soft


def distance(size, centre, *, period=None):
    """Distance of every voxel from a centre."""
    grid = torch.arange(float(size), dtype=torch.float64)
    lags = [grid - c for c in centre]
    if period:
        lags = [(lag + period / 2) % period - period / 2 for lag in lags]
    squares = [g.square() for g in torch.meshgrid(*lags, indexing="ij")]
    return torch.stack(squares).sum(0).sqrt()


@pytest.mark.parametrize(("size", "radius"), [((64,) * 2, 14.3), ((40,) * 3, 11.7)])
def test_balls(size, radius):
    # Steiner's functionals of a ball; 4 pi R is 2 pi times its mean breadth.
    ndim, n = len(size), 16
    generator = torch.Generator().manual_seed(ndim)
    centres = size[0] / 2 + torch.rand(n, ndim, generator=generator, dtype=torch.float64)
    balls = torch.stack([distance(size[0], c) < radius for c in centres.tolist()])
    exact = {
        2: [math.pi * radius**2, 2 * math.pi * radius, 1],
        3: [4 / 3 * math.pi * radius**3, 4 * math.pi * radius**2, 4 * math.pi * radius, 1],
    }[ndim]
    for periodic, voxels in ((True, size[0]), (False, size[0] - 1)):
        found = minkowski_functionals(balls, periodic=periodic, voxel_size_um=0.5)
        found = found * voxels**ndim / 2.0 ** torch.arange(ndim + 1)
        ratio = found / torch.tensor(exact, dtype=torch.float64)
        assert torch.allclose(ratio[:, -1], torch.ones(n).double(), atol=1e-9)
        assert float((ratio.mean(0) - 1).abs().max()) < 5e-3
        assert float((ratio - 1).abs().max()) < 0.02


def test_topology_of_smooth_bodies():
    ring = (distance(48, (23.7, 24.2)) - 14).abs() < 4
    assert float(minkowski_functionals(ring[None])[0, -1]) * 48**2 == pytest.approx(0, abs=1e-9)
    shell = (distance(40, (19.7, 20.2, 19.9)) - 12).abs() < 3
    assert float(minkowski_functionals(shell[None])[0, -1]) * 40**3 == pytest.approx(2)
    flat = distance(40, (19.7, 20.2))[..., None].expand(40, 40, 40)
    height = torch.arange(40.0) - 19.9
    torus = (flat - 12).square() + height.square() < 25
    functionals = minkowski_functionals(torus[None])[0] * 40**3
    assert float(functionals[3]) == pytest.approx(0, abs=1e-6)
    # Pappus, and 2 pi^2 R for the mean curvature of a torus.
    exact = [2 * math.pi**2 * 12 * 25, 4 * math.pi**2 * 12 * 5, 2 * math.pi**2 * 12]
    assert functionals[:3].tolist() == pytest.approx(exact, rel=0.03)


@pytest.mark.parametrize("normal", [(1, 0), (1, 1), (2, 1), (1, 0, 0), (1, 1, 0), (1, 1, 1)])
def test_flat_faces_stay_within_eight_percent(normal):
    n = 24
    grids = torch.meshgrid(*[torch.arange(n)] * len(normal), indexing="ij")
    slab = sum(k * g for k, g in zip(normal, grids, strict=True)) % n < n // 2
    exact = 2 * math.hypot(*normal) / n
    found = minkowski_functionals(slab[None])[0]
    assert found[:2].tolist() == pytest.approx([0.5, exact], rel=0.08)
    assert found[2:].abs().max() < 1e-9
    if sum(normal) == 1:
        correction = {2: math.pi / 4, 3: 2 / 3}[len(normal)]
        assert float(specific_surface(slab[None])) == pytest.approx(correction * exact)


@pytest.mark.parametrize("shape", [(5, 6), (4, 5, 3)])
def test_counts_equal_those_of_a_walk_over_all_blocks(shape):
    a = soft(shape) < 0.5
    corners = list(itertools.product((0, 1), repeat=len(shape)))
    for flags in itertools.product((True, False), repeat=len(shape)):
        found = configuration_counts(a, periodic=flags)
        for k in range(2):
            expected = np.zeros(found.shape[1], dtype=int)
            starts = [range(n if wrap else n - 1) for n, wrap in zip(shape, flags, strict=True)]
            for start in itertools.product(*starts):
                bits = [
                    bool(a[(k, *((x + s) % n for x, s, n in zip(c, start, shape, strict=True)))])
                    for c in corners
                ]
                expected[sum(bit << i for i, bit in enumerate(bits))] += 1
            assert found[k].tolist() == expected.tolist()


@pytest.mark.parametrize("shape", [(30, 31), (12, 13, 14)])
def test_surface_of_noise_is_that_of_its_complement_and_shifts_change_nothing(shape):
    a = soft(shape) < 0.4
    found, complement = minkowski_functionals(a), minkowski_functionals(~a)
    assert torch.allclose(found[:, 0] + complement[:, 0], torch.ones(2).double())
    assert torch.allclose(found[:, 1], complement[:, 1], rtol=1e-12)
    moved = minkowski_functionals(a.roll((3, 5), (1, 2)))
    assert torch.allclose(found, moved, rtol=1e-12)
    # Axes are treated alike.
    assert torch.allclose(found, minkowski_functionals(a.transpose(1, -1)), rtol=1e-9, atol=1e-12)


def boolean_model(*, size, ndim, radius, density, n, seed):
    """Balls about Poisson points, periodic."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.zeros(n, *[size] * ndim, dtype=torch.bool)
    for cell in cells:
        mean = torch.tensor(density * size**ndim)
        count = int(torch.poisson(mean, generator=generator))
        points = size * torch.rand(count, ndim, generator=generator, dtype=torch.float64)
        for point in points.tolist():
            cell |= distance(size, point, period=size) < radius
    return cells


@pytest.mark.parametrize(
    ("ndim", "size", "radius", "covered", "n"), [(2, 320, 16.0, 0.4, 16), (3, 56, 8.0, 0.25, 24)]
)
def test_boolean_models_have_the_functionals_of_miles(ndim, size, radius, covered, n):
    body = {
        2: [math.pi * radius**2, 2 * math.pi * radius],
        3: [4 / 3 * math.pi * radius**3, 4 * math.pi * radius**2, 4 * math.pi * radius],
    }[ndim]
    rho = covered / body[0]
    cells = boolean_model(size=size, ndim=ndim, radius=radius, density=rho, n=n, seed=ndim)
    found = minkowski_functionals(cells)
    void = math.exp(-covered)
    if ndim == 2:
        euler = rho - (rho * body[1]) ** 2 / (4 * math.pi)
        exact = torch.tensor([1 - void, rho * body[1] * void, euler * void]).double()
    else:
        _, s, m = body
        curvature = rho * m - (math.pi * rho * s) ** 2 / 32
        euler = rho - rho**2 * m * s / (4 * math.pi) + math.pi * (rho * s) ** 3 / 384
        exact = [1 - void, rho * s * void, curvature * void, euler * void]
        exact = torch.tensor(exact, dtype=torch.float64)
    error = (found.mean(0) - exact).abs()
    assert (error < 4 * found.std(0) / math.sqrt(n)).all()
    # One rule of neighbourhood alone joins what merely comes close.
    joined = euler_density(cells).double()
    assert abs(float(joined.mean() - exact[-1])) > 4 * float(joined.std()) / math.sqrt(n)


def hull(points):
    """Mean curvature / pi, surface / 2 and volume of the convex hull of some corners."""
    points = np.array(points, dtype=float)
    spread = points - points[0]
    rank = int(np.linalg.matrix_rank(spread))
    if rank == 0:
        return 0.0, 0.0, 0.0
    if rank == 1:
        return float(np.linalg.norm(spread, axis=1).max()), 0.0, 0.0
    if rank == 2:
        flat = ConvexHull(spread @ np.linalg.svd(spread)[2][:2].T)
        return flat.area / 2, flat.volume, 0.0
    solid = ConvexHull(points)
    edges = {}
    for corners, plane in zip(solid.simplices, solid.equations, strict=True):
        for edge in itertools.combinations(sorted(corners), 2):
            edges.setdefault(edge, []).append(plane[:3])
    bends = [
        np.linalg.norm(points[i] - points[j]) * math.acos(np.clip(u @ v, -1, 1)) / 2
        for (i, j), (u, v) in edges.items()
    ]
    return sum(bends) / math.pi, solid.area / 2, solid.volume


def expansion(table):
    """Coefficients of the expected functional of a Boolean model of balls, over its void fraction.

    The corners T of a block are all void with probability exp(-rho V(ball + hull of T)); by
    Steiner the exponent exceeds that of one point by m M / pi + s S / 2 + v V, with m = pi rho R^2
    small of first, s = 2 rho R of second and v = rho of third order in the voxel. In 2-D it does
    by m P / 2 + s A with m = 2 rho R and s = rho.
    """
    kinds, ndim = len(table), int(math.log2(math.log2(len(table))))
    corners = list(itertools.product((0, 1), repeat=ndim))
    void = np.array([table[kinds - 1 - k] for k in range(kinds)])
    for bit in range(2**ndim):
        for k in range(kinds):
            if k >> bit & 1:
                void[k] -= void[k ^ (1 << bit)]
    total = dict.fromkeys(("m", "m m", "s", "m s", "m m m", "v"), 0.0)
    for k in range(1, kinds):
        a, b, c = hull([corner for bit, corner in enumerate(corners) if k >> bit & 1])
        terms = {"m": -a, "m m": a**2 / 2, "s": -b, "m s": a * b, "m m m": -(a**3) / 6, "v": -c}
        for name, term in terms.items():
            total[name] += void[k] * term
    return total


def test_weights_meet_miles_to_leading_order_in_the_voxel():
    perimeter, euler = (expansion(table) for table in _tables(2).T[1:])
    assert perimeter["m"] == pytest.approx(math.pi)
    assert euler["m"] == pytest.approx(0, abs=1e-9)
    assert (euler["s"], euler["m m"]) == pytest.approx((1, -math.pi / 4))
    tables = _tables(3).T
    # S = rho 4 pi R^2: first order. M = rho 4 pi R - pi^2 rho^2 S^2 / 32: second. Euler: third.
    surface, curvature, euler = (expansion(table) for table in tables[1:])
    assert surface["m"] == pytest.approx(4)
    assert curvature["m"] == pytest.approx(0, abs=1e-9)
    assert curvature["s"] == pytest.approx(2 * math.pi)
    assert curvature["m m"] == pytest.approx(-(math.pi**2) / 2)
    assert [euler[name] for name in ("m", "m m", "s")] == pytest.approx([0, 0, 0], abs=1e-6)
    exact = {"v": 1, "m s": -2, "m m m": math.pi / 6}
    assert {name: euler[name] for name in exact} == pytest.approx(exact, rel=1e-6)


def test_bad_input_is_refused():
    with pytest.raises(DataError, match="voxel_size_um"):
        minkowski_functionals(torch.ones(1, 4, 4), voxel_size_um=0.0)
    with pytest.raises(DataError, match="2 voxels or more"):
        configuration_counts(torch.ones(1, 4, 1), periodic=False)
    with pytest.raises(DataError, match="batch"):
        minkowski_functionals(torch.ones(4, 4))
