"""Solve batches of periodic cells and bracket their effective property, slab by slab."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from microstructures import ConvergenceError, DataError
from physics.mechanics.green import GreenOperator
from physics.mechanics.krylov import conjugate_gradients
from physics.mechanics.problem import CellProblem, Operator

SLAB_VALUES = 131072
"""Values of one field (all loads, all components) that a slab of small cells holds on a CPU."""

GROUP_VALUES = 2**20
"""Values of one field above which the load cases of a large cell are solved in turn."""

MAX_ITERATIONS = 3000
"""Default limit; pores in 2-D take some hundreds to 1e-6, contrasts of 1e3 to 1e6 up to 230."""

ROUND_OFF = 2e-14
"""A residual this small against the stress is zero: a homogeneous cell has nothing to solve."""


@dataclass(frozen=True)
class Loading:
    """Load cases of some cells: uniform gradients E, less the stress that eigenstrains take off."""

    problem: CellProblem
    macro: Float[Tensor, "batch load n"]
    prestress: Float[Tensor, "batch 1 *field"] | None
    force: Float[Tensor, "batch load c *space"]
    """div(C : E - prestress)."""

    @classmethod
    def of(
        cls,
        problem: CellProblem,
        macro: Float[Tensor, "batch load n"],
        prestress: Float[Tensor, "batch 1 *field"] | None = None,
    ) -> "Loading":
        """Return the loading with its force."""
        force = problem.load_force(macro)
        if prestress is not None:
            force = force - problem.divergence(prestress)
        return cls(problem, macro, prestress, force)

    def cases(self, start: int, stop: int) -> "Loading":
        """Return some of the load cases."""
        macro, force = self.macro[:, start:stop], self.force[:, start:stop]
        return Loading(self.problem, macro, self.prestress, force)

    def scale(self) -> Float[Tensor, "batch load"]:
        """Return the size of the stress C : E, summed like a field over the voxels."""
        mean = torch.linalg.vector_norm(self.macro @ self.problem.mean_law(), dim=-1)
        return mean * _voxels(self.problem) ** 0.5


@dataclass(frozen=True)
class TrialState:
    """A trial displacement of some cells in float64, its force, and its fields when asked for."""

    loading: Loading
    displacement: Float[Tensor, "batch load c *space"]
    force: Float[Tensor, "batch load c *space"]
    """div stress."""
    residual_norm: Float[Tensor, "batch load"]

    @cached_property
    def strain(self) -> Float[Tensor, "batch load n *points"]:
        """E + grad u."""
        problem = self.loading.problem
        return problem.spread(self.loading.macro) + problem.gradient(self.displacement)

    @cached_property
    def stress(self) -> Float[Tensor, "batch load n *points"]:
        """C : strain - prestress."""
        stress, prestress = self.loading.problem.stress(self.strain), self.loading.prestress
        return stress if prestress is None else stress - prestress

    @cached_property
    def correction(self) -> Float[Tensor, "batch load c *space"]:
        """Green operator times the force: the next step of a fixed-point iteration."""
        return self.loading.problem.green(torch.float64)(self.force)


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
    displacement: Float[Tensor, "batch load c *space"],
) -> TrialState:
    """Return a trial displacement under macroscopic gradients with its force."""
    loading = Loading.of(problem, macro)
    force = loading.force - problem.operator(macro.shape[1], torch.float64)(displacement)
    _, norm = _measured(problem.green(torch.float64), force)
    return TrialState(loading, displacement, force, norm)


def _measured(green: GreenOperator, force: Tensor) -> tuple[Tensor, Float[Tensor, "batch load"]]:
    """Return G f in the precision of f, and sqrt(f . G f)."""
    correction = green(force)
    square = torch.linalg.vecdot(force.flatten(2), correction.flatten(2))
    return correction, square.clamp_min(0.0).sqrt().to(torch.float64)


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
    loading, operator = Loading.of(problem, macro, prestress), lru_cache(problem.operator)
    parts = [
        _solve_group(
            loading.cases(start, start + group),
            None if displacement is None else displacement[:, start : start + group],
            operator,
            tolerance,
            max_iterations,
            dtype,
        )
        for start in range(0, loads, group)
    ]
    states, records = zip(*parts, strict=True)
    return list(states), joined(list(records), dim=1)


def _solve_group(
    loading: Loading,
    displacement: Tensor | None,
    operator: Callable[[int, torch.dtype], Operator],
    tolerance: float,
    max_iterations: int,
    dtype: torch.dtype,
) -> tuple[TrialState, Convergence]:
    loads, green = loading.macro.shape[1], loading.problem.green(dtype)
    exact = operator(loads, torch.float64)
    force, moved = loading.force, displacement
    correction, norm = _measured(green, force.to(dtype))
    scale = torch.maximum(norm, loading.scale() * (ROUND_OFF / tolerance))
    limit = tolerance * scale
    if moved is not None:
        force = loading.force - exact(moved)
        correction, norm = _measured(green, force.to(dtype))
    iterations = torch.zeros_like(limit, dtype=torch.int64)
    tiny = torch.finfo(torch.float64).tiny
    reachable = 3e-6 if dtype is torch.float32 else 1e-13
    before = torch.inf
    while not bool((norm <= limit).all()):
        used = int(iterations.max())
        open_norm = float((norm / limit.clamp_min(tiny)).max())
        if used >= max_iterations or not open_norm < 0.5 * before:
            raise ConvergenceError(
                f"the FFT solver's residual is {open_norm * tolerance:.3g} after {used} iterations "
                f"and should be at most {tolerance:g}; raise max_iterations (now "
                f"{max_iterations}), loosen the tolerance or lower the contrast of the phases"
            )
        before = open_norm
        step, counts = conjugate_gradients(
            operator(loads, dtype),
            green,
            force.to(dtype, copy=True),
            z=correction,
            # A little below the limit, so that the float64 check does not ask for a second round.
            target=torch.maximum(0.95 * limit, reachable * norm).to(dtype),
            max_iterations=max_iterations - used,
        )
        iterations += counts
        moved = step.to(torch.float64) if moved is None else moved + step
        force = loading.force - exact(moved)
        correction, norm = _measured(green, force.to(dtype))
    moved = torch.zeros_like(force) if moved is None else moved
    state = TrialState(loading, moved, force, norm)
    return state, Convergence(iterations, norm / scale.clamp_min(tiny))


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
    fields = [(s.displacement, s.loading.force, s.force) for s in states]
    flat = [[field.flatten(2) for field in entry] for entry in fields]
    blocks: list[list[Tensor]] = []
    for i, (moved, first, _) in enumerate(flat):
        # The whole is symmetric: one triangle of blocks is enough.
        row = [blocks[j][i].mT for j in range(i)]
        blocks.append(row + [first @ u.mT + moved @ r.mT for u, _, r in flat[i:]])
    work = torch.cat([torch.cat(row, 2) for row in blocks], 1)
    return macro @ problem.mean_law() @ macro.mT - work / _voxels(problem)


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
