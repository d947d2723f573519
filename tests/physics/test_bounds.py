"""Bounds from volume fractions: reference values, limits, order and symmetry."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from microstructures import DataError
from physics.mechanics import (
    IsotropicElastic,
    hashin_shtrikman_bounds,
    hashin_shtrikman_conductivity,
    voigt_reuss_bounds,
)


def material(e: float, nu: float = 0.3) -> IsotropicElastic:
    return IsotropicElastic(youngs_modulus_gpa=e, poisson_ratio=nu)


phases = st.builds(material, st.floats(0.1, 100.0), st.floats(-0.3, 0.45))


@pytest.mark.parametrize(
    ("contrast", "bulk", "shear"),
    [
        (10.0, (1.52412, 2.54289), (0.77231, 1.33952)),
        (100.0, (1.70701, 17.75801), (0.90469, 10.30607)),
    ],
)
def test_the_published_values_in_three_dimensions(contrast, bulk, shear):
    bounds = hashin_shtrikman_bounds([0.6, 0.4], [material(1.0), material(contrast)], dim=3)
    assert tuple(map(float, bounds.bulk)) == pytest.approx(bulk, abs=1e-5)
    assert tuple(map(float, bounds.shear)) == pytest.approx(shear, abs=1e-5)


def test_the_published_values_of_conductivity():
    solid = hashin_shtrikman_conductivity([0.8, 0.2], [1.0, 10.0], dim=3)
    plane = hashin_shtrikman_conductivity([0.8, 0.2], [1.0, 10.0], dim=2)
    assert tuple(map(float, solid)) == pytest.approx((1.529412, 2.340426), abs=1e-6)
    assert tuple(map(float, plane)) == pytest.approx((1.391304, 2.087912), abs=1e-6)


@pytest.mark.parametrize("dim", [2, 3])
def test_the_dilute_limit_is_eshelbys(dim):
    one, two, f = material(1.0), material(10.0, 0.2), 1e-7
    bounds = hashin_shtrikman_bounds([1 - f, f], [one, two], dim=dim)
    g1, g2 = one.shear, two.shear
    if dim == 2:
        k1, k2 = one.lame + g1, two.lame + g2
        k = (k2 - k1) * (k1 + g1) / (k2 + g1)
        g = (g2 - g1) * 2 * g1 * (k1 + g1) / (2 * g1 * (k1 + g1) + (g2 - g1) * (k1 + 2 * g1))
    else:
        k1, k2 = one.bulk, two.bulk
        k = (k2 - k1) * (3 * k1 + 4 * g1) / (3 * k2 + 4 * g1)
        g = (g2 - g1) / (1 + 6 * (k1 + 2 * g1) / (5 * (3 * k1 + 4 * g1)) * (g2 / g1 - 1))
    assert (float(bounds.bulk.lower) - k1) / f == pytest.approx(k, rel=1e-5)
    assert (float(bounds.shear.lower) - g1) / f == pytest.approx(g, rel=1e-5)


@given(
    first=phases, second=phases, third=phases, f=st.floats(0.05, 0.9), dim=st.sampled_from([2, 3])
)
def test_hashin_shtrikman_lies_within_voigt_and_reuss(first, second, third, f, dim):
    shares, materials = [f, 0.6 * (1 - f), 0.4 * (1 - f)], [first, second, third]
    reuss, voigt = voigt_reuss_bounds(shares, materials, dim=dim)
    narrow = hashin_shtrikman_bounds(shares, materials, dim=dim)
    assert torch.linalg.eigvalsh(voigt - reuss).min() > -1e-9 * voigt.max()
    slack = 1e-9 * float(voigt.max())
    for low, bounds, high in (
        (reuss[-1, -1] / 2, narrow.shear, voigt[-1, -1] / 2),
        (reuss[:dim, :dim].mean(), narrow.bulk, voigt[:dim, :dim].mean()),
    ):
        assert low - slack <= bounds.lower <= bounds.upper + slack <= high + 2 * slack
    turned = hashin_shtrikman_bounds(shares[::-1], materials[::-1], dim=dim)
    assert float(turned.bulk.upper) == pytest.approx(float(narrow.bulk.upper), rel=1e-12)


@pytest.mark.parametrize("dim", [2, 3])
def test_pure_phases_and_batches(dim):
    materials = [material(1.0), material(7.0, 0.1), material(0.0)]
    shares = torch.eye(3, dtype=torch.float32)[:2]
    reuss, voigt = voigt_reuss_bounds(shares, materials, dim=dim)
    for i in range(2):
        torch.testing.assert_close(reuss[i], materials[i].stiffness(dim))
        torch.testing.assert_close(voigt[i], materials[i].stiffness(dim))
    bounds = hashin_shtrikman_bounds(shares, materials, dim=dim)
    torch.testing.assert_close(bounds.shear.lower, bounds.shear.upper)
    assert float(bounds.shear.lower[1]) == pytest.approx(materials[1].shear)


@pytest.mark.parametrize("dim", [2, 3])
def test_a_pore_brings_the_lower_bounds_to_zero(dim):
    materials = [material(0.0), material(10.0)]
    reuss, voigt = voigt_reuss_bounds([0.3, 0.7], materials, dim=dim)
    assert float(reuss.abs().max()) == 0.0
    torch.testing.assert_close(voigt, 0.7 * materials[1].stiffness(dim))
    bounds = hashin_shtrikman_bounds([0.3, 0.7], materials, dim=dim)
    assert float(bounds.bulk.lower) == float(bounds.shear.lower) == 0.0
    assert 0.0 < float(bounds.shear.upper) < 0.7 * materials[1].shear


def test_bad_fractions_are_named():
    materials = [material(1.0), material(2.0)]
    for fractions in ([0.5, 0.4], [1.5, -0.5], [1.0], [float("nan"), 1.0]):
        for function in (voigt_reuss_bounds, hashin_shtrikman_bounds):
            with pytest.raises(DataError, match="fractions"):
                function(fractions, materials, dim=3)
    with pytest.raises(DataError, match="dim"):
        hashin_shtrikman_bounds([0.5, 0.5], materials, dim=1)
    with pytest.raises(DataError, match="dim"):
        hashin_shtrikman_conductivity([0.5, 0.5], [1.0, 2.0], dim=4)
    with pytest.raises(DataError, match="conductivities"):
        hashin_shtrikman_conductivity([0.5, 0.5], [1.0, -2.0], dim=2)
