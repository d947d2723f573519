"""Lippmann-Schwinger steps: the solver's strain is their fixed point, and they contract."""

from itertools import pairwise

import torch

from physics.mechanics import effective_stiffness, solve_elasticity
from physics.mechanics.elasticity import elastic_problem
from surrogates.reference import ReferencedCells


def test_the_solution_is_the_fixed_point_and_steps_contract(blobs, materials):
    phases = blobs(3, seed=20)
    problem = elastic_problem(phases, materials)
    cells, unit_gpa = ReferencedCells.of_moduli(problem.lame, problem.shear[:, 0])
    exact = solve_elasticity(phases, materials, tolerance=1e-7).displacement
    loads = cells.unit_loads()
    again = cells.step(loads + cells.cells.gradient(exact.float()))
    assert (again - exact).abs().max() < 1e-4
    stiffness = effective_stiffness(phases, materials, tolerance=1e-7).value
    u, gaps = torch.zeros_like(exact).float(), []
    for _ in range(6):
        excess = cells.energy(u).double() * unit_gpa.view(-1, 1, 1) - stiffness
        gaps.append(excess.diagonal(dim1=1, dim2=2).sum(1))
        u = cells.step(loads + cells.cells.gradient(u))
    for before, after in pairwise(gaps):
        assert (after < (9 / 11) ** 2 * before).all()


def test_each_cell_has_its_own_reference(blobs, materials):
    phases = blobs(2, seed=21)
    one = elastic_problem(phases, materials)
    other = elastic_problem(phases, materials[::-1])
    lame = torch.cat([one.lame, other.lame])
    shear = torch.cat([one.shear[:, 0], other.shear[:, 0]])
    both, _ = ReferencedCells.of_moduli(lame, shear)
    alone, _ = ReferencedCells.of_moduli(other.lame, other.shear[:, 0])
    u = both.step(both.unit_loads())
    assert (u[2:] - alone.step(alone.unit_loads())).abs().max() < 1e-5


def test_step_has_the_gradient_of_a_linear_map(blobs, materials):
    problem = elastic_problem(blobs(1, seed=22), materials)
    cells, _ = ReferencedCells.of_moduli(problem.lame, problem.shear[:, 0])
    strain = torch.randn(1, 3, 3, 16, 16, requires_grad=True)
    direction, weight = torch.randn_like(strain), torch.randn(1, 3, 2, 16, 16)
    (slope,) = torch.autograd.grad((weight * cells.step(strain)).sum(), strain)
    wanted = (weight * cells.step(direction)).sum()
    assert abs(float((slope * direction).sum() - wanted)) < 1e-3 * float(wanted.abs() + 1)
