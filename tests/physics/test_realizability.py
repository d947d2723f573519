"""Necessary conditions: real maps meet them, each broken candidate is named."""

import math

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


def names(report):
    return [condition.name for condition in report.broken]


@given(st.integers(0, 10_000), st.sampled_from([(8, 9), (5, 4, 6)]), st.floats(0.1, 0.9))
def test_every_real_map_is_realizable(seed, shape, fraction):
    generator = torch.Generator().manual_seed(seed)
    a = torch.rand(3, *shape, generator=generator) < fraction
    report = check_realizable(two_point_correlation(a), a.double().flatten(1).mean(1))
    assert report.ok, str(report)
    assert report.holds.tolist() == [True] * 3
    exact = check_realizable(two_point_correlation(a.double()), tolerance=1e-12)
    assert exact.ok, str(exact)


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
    assert "triangle" in names(check_realizable(smooth[None]))
    lopsided = good.clone()
    lopsided[0, 3, 0] += 0.01
    assert "symmetry" in names(check_realizable(lopsided))
    both = check_realizable(torch.cat([good, lopsided]))
    assert both.holds.tolist() == [True, False]
    assert not both.ok
    assert "broken" in str(both)


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
