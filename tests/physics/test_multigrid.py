"""The multigrid cycle: symmetric, the same answer as the Green operator, few iterations."""

import pytest
import torch

from physics.mechanics import IsotropicElastic
from physics.mechanics.elasticity import elastic_problem
from physics.mechanics.krylov import block_conjugate_gradients, conjugate_gradients
from physics.mechanics.multigrid import multigrid
from physics.mechanics.problem import CellProblem
from physics.mechanics.trial_state import unit_loads

SOFT = IsotropicElastic(youngs_modulus_gpa=1.0)


def smooth(*space: int, modulus_gpa: float = 0.0, seed: int = 0) -> CellProblem:
    """Return a cell with 40 % of smooth random pores, or inclusions of another modulus."""
    axes = tuple(range(-len(space), 0))
    generator = torch.Generator().manual_seed(seed)
    white = torch.fft.fftn(torch.randn(1, *space, generator=generator).double(), dim=axes)
    k = torch.meshgrid(*[torch.fft.fftfreq(n).double() for n in space], indexing="ij")
    blur = torch.exp(-180.0 * torch.stack(k).square().sum(0))
    field = torch.fft.ifftn(white * blur, dim=axes).real
    phases = (field > torch.quantile(field, 0.6)).long()
    return elastic_problem(phases, [SOFT, IsotropicElastic(youngs_modulus_gpa=modulus_gpa)])


def start_force(problem: CellProblem) -> torch.Tensor:
    macro = unit_loads(1, problem.components, problem.device)
    return problem.load_force(macro)


@pytest.mark.parametrize("space", [(24, 20), (8, 10, 12)])
def test_the_cycle_is_symmetric_and_positive(space):
    problem = smooth(*space)
    u = torch.randn(1, 2, len(space), *space, generator=torch.Generator().manual_seed(1)).double()
    # Forces that the operator can balance.
    r = problem.divergence(problem.stress(problem.gradient(u)))
    z = multigrid(problem, group=1)(r)
    products = r.flatten(2)[0] @ z.flatten(2)[0].mT
    scale = float(products.diagonal().max())
    torch.testing.assert_close(products, products.mT, rtol=0.0, atol=1e-4 * scale)
    assert float(products.diagonal().min()) > 0.0


@pytest.mark.parametrize("modulus_gpa", [0.0, 1e4])
def test_pores_and_rigid_contrast_take_few_iterations_and_give_the_same_energy(modulus_gpa):
    problem = smooth(128, 128, modulus_gpa=modulus_gpa)
    loads, green = problem.components, problem.green(torch.float64)
    operator, force = problem.operator(loads, torch.float64), start_force(problem)

    def norm(r: torch.Tensor) -> torch.Tensor:
        return (r * green(r)).flatten(2).sum(-1).clamp_min(0.0).sqrt()

    target = 1e-6 * norm(force)
    plain, taken = conjugate_gradients(
        operator, green, force.clone(), target=target, max_iterations=2000
    )
    quick, steps = block_conjugate_gradients(
        operator,
        multigrid(problem, group=1),
        norm,
        force.clone(),
        target=target,
        max_iterations=200,
    )
    energies = [(moved * force).flatten(2).sum(-1) for moved in (plain, quick)]
    torch.testing.assert_close(energies[1], energies[0], rtol=1e-8, atol=0.0)
    assert int(steps.max()) <= 60
    assert int(taken.max()) > 2.5 * int(steps.max())
