"""Race of the multigrid iteration against the plain one, where high contrast makes that crawl."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from physics.mechanics.discretisation import elastic_problem
from physics.mechanics.iterations import GreenIteration, Iteration, MultigridIteration, Unbalanced
from physics.mechanics.krylov import History
from physics.mechanics.problem import CellProblem
from physics.mechanics.trial_state import Loading, measured, unit_loads
from studies.bench import Bar
from studies.race_solvers import phase_pair, threshold_cells
from studies.stopwatch import one_thread

TOLERANCE = 1e-6
MOST_PLAIN = 3000


@dataclass(frozen=True)
class ContrastRow:
    """Both iterations on one cell, all loads, from zero to the same residual of `TOLERANCE`.

    `contrast` is that of Young's moduli, 0 for pores; iterations are the most of any load, CPU
    seconds those of all loads, with the set-up of the coarse levels; `energy_gap` is the largest
    difference of their energies over the largest energy.
    """

    scheme: str
    shape: tuple[int, ...]
    contrast: float
    plain_iterations: int
    plain_seconds: float
    iterations: int
    cpu_seconds: float
    energy_gap: float


def race_contrast(
    shape: tuple[int, ...], contrast: float, *, scheme: str = "staggered", seed: int = 0
) -> ContrastRow:
    """Solve one threshold Gaussian field with both iterations, in float64 on one thread."""
    phases = threshold_cells(1, shape, seed)
    problem = elastic_problem(phases, phase_pair(contrast), scheme=scheme)
    loads = problem.components
    with one_thread():
        problem.green(torch.float64)
        plain, steps, seconds = _timed(
            problem, lambda: GreenIteration(problem, loads, torch.float64)
        )
        quick, quick_steps, quick_seconds = _timed(
            problem, lambda: MultigridIteration(problem, loads)
        )
    gap = float((plain - quick).abs().max() / plain.abs().max())
    return ContrastRow(scheme, shape, contrast, steps, seconds, quick_steps, quick_seconds, gap)


def contrast_bars(rows: Sequence[dict[str, Any]]) -> list[Bar]:
    """Return the bars of iterations and CPU time, per cell."""
    bars = []
    for row in rows:
        what = f"contrast {row['contrast']:g}" if row["contrast"] else "pores"
        name = f"{row['scheme']}, {' x '.join(map(str, row['shape']))}, {what}"
        counts = f"{row['iterations']} (plain {row['plain_iterations']})"
        bars.append(Bar(f"{name}: iterations", "at most 100", counts, row["iterations"] <= 100))
        share = row["cpu_seconds"] / row["plain_seconds"]
        seconds = f"{share:.2f} ({row['cpu_seconds']:.3g} s of {row['plain_seconds']:.3g} s)"
        bars.append(Bar(f"{name}: share of plain CPU", "at most 0.5", seconds, share <= 0.5))
    return bars


def _timed(problem: CellProblem, iteration: Callable[[], Iteration]) -> tuple[Tensor, int, float]:
    """Return the energies of the loads, the most iterations, and the CPU seconds."""
    started = time.process_time()
    method = iteration()
    loads = problem.components
    loading = Loading.of(problem, unit_loads(1, loads, problem.device))
    energies, most = [], 0
    for start in range(0, loads, method.group):
        force = loading.cases(start, start + method.group).force
        correction, norm = measured(problem.green(torch.float64), force)
        task = Unbalanced(
            force.clone(),
            correction,
            target=TOLERANCE * norm,
            max_iterations=MOST_PLAIN,
            history=History(),
        )
        moved, counts = method(task)
        most = max(most, int(counts.max()))
        energies.append((moved * force).flatten(2).sum(-1))
    return torch.cat(energies, 1), most, time.process_time() - started
