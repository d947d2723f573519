"""Chapters on linear fields: what is measured is right, and who wins is read off the figures."""

import numpy as np
import pytest
import torch

from physics import effective_stiffness
from studies.field_families import Family, phase_materials, plane_families, powder_beds
from studies.field_race import SOLVER, Start, affordable, cheapest, raced_errors
from studies.field_standings import Raced, cost_table, verdict_on
from studies.surrogate_certificate import _margins


@pytest.fixture(scope="module")
def families() -> list[Family]:
    return plane_families(2, 16, seed=3)


def test_every_family_holds_two_phases_and_repeats_itself(families):
    again = plane_families(2, 16, seed=3)
    for first, second in zip(families, again, strict=True):
        assert first.phases.shape == (2, 16, 16)
        assert torch.equal(first.phases, second.phases)
        assert first.phases.flatten(1).amin(1).max() < first.phases.flatten(1).amax(1).min()
    assert {f.trained for f in families} == {True, False}
    pores = powder_beds(3, (32, 32), seed=1).double().mean((1, 2))
    assert pores.min() >= 0.01
    assert pores.max() <= 0.2


def test_contrast_is_of_the_stiff_phase_whichever_it_is():
    soft, stiff = phase_materials(50.0, 1)
    assert stiff.youngs_modulus_gpa == 50 * soft.youngs_modulus_gpa
    assert phase_materials(50.0, 0) == [stiff, soft]
    assert phase_materials(float("inf"), 0)[1].youngs_modulus_gpa == 0


def test_the_stopped_solver_converges_and_its_brackets_hold(families):
    found = raced_errors(families[3], 10.0, [Start(SOLVER)], (0, 2, 30))
    assert found["midpoint"].shape == (1, 3, 4)
    for metric in ("width", "upper", "strain"):
        mean = found[metric][0].mean(-1)
        assert mean[0] > mean[1] > mean[2]
    assert found["strain"][0, 2].max() < 1e-3
    assert found["width"][0, 2].max() < 1e-6
    assert not found["broken"].any()
    # With no iteration at all the upper end is Voigt's mean.
    cells = families[3].phases.long()
    exact = effective_stiffness(cells, phase_materials(10.0, 1), tolerance=1e-6).value[:, 0, 0]
    voigt = torch.tensor([m.stiffness(2)[0, 0] for m in phase_materials(10.0, 1)])[cells]
    wanted = voigt.mean((1, 2)) / exact - 1
    assert np.allclose(found["upper"][0, 0, :2], wanted.numpy(), rtol=1e-6)


def test_the_least_cost_is_of_those_that_are_good_enough():
    errors, costs = np.array([0.3, 0.02, 0.001]), np.array([1.0, 2.0, 5.0])
    assert cheapest(errors, costs, 0.05) == 2.0
    assert cheapest(errors, costs, 1e-6) is None
    assert affordable(costs, 4.0) == 1
    assert affordable(costs, 0.1) == 0


def race_of(net_ms: float) -> Raced:
    errors = np.array([[0.5, 0.02], [0.02, 0.0001]])[:, :, None].repeat(3, -1)
    return Raced(
        (SOLVER, "net"),
        (0, 3),
        {"a": True, "b": False},
        {name: {"estimate": errors} for name in "ab"},
        np.array([[1.0, 9.0], [net_ms, net_ms + 8]]),
        (1,),
    )


def test_the_verdict_follows_the_costs():
    assert "the solver wins" in verdict_on(race_of(20.0), "contrast 9")
    assert "is no gain" in verdict_on(race_of(6.0), "contrast 9")
    assert "the net wins there, 4.5-fold" in verdict_on(race_of(2.0), "contrast 9")
    table = cost_table(race_of(2.0))
    rows = {row.name: [cell.text for cell in row.cells] for row in table.rows}
    assert rows["2 %, learnt families"] == ["9", "2 (least)"]
    assert rows["0.1 %, other families"] == ["not reached", "10 (least)"]


def test_the_margin_is_of_the_worst_direction_in_units_of_the_truth():
    truth = torch.diag(torch.tensor([2.0, 8.0], dtype=torch.float64))[None]
    tight = torch.diag(torch.tensor([2.0, 7.0], dtype=torch.float64))[None]
    assert _margins(tight, truth, 2 * truth).item() == pytest.approx(0.0)
    assert _margins(0.5 * truth, truth, tight).item() == pytest.approx(-1 / 8)
