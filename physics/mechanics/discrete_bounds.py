"""Guaranteed bounds of a scheme's own effective energies, from any trial states."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from physics.mechanics.problem import CellProblem
from physics.mechanics.trial_state import TrialState, unit_loads

RUN_VALUES = 2**14
"""Values of each load case that are multiplied with those of all others at a time."""


@dataclass(frozen=True)
class Bracket:
    """Energy matrices of macroscopic load cases; `value` carries the gradient if any."""

    value: Float[Tensor, "batch load load"]
    lower: Float[Tensor, "batch load load"]
    upper: Float[Tensor, "batch load load"]
    one_sided: Bool[Tensor, "batch"]


def bracket(
    problem: CellProblem,
    macro: Float[Tensor, "batch load n"],
    states: list[TrialState],
    *,
    lower: bool = True,
) -> Bracket:
    """Return guaranteed bounds of the discrete energies E_l : C* : E_m of any trial states.

    The states hold the load cases in turn. Above: the energy of the trial strain, which is
    compatible. Below: the trial stress plus the reference stress of the Green correction is
    divergence-free; with the mean stresses M and the complementary energies Q of such fields,
    C* >= M^T Q^-1 M. Both hold for quadratic forms (Loewner order). A cell with pores has no
    finite complementary energy here: its lower bound is 0, as is every one with `lower` False.
    """
    value = upper = _upper_energies(problem.detach(), macro, states)
    if torch.is_grad_enabled() and problem.requires_grad:
        # The energy is stationary in the displacement: its gradient needs the explicit part only.
        strains = [state.strain.detach() for state in states]
        value = _energies(problem, strains, [problem.stress(strain) for strain in strains])
    if lower:
        below, one_sided = _complementary_bound(problem.detach(), macro, states)
    else:
        below = torch.zeros_like(upper)
        one_sided = torch.ones(problem.batch, dtype=torch.bool, device=problem.device)
    return Bracket(_symmetric(value), below, _symmetric(upper), one_sided)


def _upper_energies(problem: CellProblem, macro: Tensor, states: list[TrialState]) -> Tensor:
    """Return the means of eps_l : C : eps_m from forces: E C E - (f_l . u_m + u_l . r_m) / N.

    f are the forces of zero displacement, r those of u. No strain or stress is formed.
    """
    moved = [state.displacement.flatten(2) for state in states]
    first = [state.loading.force.flatten(2) for state in states]
    left = [state.force.flatten(2) for state in states]
    work = torch.zeros_like(macro @ macro.mT)
    # Runs of values that stay in cache: every field is read once for all pairs of loads.
    for start in range(0, moved[0].shape[2], RUN_VALUES):
        run = slice(start, start + RUN_VALUES)
        u, f, r = (torch.cat([x[:, :, run] for x in fields], 1) for fields in (moved, first, left))
        work += f @ u.mT + u @ r.mT
    return macro @ problem.mean_law() @ macro.mT - work / problem.voxels


def _complementary_bound(
    problem: CellProblem, macro: Tensor, states: list[TrialState]
) -> tuple[Tensor, Tensor]:
    """Return the best lower bound from balanced trial stresses and uniform ones together.

    With the uniform stresses among them the bound is never below Reuss's. Also returns which
    samples have no lower bound but 0.
    """
    stresses = [
        state.stress + problem.reference_stress(problem.gradient(state.correction))
        for state in states
    ]
    strains = [problem.strain(stress) for stress in stresses]
    energy = _energies(problem, stresses, strains)
    means = torch.cat([problem.mean(stress) for stress in stresses], 1)
    size = torch.linalg.matrix_norm(means.detach()).view(-1, 1, 1)
    uniform = unit_loads(problem.batch, problem.components, problem.device) * size
    cross = torch.cat([problem.mean_strain(strain) for strain in strains], 1) @ uniform.mT
    own = problem.mean_strain(problem.strain(problem.spread_stress(uniform))) @ uniform.mT
    energy = torch.cat((torch.cat((energy, cross), 2), torch.cat((cross.mT, own), 2)), 1)
    one_sided = problem.has_pores() | ~energy.isfinite().flatten(1).all(1)
    hidden = one_sided.view(-1, 1, 1)
    energy = torch.where(hidden, 0.0, energy)
    # lower = A^T T + T^T A - A^T Q A holds for any weights A, so their round-off does no harm.
    t = torch.cat((means, uniform), 1) @ macro.mT
    weights = torch.linalg.pinv(energy, hermitian=True) @ t
    lower = weights.mT @ t + t.mT @ weights - weights.mT @ energy @ weights
    return torch.where(hidden, 0.0, _symmetric(lower)), one_sided


def _energies(problem: CellProblem, a: list[Tensor], b: list[Tensor]) -> Tensor:
    """Return the volume means of a_l : b_m for all pairs of loads, given in runs."""
    return torch.cat([torch.cat([problem.energies(x, y) for y in b], 2) for x in a], 1)


def _symmetric(matrix: Tensor) -> Tensor:
    return 0.5 * (matrix + matrix.mT)
