import math

import pytest
import torch

from microstructures import DataError
from optimize import Estimate
from optimize.goals import Goals


def estimate(value, half, level="discrete"):
    return Estimate(value, value - half, value + half, level)


def test_targets_are_one_weighted_relative_miss():
    goals = Goals({"a": 100.0, "b": -4.0}, weights={"b": 4.0})
    assert goals.n_maximands == 1
    y = torch.tensor([[110.0, -4.4], [100.0, -4.0]], dtype=torch.float64)
    assert goals.maximands(y)[:, 0].tolist() == pytest.approx(
        [-math.sqrt(0.01 + 4 * 0.01), -1e-8], abs=1e-12
    )


def test_extremes_keep_their_sign_and_stand_beside_the_targets():
    goals = Goals({"a": "maximize", "b": "minimize", "c": 2.0})
    assert goals.n_maximands == 3
    assert goals.merits({"a": 5.0, "b": 7.0, "c": 1.0}) == pytest.approx([-0.5, 5.0, -7.0])


def test_the_miss_has_a_finite_slope_where_it_is_zero():
    y = torch.tensor([100.0], dtype=torch.float64, requires_grad=True)
    Goals({"a": 100.0}).maximands(y).sum().backward()
    assert y.grad is not None
    assert y.grad.item() == 0


@pytest.mark.parametrize(
    ("value", "confirmed"),
    [
        (100.0, True),
        (estimate(100.0, 0.4), True),
        (estimate(100.0, 0.4, "continuum"), True),
        (estimate(100.0, 0.6), False),
        (estimate(100.0, 0.0, "statistical"), False),
        (estimate(0.0, 1e-3), False),
    ],
)
def test_only_numbers_and_narrow_guaranteed_brackets_are_confirmed(value, confirmed):
    goals = Goals({"a": "maximize"}, tolerance=0.01)
    assert goals.confirmed({"a": value}) is confirmed
    assert goals.feasible({"a": value}) is confirmed


@pytest.mark.parametrize(
    ("interval", "inside"),
    [((None, 1.0), True), ((1.0, None), True), ((0.5, 1.5), True), ((1.5, 2.0), False)],
)
def test_constraints_are_closed_intervals(interval, inside):
    assert Goals({"a": 1.0}, {"gate": interval}).feasible({"a": 2.0, "gate": 1.0}) is inside


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"objectives": {}}, "at least one objective"),
        ({"objectives": {"a": "max"}}, "maximize, minimize or a target number"),
        ({"objectives": {"a": 0.0}}, "a target other than 0"),
        ({"objectives": {"a": math.nan}}, "target a to be a finite number"),
        ({"objectives": {"a": 1.0}, "constraints": {"g": (None, None)}}, "one of them given"),
        ({"objectives": {"a": 1.0}, "constraints": {"g": (2.0, 1.0)}}, "low <= high"),
        ({"objectives": {"a": "maximize"}, "weights": {"a": 1.0}}, "weights of targets"),
        ({"objectives": {"a": 1.0}, "weights": {"a": -1.0}}, "positive weights"),
        ({"objectives": {"a": 1.0}, "tolerance": 0.0}, "positive tolerance"),
    ],
)
def test_goals_that_do_not_fit_are_refused(settings, sentence):
    with pytest.raises(DataError, match=sentence):
        Goals(**settings)


def test_estimates_check_themselves():
    assert float(Estimate(1.0, 0.0, 2.0, "discrete")) == 1.0
    assert Estimate(1.0, 1.0 + 1e-9, 1.0, "discrete").width == 0.0
    assert estimate(0.0, 1.6449, "statistical").deviation == pytest.approx(1.0)
    assert estimate(0.0, math.sqrt(3)).deviation == pytest.approx(1.0)
    with pytest.raises(DataError, match="lower <= value <= upper"):
        Estimate(3.0, 0.0, 2.0, "discrete")
    with pytest.raises(DataError, match="upper to be a finite number"):
        Estimate(1.0, 0.0, math.inf, "statistical")
