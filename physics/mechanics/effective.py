"""Effective matrices of cells, from the solver's fields, with their discrete bounds."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from physics.mechanics.cells import (
    bracket,
    check_settings,
    joined,
    slabs,
    solve_cells,
    unit_loads,
)
from physics.mechanics.problem import CellProblem


@dataclass(frozen=True)
class EffectiveProperty:
    """An effective matrix with bounds of the same scheme's exact answer, in the Loewner order.

    `value` is the energy of the solver's fields: symmetric, off by the square of the residual,
    never below the exact one and so equal to `upper`; it carries the gradient with respect to
    phase fractions. `lower` is 0 for cells with pores. `eigenstrain` is the cell's own, where the
    phases have one.
    """

    value: Float[Tensor, "batch n n"]
    lower: Float[Tensor, "batch n n"]
    upper: Float[Tensor, "batch n n"]
    iterations: Int[Tensor, "batch n"]
    residual: Float[Tensor, "batch n"]
    level: Literal["discrete", "continuum"] = "discrete"
    eigenstrain: Float[Tensor, "batch n"] | None = None


def effective_property(
    problem: CellProblem,
    *,
    displacement: Float[Tensor, "batch n c *space"] | None,
    tolerance: float,
    max_iterations: int,
    dtype: torch.dtype,
    prestress: Float[Tensor, "batch 1 *field"] | None = None,
) -> EffectiveProperty:
    """Return the effective matrix of every cell under the unit macroscopic gradients.

    `prestress` is the stress field of the phases' eigenstrains, if they have any.
    """
    macro = unit_loads(problem.batch, problem.components, problem.device)
    check_settings(
        problem,
        macro,
        displacement,
        tolerance=tolerance,
        max_iterations=max_iterations,
        dtype=dtype,
    )
    brackets, records, works = [], [], []
    for part in slabs(problem, problem.components):
        cells = problem.select(part)
        with torch.no_grad():
            states, record = solve_cells(
                cells.detach(),
                macro[part],
                displacement=None if displacement is None else displacement[part].double(),
                tolerance=tolerance,
                max_iterations=max_iterations,
                dtype=dtype,
            )
        brackets.append(bracket(cells, macro[part], states))
        records.append(record)
        if prestress is not None:
            strains = torch.cat([cells.energies(s.strain, prestress[part]) for s in states], 1)
            works.append(strains.squeeze(2))
    bounds, record = joined(brackets), joined(records)
    own = torch.linalg.solve(bounds.value.detach(), torch.cat(works)) if works else None
    return EffectiveProperty(
        bounds.value,
        bounds.lower,
        bounds.upper,
        record.iterations,
        record.residual,
        eigenstrain=own,
    )
