"""A few solver iterations from a given displacement: what a net is worth as a start."""

import torch
from jaxtyping import Float
from torch import Tensor

from physics.mechanics.cells import slabs
from physics.mechanics.krylov import conjugate_gradients
from physics.mechanics.problem import CellProblem


@torch.no_grad()
def iterated(
    problem: CellProblem,
    displacement: Float[Tensor, "batch load c *space"] | None,
    iterations: int,
) -> Float[Tensor, "batch load c *space"]:
    """Return the displacements of the unit loads after some conjugate-gradient iterations.

    The solver's own iteration, truncated: preconditioned by the Green operator of a homogeneous
    reference, in float32, from `displacement` or from zero. Each costs one application of the
    cell's operator and one of the Green operator per load; the energy never rises.
    """
    parts = [
        _iterated(
            problem.select(part), None if displacement is None else displacement[part], iterations
        )
        for part in slabs(problem, problem.components)
    ]
    return torch.cat(parts)


def _iterated(problem: CellProblem, displacement: Tensor | None, iterations: int) -> Tensor:
    n = problem.components
    unit = torch.eye(n, dtype=torch.float32, device=problem.device)
    operator = problem.operator(n, torch.float32)
    force = problem.load_force(unit.expand(problem.batch, n, n)).float()
    start = torch.zeros_like(force) if displacement is None else displacement.float()
    if displacement is not None:
        force = force - operator(start)
    step, _ = conjugate_gradients(
        operator,
        problem.green(torch.float32),
        force,
        target=torch.zeros(problem.batch, n, dtype=force.dtype, device=problem.device),
        max_iterations=iterations,
    )
    return start + step
