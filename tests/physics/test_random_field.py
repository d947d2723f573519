"""Level cuts of Gaussian fields against the exact relation of covariance and S2."""

import math

import numpy as np
import pytest
import torch

from microstructures import DataError, Microstructure
from physics.processes.random_field import (
    RandomField,
    TabulatedCovariance,
    cut_correlation,
    field_covariance,
)
from physics.statistics import (
    lag_vectors,
    lineal_path,
    radial_mean,
    specific_surface,
    two_point_correlation,
)


def indicators(cells):
    return torch.from_numpy(np.stack([c.phases for c in cells])).double()


def test_level_zero_has_the_arcsine_law():
    covariance = torch.linspace(-1, 1, 41, dtype=torch.float64)
    s2 = cut_correlation(covariance, fraction=0.5)
    assert torch.allclose(s2, 0.25 + torch.asin(covariance) / (2 * math.pi), atol=1e-12)
    for fraction in (0.1, 0.3, 0.8):
        s2 = cut_correlation(covariance, fraction=fraction)
        assert float(s2[-1]) == pytest.approx(fraction, abs=1e-6)
        assert float(s2[20]) == pytest.approx(fraction**2, abs=1e-12)
        assert float(s2[0]) == pytest.approx(max(0, 2 * fraction - 1), abs=1e-6)
        inverse = field_covariance(s2[2:], fraction=fraction)
        assert torch.allclose(inverse, covariance[2:], atol=1e-4)


@pytest.mark.parametrize(
    ("covariance", "fraction", "shape"),
    [
        ("gaussian", 0.5, (64, 64)),
        ("exponential", 0.3, (64, 64)),
        ("oscillating", 0.5, (48, 64)),
        ("gaussian", 0.4, (20, 24, 20)),
    ],
)
def test_cells_have_the_exact_s2(covariance, fraction, shape):
    # NUMERICS row 19, within four standard errors at every lag.
    process = RandomField(covariance=covariance, voxel_size_um=0.5)
    cells = process.simulate(
        {"volume_fraction": fraction, "correlation_length_um": 2.0}, shape=shape, seed=1, n=80
    )
    reach = min(shape) // 4
    curves = radial_mean(two_point_correlation(indicators(cells)), max_lag=reach)
    exact = cut_correlation(process.covariance_map(2.0, shape=shape), fraction=fraction)
    error = curves.mean(0) - radial_mean(exact[None], max_lag=reach)[0]
    assert (error.abs() < 4 * curves.std(0) / math.sqrt(80)).all()


def test_debye_medium_by_construction():
    # NUMERICS row 13: S2 RMSE below 2e-3, surface -pi S2'(0) at the scale of a voxel.
    fraction, length, n = 0.3, 8.0, 256
    r = torch.arange(n // 2 + 1, dtype=torch.float64)
    debye = fraction**2 + fraction * (1 - fraction) * torch.exp(-r / length)
    value = field_covariance(debye, fraction=fraction)
    table = TabulatedCovariance(tuple((r / length).tolist()), tuple(value.tolist()))
    process = RandomField(covariance=table)
    covariance = process.covariance_map(length, shape=(n, n))
    s2 = radial_mean(cut_correlation(covariance, fraction=fraction)[None], max_lag=64)[0]
    assert float((s2 - debye[:65]).square().mean().sqrt()) < 2e-3
    cells = process.simulate(
        {"volume_fraction": fraction, "correlation_length_um": length}, shape=(n, n), seed=2, n=16
    )
    surface = specific_surface(indicators(cells))
    drop = math.pi * float(debye[0] - debye[1])
    assert abs(float(surface.mean()) - drop) < 4 * float(surface.std()) / 4
    assert drop == pytest.approx(math.pi * fraction * (1 - fraction) / length, rel=0.07)


def test_fraction_exact_or_scattered():
    point = {"volume_fraction": 0.37, "correlation_length_um": 6.0}
    free = indicators(RandomField().simulate(point, shape=(40, 40), seed=0, n=40))
    exact = indicators(
        RandomField(exact_fraction=True).simulate(point, shape=(40, 40), seed=0, n=4)
    )
    assert (exact.mean((1, 2)) - 0.37).abs().max() <= 0.5 / 1600
    fractions = free.mean((1, 2))
    assert fractions.std() > 0.02
    assert abs(float(fractions.mean()) - 0.37) < 4 * float(fractions.std()) / math.sqrt(40)


def test_anisotropy_stretches_axis_0():
    process = RandomField(anisotropy=3.0)
    cells = process.simulate(
        {"volume_fraction": 0.5, "correlation_length_um": 2.0}, shape=(48, 48), seed=0, n=20
    )
    path = lineal_path(indicators(cells), max_lag=8).mean(0)
    assert path[0, 6] > 1.5 * path[1, 6]


def test_fit_reproduces_fraction_and_s2_of_the_structures():
    truth = RandomField(covariance="oscillating", phase_names=("a", "b"), voxel_size_um=0.1)
    point = {"volume_fraction": 0.35, "correlation_length_um": 1.2}
    truth = RandomField(
        covariance="oscillating",
        phase_names=("a", "b"),
        voxel_size_um=0.1,
        length_bounds_um=(0.5, 2.0),
    )
    real = truth.simulate(point, shape=(64, 64), seed=5, n=80)
    fitted = RandomField.fit(real)
    assert fitted.phase_names == ("a", "b")
    middle = fitted.space.from_unit([0.5, 0.5])
    made = fitted.simulate(middle, shape=(64, 64), seed=6, n=80)
    curves = [
        radial_mean(two_point_correlation(indicators(cells)), max_lag=16) for cells in (real, made)
    ]
    error = curves[0].mean(0) - curves[1].mean(0)
    scatter = sum(c.var(0) / 80 for c in curves).sqrt()
    assert (error.abs() < 4 * scatter + 1e-3).all()


def tilted_gaussian(shape, angle, lengths):
    """Return the covariance map of a Gaussian with its long axis turned from axis 0."""
    x, y = lag_vectors(shape).double()
    along = (math.cos(angle) * x + math.sin(angle) * y) / lengths[0]
    across = (math.cos(angle) * y - math.sin(angle) * x) / lengths[1]
    return torch.exp(-(along**2 + across**2) / 2)


def test_a_tilted_s2_is_met_in_every_direction():
    shape, fraction = (48, 40), 0.3
    wanted = cut_correlation(tilted_gaussian(shape, 0.6, (5.0, 2.0)), fraction=fraction)
    process = RandomField.from_s2(wanted, voxel_size_um=0.2)
    assert process.mismatch(wanted, shape=shape).rms < 1e-5
    middle = process.space.from_unit([0.5, 0.5])
    assert middle["volume_fraction"] == pytest.approx(fraction)
    s2 = two_point_correlation(indicators(process.simulate(middle, shape=shape, seed=3, n=80)))
    for lag in ((4, 0), (0, 4), (4, 3), (4, -3), (8, 5)):
        got = s2[(slice(None), *lag)]
        assert abs(got.mean() - wanted[lag]) < 4 * got.std() / math.sqrt(80)
    # The two diagonals differ by far more than the scatter, so the tilt has the right sign.
    assert wanted[4, 3] - wanted[4, -3] > 0.03
    with pytest.raises(DataError, match="2 axes"):
        process.field(1.0, shape=(8, 8, 8), seed=0)
    with pytest.raises(DataError, match="wanted S2 of shape"):
        process.mismatch(wanted, shape=(32, 32))


def test_a_map_serves_other_cells_and_other_lengths():
    wanted = cut_correlation(tilted_gaussian((48, 48), 0.6, (5.0, 2.5)), fraction=0.4)
    process = RandomField.from_s2(wanted)
    larger = cut_correlation(tilted_gaussian((64, 72), 0.6, (5.0, 2.5)), fraction=0.4)
    assert process.mismatch(larger, shape=(64, 72)).rms < 1e-4
    middle = process.space.from_unit([0.5, 0.5])
    length = middle["correlation_length_um"]
    finer = cut_correlation(tilted_gaussian((96, 96), 0.6, (7.5, 3.75)), fraction=0.4)
    stretched = {**middle, "correlation_length_um": 1.5 * length}
    assert process.mismatch(finer, shape=(96, 96), process=stretched).rms < 1e-3


def test_an_s2_that_no_cut_has_is_missed_by_what_is_said():
    # A ring of one wavelength in every direction, with negative power in two dimensions.
    fraction = 0.5
    x = torch.arange(15, dtype=torch.float64)
    wave = torch.cos(2 * math.pi * x / 7).clamp(min=-0.95)
    wanted = fraction**2 + fraction * (1 - fraction) * wave * (1 - x / 15)
    process = RandomField.from_s2(wanted)
    told = process.mismatch(wanted, shape=(48, 48))
    assert told.rms > 0.01
    middle = process.space.from_unit([0.5, 0.5])
    s2 = two_point_correlation(indicators(process.simulate(middle, shape=(48, 48), seed=4, n=80)))
    exact = process.realised_s2(middle, shape=(48, 48))
    for lag in range(12):
        got = (s2[:, lag, 0] + s2[:, 0, lag]) / 2
        wide = (exact[lag, 0] + exact[0, lag]) / 2
        assert abs(got.mean() - wide) < 4 * got.std() / math.sqrt(80) + 1e-12
    error = torch.cat([exact[:15, 0] - wanted, exact[0, :15] - wanted])
    assert abs(told.largest) == pytest.approx(float(error.abs().max()))
    at = s2[(slice(None), *told.lag)]
    difference = float(at.mean()) - float(wanted[max(map(abs, told.lag))])
    assert abs(difference - told.largest) < 4 * float(at.std()) / math.sqrt(80)


def test_fit_keeps_the_anisotropy_when_asked():
    truth = RandomField(anisotropy=3.0, length_bounds_um=(1.0, 4.0))
    point = {"volume_fraction": 0.4, "correlation_length_um": 2.0}
    real = truth.simulate(point, shape=(48, 40), seed=5, n=60)
    fitted = RandomField.fit(real, isotropic=False)
    exact = truth.realised_s2(point, shape=(48, 40))
    mean = fitted.realised_s2(fitted.space.from_unit([0.5, 0.5]), shape=(48, 40))
    assert (mean - exact).abs().max() < 0.02
    cropped = [
        Microstructure(s.phases[:40, :36], periodic=(False,), phase_names=("a", "b")) for s in real
    ]
    windows = RandomField.fit(cropped, isotropic=False)
    mean = windows.realised_s2(windows.space.from_unit([0.5, 0.5]), shape=(48, 40))
    assert (mean - exact)[:10, :5].abs().max() < 0.02


def test_samples_depend_on_seed_and_index_alone():
    process = RandomField()
    point = {"volume_fraction": 0.5, "correlation_length_um": 3.0}
    three = process.simulate(point, shape=(16, 16), seed=9, n=3)
    third = process.simulate(point, shape=(16, 16), seed=9, n=1, first=2)[0]
    assert np.array_equal(three[2].phases, third.phases)
    both = process.simulate([point, point], shape=(16, 16), seed=9, n=2)
    assert np.array_equal(both[2].phases, third.phases)
    assert third.process == point


def test_bad_input_is_refused():
    process = RandomField()
    with pytest.raises(DataError, match="expected values for"):
        process.simulate({"volume_fraction": 0.5}, shape=(8, 8), seed=0)
    with pytest.raises(DataError, match="volume_fraction between"):
        process.simulate({"volume_fraction": 0.99}, shape=(8, 8), seed=0)
    point = {"volume_fraction": 0.5, "correlation_length_um": 3.0}
    with pytest.raises(DataError, match="2-D or 3-D"):
        process.simulate(point, shape=(8,), seed=0)
    with pytest.raises(DataError, match="finite S2"):
        RandomField.from_s2(torch.tensor([0.3, math.nan]))
    with pytest.raises(DataError, match="the largest value"):
        RandomField.from_s2(torch.tensor([0.3, 0.4]))
    with pytest.raises(DataError, match="one or more structures"):
        RandomField.fit([])
    with pytest.raises(DataError, match="fill part"):
        RandomField.fit([Microstructure(np.zeros((8, 8), int), phase_names=("a", "b"))])
