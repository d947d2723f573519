"""How a batch of cells is iterated: by the Green operator, or by multigrid where that crawls."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from physics.mechanics.krylov import History, block_conjugate_gradients, conjugate_gradients
from physics.mechanics.multigrid import multigrid
from physics.mechanics.problem import CellProblem
from physics.mechanics.trial_state import measured

GROUP_VALUES = 2**20
"""Values of one field above which the load cases of a large cell are iterated in turn."""

BLOCK_VALUES = 2**26
"""The same for the block method, which gains from every load case it has (0.5 GB a field)."""

HARD_CONTRAST = 1500.0
"""Contrast of moduli above which multigrid takes less time.

At 1000 the Green operator needs up to 160 cheap iterations, multigrid 40 dear ones.
"""

POROUS_SIDE, HARD_SIDE = 48, 24
"""Voxels along the side of a cell from which multigrid pays, with pores and without.

Below, a hundred cheap iterations cost less than the set-up of the coarse levels.
"""

MOST_ENTRIES = 120_000_000
"""Entries of the operator's matrix (40 bytes each) above which multigrid is too large."""

PATIENCE = 150
"""Iterations that multigrid gets: where its pieces fit badly, the Green operator goes on."""


@dataclass(frozen=True)
class Unbalanced:
    """Forces to balance, and when to stop.

    Args:
        force: Residual forces, which are overwritten.
        correction: The Green operator times them, overwritten too.
        target: Norm of each force that is small enough.
        max_iterations: Iterations after which to stop in any case.
        history: Takes the norms of all iterations.
    """

    force: Float[Tensor, "batch load c *space"]
    correction: Float[Tensor, "batch load c *space"]
    target: Float[Tensor, "batch load"]
    max_iterations: int
    history: History


Solved = tuple[Float[Tensor, "batch load c *space"], Int[Tensor, "batch load"]]


@runtime_checkable
class Iteration(Protocol):
    """A Krylov method on the loads of some cells."""

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the forces that it takes."""
        ...

    @property
    def group(self) -> int:
        """Load cases to take at a time."""
        ...

    @property
    def patience(self) -> int | None:
        """Iterations after which another method should go on, if any."""
        ...

    def __call__(self, task: Unbalanced) -> Solved:
        """Return the displacement that balances the forces, and the iterations."""
        ...


class GreenIteration:
    """Conjugate gradients with the Green operator of a homogeneous reference."""

    patience = None

    def __init__(self, problem: CellProblem, loads: int, dtype: torch.dtype) -> None:
        self._green = problem.green(dtype)
        self._operator = lru_cache(lambda n: problem.operator(n, dtype))
        self.dtype, self.group = dtype, _group(problem, loads, GROUP_VALUES)

    def __call__(self, task: Unbalanced) -> Solved:
        """Return the displacement and the iterations."""
        return conjugate_gradients(
            self._operator(task.force.shape[1]),
            self._green,
            task.force,
            z=task.correction,
            target=task.target,
            max_iterations=task.max_iterations,
            history=task.history,
        )


class MultigridIteration:
    """Block conjugate gradients with a multigrid cycle, the residual still measured by Green.

    Always in double precision: directions of many loads stay independent, and the cycle, which is
    most of the work, runs in single precision in any case.
    """

    dtype, patience = torch.float64, PATIENCE

    def __init__(self, problem: CellProblem, loads: int) -> None:
        self._green = problem.green(self.dtype)
        self._operator = lru_cache(lambda n: problem.operator(n, self.dtype))
        self._cycle = multigrid(problem, group=_group(problem, loads, GROUP_VALUES))
        self.group = _group(problem, loads, BLOCK_VALUES)

    def __call__(self, task: Unbalanced) -> Solved:
        """Return the displacement and the iterations."""
        return block_conjugate_gradients(
            self._operator(task.force.shape[1]),
            self._cycle,
            lambda r: measured(self._green, r)[1],
            task.force,
            target=task.target,
            max_iterations=min(task.max_iterations, self.patience),
            history=task.history,
        )


def iteration_for(problem: CellProblem, loads: int, dtype: torch.dtype) -> Iteration:
    """Return the method that is expected to need the least time."""
    if multigrid_pays(problem):
        return MultigridIteration(problem.detach(), loads)
    return GreenIteration(problem.detach(), loads, dtype)


def multigrid_pays(problem: CellProblem) -> bool:
    """Return whether contrast or pores, and the size of the cells, are worth the coarse levels."""
    contrast = float(problem.contrast().max())
    side = problem.voxels ** (1.0 / len(problem.shape))
    entries = problem.batch * problem.unknowns * problem.voxels * problem.couplings
    return (
        problem.rigid_pieces
        and contrast > HARD_CONTRAST
        and side >= (POROUS_SIDE if contrast == torch.inf else HARD_SIDE)
        and entries <= MOST_ENTRIES
    )


def _group(problem: CellProblem, loads: int, values: int) -> int:
    if problem.device.type != "cpu":
        return loads
    return max(1, min(loads, values // (problem.batch * problem.unknowns * problem.voxels)))
