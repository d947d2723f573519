"""The race of the path surrogate: what an error is, the loosened solver, who is cheapest."""

import pytest
import torch

from physics.mechanics import solve_plasticity
from studies.plastic_race import drawn_test, monotone, solved_stress, stress_errors
from studies.plastic_tables import cheapest_solver
from studies.surrogate_plasticity import TRAINED
from surrogates.evaluation import overlapping_discs


@pytest.fixture(name="drawn", scope="module")
def drawn_():
    cells = overlapping_discs(2, shape=(16, 16), seed=1)
    return drawn_test(cells, monotone(TRAINED), steps=4, seed=3)


def test_the_race_runs_the_solver_itself(drawn):
    exact = solve_plasticity(drawn.phases.long(), drawn.materials, drawn.path, tolerance=1e-4)
    found = solved_stress(drawn, tolerance=1e-4)
    assert float((found[:, -1] - exact.stress).abs().max()) < 1e-9
    assert float(exact.equivalent_plastic_strain.max()) > 0
    means = found.flatten(3).mean(3)[:, :, [0, 1, 3]]
    assert float((means - exact.mean_stress).abs().max()) < 1e-9
    # In one step, what lies between is a straight line from zero.
    line = solved_stress(drawn, tolerance=1e-2, every=4)
    assert torch.allclose(line[:, 1], 0.5 * line[:, -1])
    errors, _ = stress_errors(line, found)
    assert float(errors[:, -1].mean()) < 0.5 * float(errors.mean())


def test_an_error_is_a_share_of_the_exact_stress():
    generator = torch.Generator().manual_seed(0)
    exact = torch.randn(2, 3, 4, 8, 8, generator=generator, dtype=torch.float64)
    exact[:, -1] += 10
    field, mean = stress_errors(1.05 * exact, exact)
    assert torch.allclose(field, torch.full_like(field, 0.05))
    assert float(mean.max()) == pytest.approx(0.05)
    # An added pressure is no error of von Mises stress, but one of the mean.
    pressed = exact.clone()
    pressed[:, :, :3] += 1.0
    field, mean = stress_errors(pressed, exact)
    assert float(field.max()) < 1e-10
    assert float(mean.min()) > 0.05


def test_the_cheapest_solver_is_as_exact_as_asked():
    rivals = {
        "net": {"ms": 1.0, "error": 0.05},
        "solver, exact": {"ms": 100.0, "error": 0.001},
        "solver, loose": {"ms": 50.0, "error": 0.04},
        "solver, looser": {"ms": 10.0, "error": 0.2},
    }
    assert cheapest_solver(rivals, 0.05) == "solver, loose"
    assert cheapest_solver(rivals, 0.01) == "solver, exact"
    assert cheapest_solver(rivals, 1e-4) is None
