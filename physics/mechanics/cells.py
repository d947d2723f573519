"""Solve batches of periodic cells, slab by slab."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microstructures import ConvergenceError, DataError
from physics.mechanics.iterations import GreenIteration, Iteration, Unbalanced, iteration_for
from physics.mechanics.krylov import History
from physics.mechanics.problem import CellProblem, Operator
from physics.mechanics.trial_state import Loading, TrialState, measured

SLAB_VALUES = 131072
"""Values of one field (all loads, all components) that a slab of small cells holds on a CPU."""

MAX_ITERATIONS = 3000
"""Default limit; cells too small for multigrid take some hundred, `rotated` up to a thousand."""

ROUND_OFF = 2e-14
"""A residual this small against the stress is zero: a homogeneous cell has nothing to solve."""


@dataclass(frozen=True)
class Convergence:
    """Iterations and relative residual per sample and load case."""

    iterations: Int[Tensor, "batch load"]
    residual: Float[Tensor, "batch load"]


def slabs(problem: CellProblem, loads: int) -> Iterator[slice]:
    """Yield runs of samples that stay in a CPU's cache (all samples at once elsewhere)."""
    size = batch = problem.batch
    if problem.device.type == "cpu":
        values = problem.unknowns * loads * problem.voxels
        size = max(1, SLAB_VALUES // values)
    for start in range(0, batch, size):
        yield slice(start, min(start + size, batch))


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
    if problem.device.type == "cpu":
        # Freeing one block of this size makes glibc keep later ones on the heap: without it every
        # transform pays for fresh pages.
        torch.empty(4_000_000, dtype=torch.float64)
    loads = macro.shape[1]
    loading, iteration = Loading.of(problem, macro, prestress), iteration_for(problem, loads, dtype)
    exact = lru_cache(lambda n: problem.operator(n, torch.float64))
    parts = [
        _solve_group(
            loading.cases(start, start + iteration.group),
            None if displacement is None else displacement[:, start : start + iteration.group],
            iteration,
            exact,
            tolerance,
            max_iterations,
        )
        for start in range(0, loads, iteration.group)
    ]
    states, records = zip(*parts, strict=True)
    return list(states), joined(list(records), dim=1)


def _solve_group(
    loading: Loading,
    displacement: Tensor | None,
    iteration: Iteration,
    exact: Callable[[int], Operator],
    tolerance: float,
    max_iterations: int,
) -> tuple[TrialState, Convergence]:
    dtype = iteration.dtype
    green, operator = loading.problem.green(dtype), exact(loading.macro.shape[1])
    force, moved = loading.force, displacement
    correction, norm = measured(green, force.to(dtype))
    scale = torch.maximum(norm, loading.scale() * (ROUND_OFF / tolerance))
    limit = tolerance * scale
    if moved is not None:
        force = loading.force - operator(moved)
        correction, norm = measured(green, force.to(dtype))
    iterations, history = torch.zeros_like(limit, dtype=torch.int64), History()
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
                f"{max_iterations}), loosen the tolerance or lower the contrast of the phases",
                history=history.worst(),
            )
        task = Unbalanced(
            force.to(dtype, copy=True),
            correction,
            # A little below the limit, so that the float64 check does not ask for a second round.
            target=torch.maximum(0.95 * limit, reachable * norm).to(dtype),
            max_iterations=max_iterations - used,
            history=history,
        )
        step, counts = iteration(task)
        iterations += counts
        moved = step.to(torch.float64) if moved is None else moved + step
        force = loading.force - operator(moved)
        correction, norm = measured(green, force.to(dtype))
        before = open_norm
        if iteration.patience is not None and int(counts.max()) >= iteration.patience:
            iteration = GreenIteration(loading.problem.detach(), force.shape[1], dtype)
            before = torch.inf
    moved = torch.zeros_like(force) if moved is None else moved
    state = TrialState(loading, moved, force, norm)
    return state, Convergence(iterations, norm / scale.clamp_min(tiny))


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
