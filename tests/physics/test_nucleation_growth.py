"""Nucleation and growth against Kolmogorov's laws: fraction, S2, number and size of grains."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from microstructures import DataError
from physics.processes.nucleation_growth import NucleationGrowth, first_arrival
from physics.processes.transformation_kinetics import (
    DirectRates,
    HoffmanLauritzen,
    Thermal,
    TurnbullFisher,
)
from physics.statistics import two_point_correlation

STEADY = NucleationGrowth(
    voxel_size_um=1.0,
    kinetics=DirectRates(),
    time_bounds_s=(1.0, 1000.0),
    film_thickness_um=1.0,
)
SATURATED = NucleationGrowth(
    voxel_size_um=1.0,
    kinetics=DirectRates(nucleation_bounds=None, sites_bounds=(1e-5, 1e-1)),
    time_bounds_s=(1.0, 1000.0),
    film_thickness_um=1.0,
)
CASES = {
    "steady 2-D": (STEADY, (64, 64), {"nucleation_rate_per_um3_s": 1e-4}, 50.0, 60),
    "steady 3-D": (STEADY, (28, 24, 28), {"nucleation_rate_per_um3_s": 3e-5}, 34.0, 40),
    "saturated 2-D": (SATURATED, (64, 64), {"nuclei_per_um3": 4e-3}, 40.0, 60),
    "saturated 3-D": (SATURATED, (28, 24, 28), {"nuclei_per_um3": 2e-3}, 24.0, 40),
}
GROWTH = 0.4


def grown(case, seed=1):
    process, shape, nuclei, time, n = CASES[case]
    point = {**nuclei, "growth_rate_um_s": GROWTH, "time_s": time}
    return process.grow(point, shape=shape, seed=seed, n=n), next(iter(nuclei.values()))


def extended_volume(case, density, t):
    match case:
        case "steady 2-D":
            return math.pi / 3 * density * GROWTH**2 * t**3
        case "steady 3-D":
            return math.pi / 3 * density * GROWTH**3 * t**4
        case "saturated 2-D":
            return math.pi * density * (GROWTH * t) ** 2
        case _:
            return 4 * math.pi / 3 * density * (GROWTH * t) ** 3


@pytest.mark.parametrize(("case", "exponent"), list(zip(CASES, (3, 4, 2, 3), strict=True)))
def test_fraction_follows_jmak_with_its_avrami_exponent(case, exponent):
    cells, density = grown(case)
    unit = extended_volume(case, density, 1.0)
    times = np.array([(x / unit) ** (1 / exponent) for x in (0.05, 0.2, 0.5, 1.0, 2.0)])
    arrival = np.stack([c.arrival_s for c in cells])
    fractions = (arrival[..., None] <= times).mean(axis=tuple(range(1, arrival.ndim)))
    exact = 1 - np.exp([-extended_volume(case, density, t) for t in times])
    error = fractions.std(0, ddof=1) / math.sqrt(len(cells))
    assert (np.abs(fractions.mean(0) - exact) < 4 * error).all()
    assert (error < 0.03).all()
    slope = np.polyfit(np.log(times), np.log(-np.log1p(-fractions.mean(0))), 1)[0]
    assert slope == pytest.approx(exponent, abs=0.2)
    expected = CASES[case][0].clock(
        {**CASES[case][2], "growth_rate_um_s": GROWTH, "time_s": times[2]}, ndim=arrival.ndim - 1
    )
    assert expected.transformed[-1] == pytest.approx(exact[2], rel=1e-5)


def union_of_discs(radius, lag):
    if lag >= 2 * radius:
        return 2 * math.pi * radius**2
    lens = 2 * radius**2 * math.acos(lag / (2 * radius))
    return 2 * math.pi * radius**2 - lens + lag / 2 * math.sqrt(4 * radius**2 - lag**2)


@pytest.mark.parametrize("case", ["steady 2-D", "saturated 2-D"])
def test_parent_has_the_exact_s2(case):
    # Both points are free when no nucleus has appeared in the union of their two light cones;
    # for nuclei there from the start this is NUMERICS row 12.
    cells, density = grown(case, seed=2)
    unit = extended_volume(case, density, 1.0)
    time = (0.6 / unit) ** (1 / (3 if case == "steady 2-D" else 2))
    parent = torch.from_numpy(np.stack([c.arrival_s > time for c in cells])).double()
    got = two_point_correlation(parent)[:, :13, 0]
    for lag in range(13):
        if case == "steady 2-D":
            cone = quad(lambda t, r=lag: union_of_discs(GROWTH * t, r), 0, time, limit=200)[0]
        else:
            cone = union_of_discs(GROWTH * time, lag)
        error = float(got[:, lag].std()) / math.sqrt(len(cells))
        assert abs(float(got[:, lag].mean()) - math.exp(-density * cone)) < 4 * error


@pytest.mark.parametrize(("shape", "case"), [((64, 64), "steady 2-D"), ((24,) * 3, "steady 3-D")])
def test_number_of_grains_is_johnson_and_mehl_s(shape, case):
    # What is free of grains at t nucleates: N = I int exp(-X_ext) dt; swallowed nuclei count not.
    d = len(shape)
    rate = CASES[case][2]["nucleation_rate_per_um3_s"]
    point = {"nucleation_rate_per_um3_s": rate, "growth_rate_um_s": GROWTH, "time_s": 200.0}
    cells = STEADY.grow(point, shape=shape, seed=3, n=40)
    density = (3 / math.pi) ** (1 / (d + 1)) * math.gamma(1 + 1 / (d + 1))
    expected = density * (rate / GROWTH) ** (d / (d + 1)) * math.prod(shape)
    counts = np.array([len(c.births_s) for c in cells])
    assert abs(counts.mean() - expected) < 4 * counts.std(ddof=1) / math.sqrt(len(cells))
    assert all((c.grain_ids > 0).all() and c.grain_ids.max() <= len(c.births_s) for c in cells)
    assert all((np.diff(c.births_s) >= 0).all() for c in cells)


def test_site_saturation_ends_in_poisson_voronoi_grains():
    # Relative variance of cell areas 0.2802 (Gilbert 1962).
    point = {"nuclei_per_um3": 5e-3, "growth_rate_um_s": GROWTH, "time_s": 200.0}
    cells = SATURATED.grow(point, shape=(96, 96), seed=4, n=80)
    areas = [np.bincount(c.grain_ids.ravel(), minlength=len(c.births_s) + 1)[1:] for c in cells]
    variance = np.array([np.var(5e-3 * a - 1) for a in areas])
    error = variance.std(ddof=1) / math.sqrt(len(cells))
    assert error < 0.02
    assert abs(variance.mean() - 0.2802) < 4 * error


@pytest.mark.parametrize("d", [2, 3])
def test_first_arrival_equals_the_minimum_over_all_images(d):
    random = np.random.default_rng(0)
    period = np.array([5.0, 7.0, 4.0])[:d]
    centres, points = random.random((40, d)) * period, random.random((200, d)) * period
    starts = random.random(40) * 4
    arrival, winner = first_arrival(points, centres, starts, period=period)
    shifts = np.array(list(itertools.product((-1, 0, 1), repeat=d))) * period
    images = points[:, None, None] - centres[:, None] - shifts
    total = starts + np.linalg.norm(images, axis=-1).min(-1)
    assert np.allclose(arrival, total.min(1), atol=1e-12)
    assert (winner == total.argmin(1)).all()


def test_cooling_follows_kolmogorov_s_integral():
    # Polymer cooled from 410 K: nuclei become active one by one, each grows ever faster.
    start, rate, hold, end = 410.0, 0.15, 393.0, 180.0
    law = HoffmanLauritzen(thermal=Thermal((385.0, 400.0), start_k=start))
    process = NucleationGrowth(kinetics=law, voxel_size_um=8.0)
    assert process.space.names == ("temperature_k", "cooling_rate_k_s", "time_s")
    point = {"temperature_k": hold, "cooling_rate_k_s": rate, "time_s": end}

    def temperature(t):
        return max(hold, start - rate * t)

    def growth(t):
        k = temperature(t)
        return 2.83e8 * math.exp(-6270 / 8.314462618 / (k - 239) - 5.5e5 / (k * (483 - k)))

    def nuclei(t):
        return 50e-18 * math.exp(0.156 * (483 - temperature(t)) + 15.1)

    def reach(t):
        ramp = min(t, (start - hold) / rate)
        return quad(growth, 0, ramp)[0] + growth(end) * (t - ramp)

    whole = reach(end)
    births = quad(
        lambda t: rate * 0.156 * nuclei(t) * (whole - reach(t)) ** 2, 0, (start - hold) / rate
    )[0]
    exact = math.pi * (nuclei(0.0) * whole**2 + births)
    clock = process.clock(point, ndim=2)
    assert 0.3 < clock.transformed[-1] < 0.9
    assert clock.extended_volume[-1] == pytest.approx(exact, rel=1e-3)
    cells = process.simulate(point, shape=(64, 64), seed=5, n=60)
    fractions = np.array([c.volume_fractions[1] for c in cells])
    error = fractions.std(ddof=1) / math.sqrt(len(cells))
    assert abs(fractions.mean() - clock.transformed[-1]) < 4 * error


def test_rates_vanish_at_melting_and_peak_between():
    glass, polymer = TurnbullFisher(), HoffmanLauritzen()
    t = np.arange(640.0, 1310.0)
    rates = [glass.rates({"temperature_k": x}, np.zeros(1)) for x in t]
    nucleation = np.array([r.nucleation_per_um3_s[0] for r in rates])
    growth = np.array([r.growth_um_s[0] for r in rates])
    assert t[nucleation.argmax()] == pytest.approx(727, abs=2)
    assert 1e-9 < nucleation.max() < 1e-8
    assert nucleation.argmax() < growth.argmax() < len(t) - 10
    assert (nucleation[t > 1307] == 0).all()
    assert (growth[t > 1307] == 0).all()
    t = np.arange(250.0, 500.0)
    growth = np.array([polymer.rates({"temperature_k": x}, np.zeros(1)).growth_um_s[0] for x in t])
    assert 320 < t[growth.argmax()] < 380
    assert (growth[t > 483] == 0).all()
    # 0.1 to 0.2 um/s at 130 degrees Celsius: what a hot stage shows for polypropylene.
    assert 0.1 < growth[t == 403.0] < 0.2


def test_a_film_holds_nuclei_in_proportion_to_its_thickness():
    point = {"temperature_k": 395.0, "time_s": 100.0}
    thin, thick = (NucleationGrowth(film_thickness_um=h).clock(point, ndim=2) for h in (10, 40))
    assert thick.extended_volume[-1] == pytest.approx(4 * thin.extended_volume[-1])


def test_cells_depend_on_seed_and_index_alone():
    process = NucleationGrowth()
    point = {"temperature_k": 395.0, "time_s": 60.0}
    other = {"temperature_k": 390.0, "time_s": 90.0}
    cells = process.simulate([point, other], shape=(24, 32), seed=9, n=2)
    alone = process.simulate(other, shape=(24, 32), seed=9, first=3)[0]
    assert np.array_equal(cells[3].channels["grain_ids"], alone.channels["grain_ids"])
    assert not np.array_equal(cells[2].phases, cells[3].phases)
    assert alone.process == other
    assert (alone.phases == (alone.channels["grain_ids"] > 0)).all()


def test_before_the_first_nucleus_all_is_parent():
    point = {"nuclei_per_um3": 1e-5, "growth_rate_um_s": 0.1, "time_s": 1.0}
    cell = SATURATED.simulate(point, shape=(4, 4), seed=0)[0]
    assert (cell.phases == 0).all()


def test_bad_input_is_refused():
    point = {"nucleation_rate_per_um3_s": 1e-4, "growth_rate_um_s": 0.1, "time_s": 900.0}
    with pytest.raises(DataError, match="expected values for"):
        STEADY.simulate({"time_s": 5.0}, shape=(8, 8), seed=0)
    with pytest.raises(DataError, match="between 1e-06 and"):
        STEADY.simulate({**point, "nucleation_rate_per_um3_s": 1.0}, shape=(8, 8), seed=0)
    coarse = NucleationGrowth(kinetics=DirectRates(), voxel_size_um=50.0, time_bounds_s=(1, 1e3))
    with pytest.raises(DataError, match="fewer nuclei than voxels"):
        coarse.simulate(point, shape=(8, 8), seed=0)
    with pytest.raises(DataError, match="give one of them"):
        DirectRates(nucleation_bounds=None)
