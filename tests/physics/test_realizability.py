"""Necessary conditions: real maps meet them, each broken candidate is named."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from microstructures import DataError
from physics.statistics import (
    check_realizable,
    isotropic_map,
    lag_vectors,
    two_point_correlation,
)

CONDITIONS = [
    "fraction",
    "lower bound",
    "upper bound",
    "symmetry",
    "spectrum",
    "fraction variance",
    "far limit",
    "slope",
    "triangle",
    "three points",
]


def names(report):
    return [condition.name for condition in report.broken]


@given(st.integers(0, 10_000), st.sampled_from([(8, 9), (5, 4, 6)]), st.floats(0.1, 0.9))
def test_every_real_map_is_realizable(seed, shape, fraction):
    generator = torch.Generator().manual_seed(seed)
    a = torch.rand(3, *shape, generator=generator) < fraction
    report = check_realizable(two_point_correlation(a), a.double().flatten(1).mean(1))
    assert report.ok, str(report)
    assert report.holds.tolist() == [True] * 3
    exact = two_point_correlation(a.double())
    report = check_realizable(exact, tolerance=1e-12, fraction_variance=0.0)
    assert report.ok, str(report)
    # An ensemble of cells: the mean map, whose chi(0) is the variance of the fraction.
    fractions = a.double().flatten(1).mean(1)
    ensemble, variance = exact.mean(0, keepdim=True), fractions.var(correction=0)
    report = check_realizable(
        ensemble, float(fractions.mean()), tolerance=1e-12, fraction_variance=float(variance)
    )
    assert report.ok, str(report)
    report = check_realizable(ensemble, tolerance=1e-12, fraction_variance=float(variance) + 1e-9)
    assert names(report) == ["fraction variance"]


@pytest.mark.parametrize("name", ["alloy_resized", "copolymer_resized", "composite_resized"])
def test_real_images_meet_every_condition_to_round_off(real_data, name):
    image = np.load(real_data / "classic_micrographs" / f"{name}.npy")
    phase = torch.from_numpy(image == image.max())[None].double()
    report = check_realizable(two_point_correlation(phase), tolerance=1e-12, fraction_variance=0)
    assert report.ok, str(report)
    assert [condition.name for condition in report.conditions] == CONDITIONS


def test_a_debye_medium_is_realizable():
    r = torch.arange(33, dtype=torch.float64)
    curve = 0.09 + 0.21 * torch.exp(-r / 4)
    report = check_realizable(isotropic_map(curve[None], shape=(64, 64)), 0.3, tolerance=1e-4)
    assert report.ok, str(report)


def test_broken_candidates_are_named():
    phi, r = 0.5, lag_vectors((32, 32)).double().square().sum(0).sqrt()
    good = (phi**2 + 0.25 * torch.exp(-r / 3))[None]
    assert names(check_realizable(good, 0.45)) == ["fraction"]
    assert "spectrum" in names(check_realizable((phi**2 + 0.25 * (r < 4))[None]))
    assert "upper bound" in names(check_realizable(good + 0.4 * (r == 9)))
    assert "lower bound" in names(check_realizable(good - 0.3 * (r > 12)))
    # A Gaussian has no cone at zero: no two-phase structure is that smooth (triangle).
    smooth = phi**2 + 0.25 * torch.exp(-((r / 6) ** 2))
    assert names(check_realizable(smooth[None])) == ["slope", "triangle"]
    lopsided = good.clone()
    lopsided[0, 3, 0] += 0.01
    assert "symmetry" in names(check_realizable(lopsided))
    both = check_realizable(torch.cat([good, lopsided]))
    assert both.holds.tolist() == [True, False]
    assert not both.ok
    assert "broken" in str(both)


def test_the_far_limit_is_the_squared_fraction():
    r = lag_vectors((64, 64)).double().square().sum(0).sqrt()
    for limit, broken in ((0.2, ["spectrum", "far limit"]), (0.3, ["fraction variance"])):
        s2 = (limit + (0.5 - limit) * torch.exp(-r / 3))[None]
        report = check_realizable(s2, tolerance=1e-3, fraction_variance=0.0)
        assert set(broken) <= set(names(report)), str(report)
    # Left open, a higher limit is an ensemble of cells of unlike fraction, up to 0 or 1 each.
    assert check_realizable(s2, tolerance=1e-3).ok
    assert check_realizable(s2, tolerance=1e-3, fraction_variance=float(s2.mean()) - 0.25).ok


def test_long_range_order_is_realizable_but_no_order_of_three_at_one_half():
    x = torch.arange(12)
    laminate = ((x % 6 < 3).double()[:, None] * torch.ones(12))[None]
    assert check_realizable(two_point_correlation(laminate), tolerance=1e-12).ok
    # Period 3 with phi = 1/2: of three points a step apart no two may hold often enough.
    wave = 0.25 + 0.25 * torch.cos(2 * math.pi * x.double() / 3)
    report = check_realizable((wave[:, None] * torch.ones(12))[None])
    assert names(report) == ["three points"]
    assert report.broken[0].worst == pytest.approx(3 * 0.125 - 0.5)


def test_damped_oscillation_is_realizable_only_when_damped_enough():
    # Yeong and Torquato (1998): exp(-r/a) cos(qr) needs (qa)^2 <= 1/3 in 3-D.
    r = lag_vectors((32, 32, 32)).double().square().sum(0).sqrt()
    for qa, ok in ((0.4, True), (1.5, False)):
        s2 = 0.25 + 0.25 * torch.exp(-r / 3) * torch.cos(qa * r / 3)
        report = check_realizable(s2[None], tolerance=2e-6)
        assert ("spectrum" not in names(report)) == ok, str(report)


def test_maps_that_are_no_maps_are_refused():
    with pytest.raises(DataError, match="isotropic_map"):
        check_realizable(torch.ones(2, 9))
    with pytest.raises(DataError, match="finite"):
        check_realizable(torch.full((1, 4, 4), math.nan))
    with pytest.raises(DataError, match="fraction_variance of 0 or more, got -1"):
        check_realizable(torch.full((1, 4, 4), 0.5), fraction_variance=-1.0)
