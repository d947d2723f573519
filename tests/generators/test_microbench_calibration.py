"""M6 to M8: a miscalibrated, a biased and a narrow generator are seen for what they are."""

import numpy as np
import pytest

from generators.microbench_calibration import (
    calibrate,
    energy_p_values,
    energy_test,
    regression,
    worst_r_squared,
    worst_slope,
)
from generators.microbench_spread import (
    band_coverage,
    spread_ratio,
    spreads,
    worst_coverage,
    worst_ratio,
)


def descriptors(*, n=64, seed=0, slope=1.0, scatter=0.1, conditions=40):
    """`right` follows the condition; `tilted` with a slope about the middle."""
    found = []
    for k in range(conditions):
        rng = np.random.default_rng([seed, k])
        x = k / (conditions - 1)
        found.append(
            {
                "right": x + scatter * rng.standard_normal(n),
                "tilted": 0.5 + slope * (x - 0.5) + scatter * rng.standard_normal(n),
            }
        )
    return found


def test_slope_and_r_squared_of_a_line_with_known_noise():
    x = np.linspace(0, 1, 41)
    assert regression(x, 3 - 0.5 * x) == (pytest.approx(-0.5), pytest.approx(1.0))
    # Residuals that are orthogonal to the line: R^2 = explained / total.
    residual = np.where(np.arange(41) % 2, -1.0, 1.0) * np.interp(x, [0, 0.5, 1], [1, 1, 1])
    residual -= residual.mean() + (x - x.mean()) * ((x - x.mean()) @ residual) / (
        (x - x.mean()) @ (x - x.mean())
    )
    slope, r_squared = regression(x, x + 0.1 * residual)
    explained = ((x - x.mean()) ** 2).sum()
    assert slope == pytest.approx(1.0)
    assert r_squared == pytest.approx(explained / (explained + 0.01 * (residual**2).sum()))
    assert regression(np.full(4, 0.1), np.arange(4.0)) == (None, None)


def test_a_miscalibrated_descriptor_is_the_worst_one():
    found = calibrate(descriptors(), descriptors(seed=1, slope=0.8))
    assert worst_slope(found).name == "tilted"
    assert worst_slope(found).slope == pytest.approx(0.8, abs=0.03)
    assert worst_r_squared(found).r_squared > 0.97
    good = calibrate(descriptors(), descriptors(seed=1))
    assert abs(worst_slope(good).slope - 1) < 0.04


def test_energy_distance_rejects_at_its_level_and_sees_shifts():
    same = energy_p_values(descriptors(), descriptors(seed=1), seed=0)
    assert (same < 0.05).mean() <= 0.15
    wider = energy_p_values(descriptors(), descriptors(seed=1, scatter=0.25), seed=0)
    assert (wider < 0.05).mean() > 0.9
    rng = np.random.default_rng(0)
    a = rng.standard_normal((40, 2))
    assert energy_test(a, a + 3.0, np.random.default_rng(1)) == pytest.approx(1 / 200)
    assert energy_test(a, a, np.random.default_rng(1)) == 1.0
    assert energy_test(np.ones((4, 2)), np.ones((4, 2)), np.random.default_rng(1)) == 1.0


def test_coverage_of_a_perfect_generator_is_nine_tenths():
    rng = np.random.default_rng(0)
    shares = [band_coverage(rng.standard_normal(64), rng.standard_normal(64)) for _ in range(400)]
    assert np.mean(shares) == pytest.approx(0.90, abs=0.01)
    assert band_coverage(np.ones(10), np.ones(10)) == 1.0
    assert band_coverage(np.array([-1.0, 0.5, 2.0]), np.linspace(0, 1, 101)) == pytest.approx(1 / 3)


def test_spread_is_the_ratio_of_standard_deviations():
    real = np.array([0.0, 1.0, 2.0])
    assert spread_ratio([(real, 5 + 3 * real), (real, real / 3)]) == pytest.approx(1.0)
    assert spread_ratio([(real, 0.5 * real)]) == pytest.approx(0.5)
    assert spread_ratio([(np.ones(3), real)]) is None
    assert spread_ratio([(real, np.ones(3))]) == 0.0


def test_a_narrow_generator_is_the_worst_one():
    wide, narrow = descriptors(), descriptors(seed=1, scatter=0.05)
    mixed = [
        {"right": w["right"], "tilted": n["tilted"]} for w, n in zip(wide, narrow, strict=True)
    ]
    found = spreads(descriptors(seed=2), mixed)
    assert worst_coverage(found).name == "tilted"
    assert worst_coverage(found).coverage < 0.7
    assert worst_ratio(found).name == "tilted"
    assert worst_ratio(found).ratio == pytest.approx(0.5, abs=0.05)
    assert worst_ratio(spreads([{"a": np.ones(3)}], [{"a": np.ones(3)}])) is None
