"""Two-point correlation against definition, closed forms and identities."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.measure import euler_number

from microstructures import DataError
from physics.statistics import (
    euler_density,
    isotropic_map,
    lag_vectors,
    radial_mean,
    specific_surface,
    two_point_correlation,
)

SHAPES = [(6, 7), (4, 5, 3)]


def soft(shape, *, batch=2, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, *shape, generator=generator, dtype=dtype)


def by_definition(a, b, flags):
    """S_ab(r) for one sample by shifting and averaging, lag by lag."""
    sizes = [n if wrap else 2 * n - 1 for n, wrap in zip(a.shape, flags, strict=True)]
    out = torch.empty(sizes, dtype=a.dtype)
    for index in itertools.product(*map(range, sizes)):
        here, there = a, b
        for axis, (k, size, wrap) in enumerate(zip(index, sizes, flags, strict=True)):
            lag = k if k <= (size - 1) // 2 else k - size
            there = there.roll(-lag, axis)
            if not wrap:
                start, length = max(-lag, 0), a.shape[axis] - abs(lag)
                here, there = (t.narrow(axis, start, length) for t in (here, there))
        out[index] = (here * there).mean()
    return out


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_its_definition(shape, dtype):
    a, b = soft(shape, dtype=dtype), soft(shape, seed=1, dtype=dtype)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-14
    for flags in itertools.product((True, False), repeat=len(shape)):
        found = two_point_correlation(a, b, periodic=flags)
        auto = two_point_correlation(a, periodic=flags)
        for k in range(2):
            assert torch.allclose(found[k], by_definition(a[k], b[k], flags), atol=tolerance)
            assert torch.allclose(auto[k], by_definition(a[k], a[k], flags), atol=tolerance)


@given(st.integers(0, 10_000), st.sampled_from(SHAPES), st.booleans(), st.floats(0.05, 0.95))
def test_identities_of_indicators(seed, shape, periodic, fraction):
    a = soft(shape, seed=seed) < fraction
    auto = two_point_correlation(a, periodic=periodic)
    phi = a.double().flatten(1).mean(1)
    zero = (slice(None), *[0] * len(shape))
    assert torch.allclose(auto[zero].double(), phi, atol=1e-6)
    axes = tuple(range(1, auto.ndim))
    assert torch.allclose(auto, auto.flip(axes).roll([1] * len(shape), axes), atol=1e-6)
    pairs = itertools.product((a, ~a), repeat=2)
    total = sum(two_point_correlation(x, y, periodic=periodic) for x, y in pairs)
    assert torch.allclose(total, torch.ones_like(total), atol=1e-5)
    if periodic:
        moved = two_point_correlation(a.roll([2, 1], (1, 2)))
        assert torch.allclose(auto, moved, atol=1e-6)


def test_many_samples_give_what_each_gives_alone():
    a = soft((300, 300), batch=9)
    together = two_point_correlation(a, periodic=(True, False))
    alone = two_point_correlation(a[7:8], periodic=(True, False))
    assert torch.equal(together[7:8], alone)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_flow_through_soft_indicators(shape):
    a = soft(shape, batch=1).requires_grad_()
    for flags in (True, False):
        assert torch.autograd.gradcheck(
            lambda x, wrap=flags: radial_mean(
                two_point_correlation(x, periodic=wrap), max_lag=min(shape) // 2
            ),
            (a,),
        )


@pytest.mark.parametrize("shape", [(24, 24), (25, 18), (12, 12, 13)])
def test_radial_mean_is_exact_on_a_cone_and_keeps_lag_zero(shape):
    cone = 1 - 0.01 * lag_vectors(shape).double().square().sum(0).sqrt()[None]
    curve = radial_mean(cone, max_lag=min(shape) // 2)
    expected = 1 - 0.01 * torch.arange(min(shape) // 2 + 1).double()
    assert torch.allclose(curve[0], expected, atol=2e-6)
    noise = soft(shape)
    assert torch.equal(radial_mean(noise, max_lag=2)[:, 0], noise.flatten(1)[:, 0])
    assert torch.allclose(isotropic_map(curve, shape=shape)[0].flatten()[1], curve[0, 1])


def overlapping_discs(*, n, size, radius, density, seed):
    """Void indicator of Poisson discs, periodic, `(n, size, size)`."""
    generator = torch.Generator().manual_seed(seed)
    grid = torch.arange(size, dtype=torch.float64)
    cells = torch.ones(n, size, size, dtype=torch.bool)
    for cell in cells:
        count = int(torch.poisson(torch.tensor(density * size**2), generator=generator))
        for x, y in size * torch.rand(count, 2, generator=generator, dtype=torch.float64):
            dx = ((grid - x + size / 2) % size - size / 2).square()
            dy = ((grid - y + size / 2) % size - size / 2).square()
            rows, columns = dx < radius**2, dy < radius**2
            block = dx[rows, None] + dy[None, columns] < radius**2
            cell[rows.nonzero(), columns.nonzero().T] &= ~block
    return cells


def test_overlapping_discs_have_the_s2_of_torquato():
    # NUMERICS row 12: void S2(r) = exp(-rho * area of the union of two discs r apart).
    radius, density, n = 10.0, 0.002, 24
    void = overlapping_discs(n=n, size=320, radius=radius, density=density, seed=3)
    curves = radial_mean(two_point_correlation(void), max_lag=30).double()
    r = torch.arange(31, dtype=torch.float64)
    inside = (r / (2 * radius)).clamp(max=1)
    lens = 2 * radius**2 * torch.acos(inside) - r / 2 * (4 * radius**2 - r**2).clamp(min=0).sqrt()
    union = 2 * math.pi * radius**2 - torch.where(r < 2 * radius, lens, 0.0)
    error = curves.mean(0) - torch.exp(-density * union)
    assert (error.abs() < 4 * curves.std(0) / math.sqrt(n)).all()
    # Debye's relation at the scale of a voxel: s = -pi dS2/dr, close to 2 pi R rho phi.
    surface = specific_surface(void).double()
    exact = torch.exp(-density * union)
    drop = math.pi * float(exact[0] - exact[1])
    assert abs(float(surface.mean()) - drop) < 4 * float(surface.std()) / math.sqrt(n)
    assert drop == pytest.approx(2 * math.pi * radius * density * float(exact[0]), rel=0.03)


@pytest.mark.parametrize("size", [64, 48])
def test_surface_of_discs_and_spheres(size):
    # Averaged over positions the face count of a ball is corrected to its area.
    for ndim, radius in ((2, 14.3), (3, 11.7)):
        generator = torch.Generator().manual_seed(size)
        grids = torch.meshgrid(*[torch.arange(size).double()] * ndim, indexing="ij")
        centres = size / 2 + torch.rand(12, ndim, generator=generator, dtype=torch.float64)
        distance = [
            sum((g - c) ** 2 for g, c in zip(grids, centre, strict=True)) for centre in centres
        ]
        ball = torch.stack(distance) < radius**2
        area = 2 * math.pi * radius if ndim == 2 else 4 * math.pi * radius**2
        for periodic in (True, False):
            surface = specific_surface(ball, periodic=periodic, voxel_size_um=0.5)
            rim = 1 if periodic else size / (size - 1)
            assert float(surface.mean()) == pytest.approx(2 * rim * area / size**ndim, rel=0.02)


@given(st.integers(0, 10_000), st.sampled_from([(6, 7), (4, 5, 3)]))
def test_euler_density_counts_as_skimage_does(seed, shape):
    a = soft(shape, seed=seed) < 0.5
    found = euler_density(a, periodic=False) * math.prod(shape)
    expected = [euler_number(x.numpy(), connectivity=len(shape)) for x in a]
    assert found.round().tolist() == expected


def test_euler_density_of_periodic_cells():
    ball = torch.zeros(1, 6, 6, 6)
    ball[0, 0, 5, 2] = 1
    assert float(euler_density(ball) * 6**3) == pytest.approx(1)
    rod = torch.zeros(1, 6, 6, 6)
    rod[0, 2, 3] = 1
    assert float(euler_density(rod)) == pytest.approx(0)
    assert float(euler_density(torch.ones(1, 5, 5), voxel_size_um=2.0)) == pytest.approx(0)


def test_bad_input_is_refused():
    a = torch.ones(1, 4, 4)
    with pytest.raises(DataError, match="batch"):
        two_point_correlation(a[0])
    with pytest.raises(DataError, match="shape of a"):
        two_point_correlation(a, torch.ones(1, 4, 5))
    with pytest.raises(DataError, match="periodic flag"):
        two_point_correlation(a, periodic=(True, True, True))
    with pytest.raises(DataError, match="max_lag"):
        radial_mean(two_point_correlation(a), max_lag=3)
