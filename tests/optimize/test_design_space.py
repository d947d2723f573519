import math
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microstructures import DataError, Parameter, ProcessSpace
from optimize import DesignSpace, random_trials
from optimize.sampling import sobol_points

units = st.lists(st.floats(0, 1), min_size=6, max_size=6)


@given(units)
def test_a_snapped_point_is_a_fixed_point(mixed, u):
    once = mixed.snap(u)
    assert mixed.snap(once) == pytest.approx(once, abs=1e-9)
    assert all(0 <= x <= 1 for x in once)


@given(units)
def test_parameters_are_valid_points(mixed, u):
    parameters = mixed.from_unit(u)
    assert list(parameters) == ["temperature_k", "time_h", "passes", "quench", "latent"]
    assert isinstance(parameters["passes"], int)
    assert parameters["quench"] in ("air", "oil", "water")
    assert all(abs(z) <= 2.3264 for z in parameters["latent"])
    assert mixed.canonical(parameters) == parameters


def test_latent_coordinates_are_prior_probabilities(mixed):
    u = [0.5] * 4 + [0.975, 0.2]
    assert mixed.from_unit(u)["latent"] == pytest.approx(
        [1.959964, NormalDist().inv_cdf(0.2)], abs=1e-6
    )
    assert mixed.to_unit(mixed.from_unit(u))[4:] == pytest.approx(u[4:], abs=1e-12)


def test_an_attached_code_beyond_the_searched_tails_keeps_its_coordinate(mixed):
    far = mixed.from_unit([0.5] * 6) | {"latent": [3.0, 0.0]}
    assert mixed.to_unit(far)[4] == pytest.approx(NormalDist().cdf(3.0))


def test_space_survives_json(mixed):
    assert DesignSpace.from_json(mixed.to_json()) == mixed


def test_sobol_points_do_not_depend_on_where_one_starts(mixed):
    whole = sobol_points(mixed, 8, seed=3)
    assert sobol_points(mixed, 3, seed=3, first=5) == whole[5:]
    assert sobol_points(mixed, 8, seed=4) != whole


def test_random_trials_follow_the_prior():
    space = DesignSpace(ProcessSpace([]), latent_dim=4)
    trials = random_trials(space, 1000, 0)
    z = [x for t in trials for x in t.parameters["latent"]]
    assert abs(sum(z) / len(z)) < 4 / math.sqrt(len(z))
    assert 0.85 < sum(x * x for x in z) / len(z) < 1.0  # below 1: clipped tails
    assert [t.number for t in trials] == list(range(1000))
    assert random_trials(space, 10, 0) == trials[:10]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"time_h": None}, "time_h is missing"),
        ({"time_h": 1000.0}, "time_h between 1 and 100 h, got 1000"),
        ({"pressure": 1.0}, "got pressure"),
        ({"latent": [0.0]}, "list of 2 finite numbers"),
        ({"latent": [0.0, math.nan]}, "list of 2 finite numbers"),
        ({"latent": ["a", "b"]}, "list of 2 finite numbers"),
        ({"latent": None}, "list of 2 finite numbers"),
    ],
)
def test_bad_parameters_are_refused(mixed, change, sentence):
    with pytest.raises(DataError, match=sentence):
        mixed.to_unit(mixed.from_unit([0.5] * 6) | change)


@pytest.mark.parametrize("u", [[0.5] * 5, [0.5] * 5 + [1.5], [0.5] * 5 + [math.nan]])
def test_bad_unit_points_are_refused(mixed, u):
    with pytest.raises(DataError, match="6 unit coordinates"):
        mixed.from_unit(u)


def test_an_empty_or_ambiguous_space_is_refused():
    with pytest.raises(DataError, match="at least one"):
        DesignSpace(ProcessSpace([]))
    with pytest.raises(DataError, match="latent"):
        DesignSpace(ProcessSpace([Parameter("latent", "-", 0.0, 1.0)]), latent_dim=2)
