"""Solve batches of periodic cells and bracket their effective property, slab by slab."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from microstructures import ConvergenceError, DataError
from physics.mechanics.krylov import conjugate_gradients
from physics.mechanics.problem import CellProblem

SLAB_VALUES = 24576
"""Values of one field (all loads, all components) that a slab of small cells holds on a CPU."""

GROUP_VALUES = 2**20
"""Values of one field above which the load cases of a large cell are solved in turn."""

MAX_ITERATIONS = 3000
"""Default limit; pores in 2-D take some hundreds to 1e-6, contrasts of 1e3 to 1e6 up to 230."""

ROUND_OFF = 2e-14
"""A residual this small against the stress is zero: a homogeneous cell has nothing to solve."""


@dataclass(frozen=True)
class TrialState:
    """Trial fields of some cells in float64: what the energies and the certificate need."""

    displacement: Float[Tensor, "batch load c *space"]
    strain: Float[Tensor, "batch load n *points"]
    stress: Float[Tensor, "batch load n *points"]
    correction: Float[Tensor, "batch load c *space"]
    """Green operator times the residual force: the next step of a fixed-point iteration."""
    residual_norm: Float[Tensor, "batch load"]


@dataclass(frozen=True)
class Bracket:
    """Energy matrices of macroscopic load cases; `value` carries the gradient if any."""

    value: Float[Tensor, "batch load load"]
    lower: Float[Tensor, "batch load load"]
    upper: Float[Tensor, "batch load load"]
    one_sided: Bool[Tensor, "batch"]


@dataclass(frozen=True)
class Convergence:
    """Iterations and relative residual per sample and load case."""

    iterations: Int[Tensor, "batch load"]
    residual: Float[Tensor, "batch load"]


def slabs(problem: CellProblem, loads: int) -> Iterator[slice]:
    """Yield runs of samples that stay in a CPU's cache (all samples at once elsewhere)."""
    size = batch = problem.batch
    if problem.device.type == "cpu":
        values = problem.unknowns * loads * _voxels(problem)
        size = max(1, SLAB_VALUES // values)
    for start in range(0, batch, size):
        yield slice(start, min(start + size, batch))


def trial_state(
    problem: CellProblem,
    macro: Float[Tensor, "batch load n"],
    displacement: Float[Tensor, "batch load c *space"] | None,
    prestress: Float[Tensor, "batch 1 *field"] | None = None,
) -> TrialState:
    """Return the fields of a trial displacement under macroscopic gradients, in float64.

    `prestress`, if any, is the stress that eigenstrains take off: stress = C : strain - prestress.
    """
    space = problem.shape
    strain = problem.spread(macro)
    if displacement is None:
        displacement = macro.new_zeros(*macro.shape[:2], problem.unknowns, *space)
    else:
        strain = strain + problem.gradient(displacement)
    stress = problem.stress(strain)
    if prestress is not None:
        stress = stress - prestress
    force = problem.divergence(stress)
    correction = problem.green(torch.float64)(force)
    square = torch.linalg.vecdot(force.flatten(2), correction.flatten(2))
    return TrialState(displacement, strain, stress, correction, square.clamp_min(0.0).sqrt())


def solve_cells(
    problem: CellProblem,
    macro: Float[Tensor, "batch load n"],
    *,
    displacement: Float[Tensor, "batch load c *space"] | None,
    tolerance: float,
    max_iterations: int,
    dtype: torch.dtype,
    prestress: Float[Tensor, "batch 1 *field"] | None = None,
) -> tuple[list[TrialState], Convergence]:
    """Return equilibrated fields of a slab of cells, large cells a few load cases at a time.

    The residual force f is measured by sqrt(f . G f), G the reference Green operator, relative to
    its value at zero displacement. `dtype` is that of the iterations; residuals are confirmed in
    float64, and the iteration goes on from there where they are not yet met.

    Raises:
        ConvergenceError: the tolerance was not met within `max_iterations`.
    """
    loads = macro.shape[1]
    group = loads
    if problem.device.type == "cpu":
        # Freeing one block of this size makes glibc keep later ones on the heap: without it every
        # transform pays for fresh pages.
        torch.empty(4_000_000, dtype=torch.float64)
        group = max(1, GROUP_VALUES // (problem.unknowns * _voxels(problem)))
    parts = [
        _solve_group(
            problem,
            macro[:, start : start + group],
            None if displacement is None else displacement[:, start : start + group],
            tolerance,
            max_iterations,
            dtype,
            prestress,
        )
        for start in range(0, loads, group)
    ]
    states, records = zip(*parts, strict=True)
    return list(states), joined(list(records), dim=1)


def _solve_group(
    problem: CellProblem,
    macro: Tensor,
    displacement: Tensor | None,
    tolerance: float,
    max_iterations: int,
    dtype: torch.dtype,
    prestress: Tensor | None,
) -> tuple[TrialState, Convergence]:
    state = trial_state(problem, macro, None, prestress)
    # A free expansion leaves a stress of round-off: its scale is what the strain alone would give.
    total = state.stress if prestress is None else state.stress + prestress
    stress_norm = torch.linalg.vector_norm(total.flatten(2), dim=-1)
    tiny = torch.finfo(torch.float64).tiny
    scale = torch.maximum(state.residual_norm, stress_norm * (ROUND_OFF / tolerance))
    limit = tolerance * scale
    if displacement is not None:
        state = trial_state(problem, macro, displacement, prestress)
    iterations = torch.zeros_like(limit, dtype=torch.int64)
    reachable = 3e-6 if dtype is torch.float32 else 1e-13
    before = torch.inf
    while not bool((state.residual_norm <= limit).all()):
        used = int(iterations.max())
        open_norm = float((state.residual_norm / limit.clamp_min(tiny)).max())
        if used >= max_iterations or not open_norm < 0.5 * before:
            raise ConvergenceError(
                f"the FFT solver's residual is {open_norm * tolerance:.3g} after {used} iterations "
                f"and should be at most {tolerance:g}; raise max_iterations (now "
                f"{max_iterations}), loosen the tolerance or lower the contrast of the phases"
            )
        before = open_norm
        step, counts = conjugate_gradients(
            problem.operator(macro.shape[1], dtype),
            problem.green(dtype),
            problem.divergence(state.stress).to(dtype),
            # A little below the limit, so that the float64 check does not ask for a second round.
            target=torch.maximum(0.95 * limit, reachable * state.residual_norm).to(dtype),
            max_iterations=max_iterations - used,
        )
        iterations += counts
        moved = state.displacement + step.to(torch.float64)
        state = trial_state(problem, macro, moved, prestress)
    return state, Convergence(iterations, state.residual_norm / scale.clamp_min(tiny))


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
    upper = _energies(problem, [s.strain for s in states], [s.stress for s in states])
    value = upper
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


def unit_loads(batch: int, n: int, device: torch.device) -> Float[Tensor, "batch n n"]:
    """Return the n unit macroscopic gradients for every sample."""
    return torch.eye(n, dtype=torch.float64, device=device).expand(batch, n, n)


def check_settings(
    problem: CellProblem,
    macro: Tensor,
    displacement: Tensor | None,
    *,
    tolerance: float = 0.5,
    max_iterations: int = 1,
    dtype: torch.dtype = torch.float64,
) -> None:
    """Raise `DataError` where the loads, the start or the settings do not fit the cells."""
    if not 1e-12 <= tolerance < 1.0:
        raise DataError(f"tolerance: expected a number from 1e-12 to below 1, got {tolerance!r}")
    if max_iterations < 1:
        raise DataError(f"max_iterations: expected at least 1, got {max_iterations!r}")
    if dtype not in (torch.float32, torch.float64):
        raise DataError(f"dtype: expected torch.float32 or torch.float64, got {dtype}")
    batch = problem.batch
    fits = macro.ndim == 3 and (macro.shape[0], macro.shape[2]) == (batch, problem.components)
    if not fits or macro.shape[1] < 1 or not bool(macro.isfinite().all()):
        raise DataError(
            f"macro_strain: expected finite numbers of shape ({batch}, load, "
            f"{problem.components}), got shape "
            f"{tuple(macro.shape)}"
        )
    if displacement is None:
        return
    wanted = (batch, macro.shape[1], problem.unknowns, *problem.shape)
    if tuple(displacement.shape) != wanted or not bool(displacement.detach().isfinite().all()):
        raise DataError(
            f"displacement: expected finite numbers of shape {wanted} at the scheme's nodes, got "
            f"shape {tuple(displacement.shape)}"
        )


def joined(parts: list, dim: int = 0):
    """Return one dataclass of tensors, concatenated along an axis."""
    if len(parts) == 1:
        return parts[0]
    names = parts[0].__dataclass_fields__
    return type(parts[0])(**{k: torch.cat([getattr(p, k) for p in parts], dim) for k in names})


def _energies(problem: CellProblem, a: list[Tensor], b: list[Tensor]) -> Tensor:
    """Return the volume means of a_l : b_m for all pairs of loads, given in runs."""
    return torch.cat([torch.cat([problem.energies(x, y) for y in b], 2) for x in a], 1)


def _symmetric(matrix: Tensor) -> Tensor:
    return 0.5 * (matrix + matrix.mT)


def _voxels(problem: CellProblem) -> int:
    return torch.Size(problem.shape).numel()
