"""Which iteration a cell gets, and that the block method answers like the plain one."""

import pytest
import torch

from microstructures import ConvergenceError
from physics import IsotropicElastic, effective_conductivity, effective_stiffness
from physics.mechanics.conductivity import conduction_problem
from physics.mechanics.discretisation import elastic_problem
from physics.mechanics.iterations import (
    GreenIteration,
    MultigridIteration,
    Unbalanced,
    iteration_for,
    multigrid_pays,
)
from physics.mechanics.krylov import History, block_conjugate_gradients, conjugate_gradients
from physics.mechanics.problem import CellProblem
from physics.mechanics.trial_state import Loading, measured, unit_loads

STIFF = 1e4


def islands(side: int = 48) -> torch.Tensor:
    """Return a matrix with holes, one of them with a loose island inside, and two loose dots."""
    x, y = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")

    def disc(cx: float, cy: float, r: float) -> torch.Tensor:
        return (x - cx * side) ** 2 + (y - cy * side) ** 2 < (r * side) ** 2

    cell = torch.zeros(side, side, dtype=torch.long)
    cell[disc(0.3, 0.3, 0.22) | disc(0.75, 0.7, 0.2)] = 1
    cell[disc(0.3, 0.3, 0.1)] = 0
    cell[int(0.75 * side), int(0.7 * side)] = 0
    return cell[None]


def materials(contrast: float) -> list[IsotropicElastic]:
    return [IsotropicElastic(youngs_modulus_gpa=e) for e in (1.0, contrast)]


def balanced(problem: CellProblem, method, loads: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Return the energies of the loads (work of the fluctuation) and the most iterations."""
    force = Loading.of(problem, loads).force
    correction, norm = measured(problem.green(torch.float64), force)
    task = Unbalanced(
        force.clone(), correction, target=1e-8 * norm, max_iterations=3000, history=History()
    )
    moved, counts = method(task)
    return (moved * force).flatten(2).sum(-1), int(counts.max())


@pytest.mark.parametrize("scheme", ["staggered", "q1"])
@pytest.mark.parametrize("contrast", [0.0, STIFF])
def test_loose_islands_give_the_energy_of_the_plain_iteration(scheme, contrast):
    problem = elastic_problem(islands(), materials(contrast), scheme=scheme)
    loads = unit_loads(1, 3, problem.device)
    plain, many = balanced(problem, GreenIteration(problem, 3, torch.float64), loads)
    quick, few = balanced(problem, MultigridIteration(problem, 3), loads)
    torch.testing.assert_close(quick, plain, rtol=1e-9, atol=1e-12)
    assert few < many


def test_conduction_with_insulators_in_three_dimensions():
    generator = torch.Generator().manual_seed(0)
    blocks = (torch.rand(1, 6, 6, 6, generator=generator) < 0.4).long()
    phases = blocks.repeat_interleave(4, 1).repeat_interleave(4, 2).repeat_interleave(4, 3)
    problem = conduction_problem(phases, [1.0, 0.0])
    loads = unit_loads(1, 3, problem.device)
    plain, _ = balanced(problem, GreenIteration(problem, 3, torch.float64), loads)
    quick, few = balanced(problem, MultigridIteration(problem, 3), loads)
    torch.testing.assert_close(quick, plain, rtol=1e-9, atol=1e-12)
    assert few <= 15


def test_dependent_and_empty_loads_share_the_directions_of_the_others():
    problem = elastic_problem(islands(), materials(STIFF))
    unit = unit_loads(1, 3, problem.device)
    loads = torch.cat((unit[:, :1], 2.0 * unit[:, :1], 0.0 * unit[:, :1]), 1)
    energy, _ = balanced(problem, MultigridIteration(problem, 3), loads)
    alone, _ = balanced(problem, MultigridIteration(problem, 1), loads[:, :1])
    expected = alone * torch.tensor([[1.0, 4.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(energy, expected, rtol=1e-9, atol=1e-12)


def test_a_batch_gives_what_its_cells_give_alone():
    phases = torch.cat((islands(), islands().roll(9, 1).transpose(1, 2), islands().flip(1)))
    problem = elastic_problem(phases, materials(STIFF))
    loads = unit_loads(3, 3, problem.device)
    together, _ = balanced(problem, MultigridIteration(problem, 3), loads)
    for k in range(3):
        single = elastic_problem(phases[k : k + 1], materials(STIFF))
        alone, _ = balanced(single, MultigridIteration(single, 3), loads[:1])
        torch.testing.assert_close(together[k : k + 1], alone, rtol=1e-9, atol=1e-12)


def test_the_block_method_without_a_preconditioner_is_conjugate_gradients_for_one_load():
    problem = elastic_problem(islands(16), materials(10.0))
    operator = problem.operator(1, torch.float64)
    force = Loading.of(problem, unit_loads(1, 3, problem.device)[:, 2:]).force

    class Identity:
        def __call__(self, field):
            return field.clone()

        def select(self, keep):
            return self

    def norm(r):
        return torch.linalg.vector_norm(r.flatten(2), dim=-1)

    target = 1e-6 * norm(force)
    plain, many = conjugate_gradients(
        operator, Identity(), force.clone(), target=target, max_iterations=500
    )
    block, few = block_conjugate_gradients(
        operator, Identity(), norm, force.clone(), target=target, max_iterations=500
    )
    assert abs(int(many.max()) - int(few.max())) <= 0.1 * int(many.max())
    torch.testing.assert_close(block, plain, rtol=0.0, atol=1e-5 * float(plain.abs().max()))


@pytest.mark.parametrize(
    ("side", "contrast", "scheme", "expected"),
    [
        (48, 0.0, "staggered", MultigridIteration),
        (48, STIFF, "q1", MultigridIteration),
        (48, 100.0, "staggered", GreenIteration),
        (16, STIFF, "staggered", GreenIteration),
        (32, 0.0, "staggered", GreenIteration),
        (48, 0.0, "rotated", GreenIteration),
    ],
)
def test_the_iteration_follows_contrast_size_and_scheme(side, contrast, scheme, expected):
    problem = elastic_problem(islands(side), materials(contrast), scheme=scheme)
    assert isinstance(iteration_for(problem, 3, torch.float64), expected)


def test_multigrid_that_would_not_fit_the_memory_is_left_out(monkeypatch):
    problem = elastic_problem(islands(), materials(0.0))
    assert multigrid_pays(problem)
    monkeypatch.setattr("physics.mechanics.iterations.MOST_ENTRIES", 48 * 48 * 2 * 8)
    assert not multigrid_pays(problem)


def test_where_multigrid_runs_out_of_patience_the_green_operator_goes_on(monkeypatch):
    monkeypatch.setattr(MultigridIteration, "patience", 4)
    found = effective_stiffness(islands(), materials(STIFF), tolerance=1e-7)
    assert float(found.residual.max()) <= 1e-7
    monkeypatch.undo()
    usual = effective_stiffness(islands(), materials(STIFF), tolerance=1e-7)
    assert int(found.iterations.min()) > int(usual.iterations.max())
    torch.testing.assert_close(found.value, usual.value, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_solved_values_do_not_depend_on_the_iteration(dtype, monkeypatch):
    quick = effective_stiffness(islands(), materials(STIFF), tolerance=1e-7, dtype=dtype)
    heat = effective_conductivity(islands(), [1.0, STIFF], tolerance=1e-7, dtype=dtype)
    monkeypatch.setattr("physics.mechanics.iterations.HARD_CONTRAST", torch.inf)
    plain = effective_stiffness(islands(), materials(STIFF), tolerance=1e-7, dtype=dtype)
    cold = effective_conductivity(islands(), [1.0, STIFF], tolerance=1e-7, dtype=dtype)
    assert int(quick.iterations.max()) < int(plain.iterations.min())
    assert int(heat.iterations.max()) < int(cold.iterations.min())
    torch.testing.assert_close(quick.value, plain.value, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(heat.value, cold.value, rtol=1e-7, atol=1e-7)


def test_an_unconverged_solve_carries_its_history():
    with pytest.raises(ConvergenceError, match="max_iterations") as caught:
        effective_stiffness(islands(16), materials(10.0), tolerance=1e-8, max_iterations=5)
    history = caught.value.history
    assert len(history) == 6
    assert history[0] > 1e6
    assert 1.0 < history[-1] < 0.1 * history[0]
