"""Closed forms of NUMERICS section 2 for the statistics: rows 12, 13, 14 and 19.

Rows 12 and 15 at every lag stand in test_correlation and test_lineal_path, row 13's S2 by
construction in a plane in test_random_field, row 14's broken candidates in test_realizability.
"""

import math

import numpy as np
import pytest
import torch

from physics.processes.random_field import (
    RandomField,
    TabulatedCovariance,
    cut_correlation,
    field_covariance,
)
from physics.statistics import (
    check_realizable,
    lag_vectors,
    radial_mean,
    specific_surface,
    two_point_correlation,
)

from .test_correlation import overlapping_discs

FRACTION = 0.3
# Cells of 16 correlation lengths or more a side hold the medium to about exp(-8).
CASES = [((160, 160), 5.0), ((56, 56, 56), 3.5)]


def debye(r, length):
    """S2 of the Debye medium, phi^2 + phi (1 - phi) exp(-r / a)."""
    return FRACTION**2 + FRACTION * (1 - FRACTION) * torch.exp(-r / length)


def debye_field(shape, length):
    """The field whose level cuts have that S2."""
    r = torch.arange(max(shape) // 2 + 1, dtype=torch.float64)
    value = field_covariance(debye(r, length), fraction=FRACTION)
    table = TabulatedCovariance(tuple((r / length).tolist()), tuple(value.tolist()))
    return RandomField(covariance=table)


def debye_cells(shape, length, *, n, seed):
    """Level cuts with that S2."""
    cells = debye_field(shape, length).simulate(
        {"volume_fraction": FRACTION, "correlation_length_um": length}, shape=shape, seed=seed, n=n
    )
    return torch.from_numpy(np.stack([c.phases for c in cells])).double()


def radii(shape):
    return lag_vectors(shape).double().square().sum(0).sqrt()


def test_row_12_poisson_discs():
    lags = [0, 2, 5, 10, 15, 20, 25]
    exact = torch.tensor([0.53349, 0.49254, 0.43770, 0.36387, 0.31162, 0.28461, 0.28461]).double()
    n = 20
    void = overlapping_discs(n=n, size=256, radius=10.0, density=0.002, seed=12)
    s2 = radial_mean(two_point_correlation(void.double()), max_lag=25)[:, lags]
    error = (s2.mean(0) - exact) / (s2.std(0) / math.sqrt(n))
    assert error.abs().max() < 4
    assert (s2.std(0) / math.sqrt(n) < 0.012).all()


@pytest.mark.parametrize(("shape", "length"), CASES)
def test_row_13_a_debye_medium_by_construction(shape, length):
    ndim, n = len(shape), 24
    cells = debye_cells(shape, length, n=n, seed=13)
    s2 = radial_mean(two_point_correlation(cells), max_lag=20)
    exact = debye(torch.arange(21, dtype=torch.float64), length)
    covariance = debye_field(shape, length).covariance_map(length, shape=shape)
    built = radial_mean(cut_correlation(covariance, fraction=FRACTION)[None], max_lag=20)[0]
    assert float((built - exact).square().mean().sqrt()) < 2e-3
    error = (s2.mean(0) - exact).abs()
    assert (error < 4 * s2.std(0) / math.sqrt(n) + 2e-3).all()
    # s = -pi S2'(0) in a plane, -4 S2'(0) in space, 4 phi (1 - phi) / a there; on voxels the
    # slope over one of them.
    slope = FRACTION * (1 - FRACTION) * (1 - math.exp(-1 / length))
    surface = specific_surface(cells)
    expected = {2: math.pi, 3: 4.0}[ndim] * slope
    assert abs(float(surface.mean()) - expected) < 4 * float(surface.std()) / math.sqrt(n)
    assert float(surface.std()) / math.sqrt(n) < 0.02 * expected


@pytest.mark.parametrize(("shape", "length"), CASES)
def test_row_13_the_spectral_density_of_a_debye_medium(shape, length):
    # 8 pi a^3 phi (1 - phi) / (1 + k^2 a^2)^2 in space, 2 pi a^2 (...) / (1 + k^2 a^2)^(3/2) in a
    # plane: of the map itself, and of structures cut to it.
    ndim, size, n = len(shape), shape[0], 24
    k = 2 * math.pi * torch.arange(1, 8, dtype=torch.float64) / size
    weight = {2: 2 * math.pi * length**2, 3: 8 * math.pi * length**3}[ndim]
    exact = weight * FRACTION * (1 - FRACTION) / (1 + (k * length) ** 2) ** ((ndim + 1) / 2)

    def along_axes(s2):
        spectrum = torch.fft.fftn(s2 - FRACTION**2, dim=tuple(range(1, ndim + 1))).real
        lines = [spectrum.movedim(axis + 1, 1).flatten(2)[:, 1:8, 0] for axis in range(ndim)]
        return torch.stack(lines).mean(0)

    of_map = along_axes(debye(radii(shape), length)[None])[0]
    assert of_map == pytest.approx(exact, rel=0.03)
    of_cells = along_axes(two_point_correlation(debye_cells(shape, length, n=n, seed=130)))
    error = of_cells.mean(0) - exact
    assert (error.abs() < 4 * of_cells.std(0) / math.sqrt(n) + 0.05 * exact).all()
    assert (of_cells >= -1e-9).all()


@pytest.mark.parametrize(("shape", "length"), CASES)
def test_row_14_a_debye_medium_meets_every_condition(shape, length):
    s2 = debye(radii(shape), length)[None]
    variance = float(s2.mean()) - FRACTION**2
    # Periodic images of the cell leave a kink at half its side, of this height.
    kink = 4 * FRACTION * (1 - FRACTION) * math.exp(-shape[0] / 2 / length)
    report = check_realizable(s2, FRACTION, fraction_variance=variance, tolerance=kink)
    assert report.ok, str(report)
    named = {c.name for c in report.conditions}
    assert {"spectrum", "fraction variance", "fraction", "far limit", "triangle"} <= named
    # chi(0) per voxel of the cell is the variance of its fraction.
    chi = {2: 2 * math.pi * length**2, 3: 8 * math.pi * length**3}[len(shape)]
    expected = chi * FRACTION * (1 - FRACTION) / math.prod(shape)
    assert variance == pytest.approx(expected, rel=0.02)


def test_row_14_round_off_of_structures():
    cells = debye_cells((64, 64), 4.0, n=6, seed=14)
    report = check_realizable(two_point_correlation(cells), tolerance=1e-12, fraction_variance=0.0)
    assert report.ok, str(report)
    # The ensemble's chi(0) is the variance of the cells' fractions.
    fractions = cells.mean((1, 2))
    ensemble = two_point_correlation(cells).mean(0, keepdim=True)
    report = check_realizable(
        ensemble, tolerance=1e-12, fraction_variance=float(fractions.var(correction=0))
    )
    assert report.ok, str(report)


@pytest.mark.parametrize(
    ("covariance", "shape"),
    [("gaussian", (48, 48)), ("oscillating", (48, 40)), ("exponential", (20, 20, 24))],
)
def test_row_19_gaussian_fields_cut_at_level_zero(covariance, shape):
    n, process = 80, RandomField(covariance=covariance)
    cells = process.simulate(
        {"volume_fraction": 0.5, "correlation_length_um": 3.0}, shape=shape, seed=19, n=n
    )
    a = torch.from_numpy(np.stack([c.phases for c in cells])).double()
    reach = min(shape) // 4
    s2 = radial_mean(two_point_correlation(a), max_lag=reach)
    r = process.covariance_map(3.0, shape=shape).clamp(-1, 1)
    exact = radial_mean((0.25 + torch.asin(r) / (2 * math.pi))[None], max_lag=reach)[0]
    assert ((s2.mean(0) - exact).abs() < 4 * s2.std(0) / math.sqrt(n)).all()
    assert exact[0] == pytest.approx(0.5)
