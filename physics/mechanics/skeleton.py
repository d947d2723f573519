"""Lower bounds of cells with pores: spline stresses that vanish wherever a voxel carries nothing.

A coefficient of a spline stress (see `stress_moments`) may differ from 0 only where no voxel of its
support is a pore: three voxels in a row for a normal stress, four around an edge for a shear, both
sides of a face for a flux. Among such stresses the staggered problem with those coefficients alone
yields one that is balanced; its exact complementary energy gives a lower bound.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from microstructures import ConvergenceError
from physics.mechanics.cells import solve_cells
from physics.mechanics.grid import SHEAR_PAIRS
from physics.mechanics.laws import ConductionLaw, IsotropicLaw, Law
from physics.mechanics.least_energy import LeastEnergy
from physics.mechanics.problem import CellProblem
from physics.mechanics.shift_graph import ShiftGraph, Term
from physics.mechanics.shift_program import ShiftProgram
from physics.mechanics.staggered import FaceConduction, StaggeredElasticity
from physics.mechanics.stress_moments import (
    inverse_law,
    law_kind,
    moment_weights,
    spline_moments,
    strain_pairs,
)
from physics.mechanics.trial_state import TrialState, unit_loads

BALANCE = 1e-9
"""Relative residual of the balance of forces."""

SHIFT = 1e-5
"""Energy of a load, relative to a uniform strain's, below which it counts as hardly carried."""


@dataclass(frozen=True)
class SkeletonElasticity(StaggeredElasticity):
    """Staggered cells without the normal stresses that would reach into pores.

    `normal` is `(batch, dim, dim, *space)`, the stiffness of the normal components that are left.
    """

    normal: Float[Tensor, "batch dim dim *space"]

    @classmethod
    def of_law(cls, law: IsotropicLaw, ratio: float) -> "SkeletonElasticity":
        """Return the skeleton of isotropic voxels.

        With the compliance a 1 + b 1 x 1 of normal stresses, m of them left, what is left has the
        stiffness (1 - b / (a + m b) 1 x 1) / a.
        """
        dim = len(law.shape)
        whole = StaggeredElasticity.of_voxels(law.lame, law.shear[:, 0], ratio)
        solid = law.shear[:, 0] > 0.0
        kept = [solid & solid.roll(1, i - dim) & solid.roll(-1, i - dim) for i in range(dim)]
        left = torch.stack(kept, 1).to(law.lame.dtype)
        compliance = inverse_law(law)
        assert isinstance(compliance, IsotropicLaw)
        a = torch.where(solid, 2.0 * compliance.shear[:, 0], 1.0)
        b = compliance.lame
        both = left.unsqueeze(1) * left.unsqueeze(2)
        share = (b / (a + left.sum(dim=1) * b)).unsqueeze(1).unsqueeze(2)
        unit = torch.eye(dim, dtype=left.dtype, device=left.device)
        unit = unit.view(1, dim, dim, *[1] * dim)
        normal = both * (unit - share) / a.unsqueeze(1).unsqueeze(2)
        return cls(whole.lame, whole.shear, ratio, normal)

    def stress(
        self, strain: Float[Tensor, "batch load n *space"]
    ) -> Float[Tensor, "batch load n *space"]:
        """Return the stress on the skeleton's points."""
        dim = self.unknowns
        normal = torch.einsum("bij...,blj...->bli...", self.normal, strain[:, :, :dim])
        shear = 2.0 * self.shear[:, None, dim:] * strain[:, :, dim:]
        return torch.cat((normal, shear), 2)

    def load_force(self, macro: Float[Tensor, "batch load n"]) -> Tensor:
        """Return div C E of uniform strains E."""
        return CellProblem.load_force(self, macro)

    def mean_law(self) -> Float[Tensor, "batch n n"]:
        """Return the volume mean of C."""
        return CellProblem.mean_law(self)

    def operator(self, loads: int, dtype: torch.dtype) -> ShiftProgram:
        """Return the fast u -> -div C grad u for `loads` load cases per sample."""
        dim = self.unknowns
        graph, outputs = _skeleton_graph(dim)
        weights = [self.normal[:, i, j] for i in range(dim) for j in range(i, dim)]
        weights += list((2.0 * self.shear[:, dim:]).unbind(1))
        weights = [weight.to(dtype) for weight in weights]
        return ShiftProgram(graph, outputs, weights, self.shape, loads=loads, like=weights[0])


def skeleton_bound(
    law: Law, ratio: float, *, max_iterations: int, dtype: torch.dtype
) -> LeastEnergy | None:
    """Return lower bounds of the effective matrices of cells with pores.

    None for anisotropic laws, and where forces are not balanced within `max_iterations`. The
    balance is that of a solve to a residual of `BALANCE`, not exact as without pores: the work of
    the forces that are left on the displacements is estimated and taken off, several times over.
    """
    match law:
        case IsotropicLaw():
            problem = SkeletonElasticity.of_law(law, ratio)
        case ConductionLaw(conductivity):
            problem = FaceConduction.of_voxels(conductivity[:, 0])
        case _:
            return None
    macro = unit_loads(problem.batch, problem.components, problem.device)
    try:
        states, record = solve_cells(
            problem,
            macro,
            displacement=None,
            tolerance=BALANCE,
            max_iterations=max_iterations,
            dtype=dtype,
        )
    except ConvergenceError:
        return None
    stress = torch.cat([state.stress for state in states], 1)
    strain = _strain_moments(law, stress).flatten(2)
    energy = stress.flatten(2) @ strain.mT / stress[0, 0, 0].numel()
    uniform = problem.spread(macro)
    stiffest = problem.energies(uniform, law.stress(uniform)).diagonal(dim1=1, dim2=2).amax(1)
    work = _unbalanced_work(problem, states, ratio)
    bound = _bound(stress.flatten(3).mean(-1), energy, stiffest, work)
    return LeastEnergy(bound, record.iterations, record.residual)


def _bound(
    means: Float[Tensor, "batch load n"],
    energy: Float[Tensor, "batch load load"],
    stiffest: Float[Tensor, " batch"],
    work: Float[Tensor, " batch"],
) -> Float[Tensor, "batch n n"]:
    """Return a^T M + M^T a - a^T Q a of mean stresses M and energies Q for nearly the best a.

    Any a gives a bound. Loads that are hardly carried have stresses of the size of the residual,
    which the best a would scale up; a shift of Q by a small part of what a uniform strain would
    take keeps such an a small. The work of unbalanced forces, for a = 1, is taken off.
    """
    shift = (SHIFT * stiffest).view(-1, 1, 1)
    unit = torch.eye(energy.shape[-1], dtype=energy.dtype, device=energy.device)
    a = torch.linalg.pinv(energy + shift * unit, hermitian=True) @ means
    bound = a.mT @ means + means.mT @ a - a.mT @ energy @ a
    taken = work * torch.linalg.matrix_norm(a, 2).clamp_min(1.0)
    return 0.5 * (bound + bound.mT) - taken.view(-1, 1, 1) * unit


def _unbalanced_work(
    problem: CellProblem, states: list[TrialState], ratio: float
) -> Float[Tensor, " batch"]:
    """Return a generous estimate of what the forces left over could add to the bounds.

    |f . u| is at most the norms of f and u in the reference material, of which the residual is
    the first; u is taken from the solve.
    """
    left = torch.cat([state.residual_norm for state in states], 1)
    strain = torch.cat([problem.gradient(state.displacement) for state in states], 1)
    stiffest = 2.0 + len(problem.shape) * ratio
    size = stiffest**0.5 * torch.linalg.vector_norm(strain.flatten(1), dim=-1)
    return 10.0 * torch.linalg.vector_norm(left, dim=-1) * size / strain[0, 0, 0].numel()


def _strain_moments(law: Law, stress: Float[Tensor, "batch load n *space"]) -> Tensor:
    """Return the derivative of half the complementary energy by the stress's coefficients."""
    compliance = inverse_law(law)
    dim = len(law.shape)
    order = 1 if isinstance(law, ConductionLaw) else 2
    graph = ShiftGraph(dim, stress.shape[2])
    coefficients = {c: graph.input(c) for c in range(stress.shape[2])}
    moments = spline_moments(graph, coefficients, order)
    pairs, keys = strain_pairs(graph, moments, law_kind(law))
    weights = moment_weights(compliance, keys)
    program = ShiftProgram(
        graph, graph.transposed(pairs), weights, law.shape, loads=stress.shape[1], like=stress
    )
    return program(stress)


@lru_cache(maxsize=2)
def _skeleton_graph(dim: int) -> tuple[ShiftGraph, list[Term]]:
    """Return grad^T C grad; weights are C_ij of i <= j, then twice the shear moduli."""
    graph = ShiftGraph(dim, dim)
    u = [graph.input(i) for i in range(dim)]
    normal = [graph.difference(u[i], i, ahead=True) for i in range(dim)]
    places = {pair: n for n, pair in enumerate((i, j) for i in range(dim) for j in range(i, dim))}
    pairs = []
    for i in range(dim):
        stress = [graph.product(normal[j], places[min(i, j), max(i, j)]) for j in range(dim)]
        pairs.append((normal[i], graph.total(stress)))
    for c, (i, j) in enumerate(SHEAR_PAIRS[dim], len(places)):
        shear = graph.add(
            graph.difference(u[i], j, ahead=False), graph.difference(u[j], i, ahead=False)
        ).times(0.5**0.5)
        pairs.append((shear, graph.product(shear, c)))
    return graph, graph.transposed(pairs)
