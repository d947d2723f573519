"""Effective matrices of cells, from the solver's fields, with their discrete bounds."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from microstructures import DataError
from physics.mechanics.cells import check_settings, joined, slabs, solve_cells
from physics.mechanics.continuum import continuum_bounds
from physics.mechanics.discrete_bounds import bracket
from physics.mechanics.problem import CellProblem
from physics.mechanics.trial_state import unit_loads


@dataclass(frozen=True)
class EffectiveProperty:
    """An effective matrix with guaranteed bounds, in the Loewner order.

    Level "discrete": bounds of the same scheme's exact answer. `value` is the energy of the
    solver's fields: symmetric, off by the square of the residual, never below the exact one and
    so equal to `upper`; it carries the gradient with respect to phase fractions. `lower` is 0 for
    cells with pores, which `one_sided` marks.

    Level "continuum" (`bracket=True`): bounds of the voxel geometry itself, discretisation
    included; `value` is their midpoint, `width` the largest relative gap of all loads,
    `refinement` the number of cells along each axis that a voxel was cut into.

    `eigenstrain` is the cell's own, where the phases have one.
    """

    value: Float[Tensor, "batch n n"]
    lower: Float[Tensor, "batch n n"]
    upper: Float[Tensor, "batch n n"]
    iterations: Int[Tensor, "batch n"]
    residual: Float[Tensor, "batch n"]
    one_sided: Bool[Tensor, " batch"]
    level: Literal["discrete", "continuum"] = "discrete"
    width: Float[Tensor, " batch"] | None = None
    refinement: Int[Tensor, " batch"] | None = None
    eigenstrain: Float[Tensor, "batch n"] | None = None


def effective_property(
    problem: CellProblem,
    *,
    displacement: Float[Tensor, "batch n c *space"] | None,
    tolerance: float,
    max_iterations: int,
    dtype: torch.dtype,
    prestress: Float[Tensor, "batch 1 *field"] | None = None,
    lower: bool = True,
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
        brackets.append(bracket(cells, macro[part], states, lower=lower))
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
        bounds.one_sided,
        eigenstrain=own,
    )


def bracketed_property(
    problem: CellProblem, *, bracket_tolerance: float | None, **settings: Any
) -> EffectiveProperty:
    """Return the effective matrix of every q1 cell between its continuum bounds.

    Raises:
        DataError: the cells carry gradients, or the settings do not fit.
    """
    if torch.is_grad_enabled() and problem.requires_grad:
        raise DataError(
            "bracket: expected phases without gradients, got fractions that require one; detach "
            "them, or ask for the discrete level"
        )
    found = continuum_bounds(problem, bracket_tolerance=bracket_tolerance, **settings)
    return EffectiveProperty(
        found.value,
        found.lower,
        found.upper,
        found.iterations,
        found.residual,
        found.one_sided,
        level="continuum",
        width=found.width,
        refinement=found.refinement,
    )


def check_bracket(
    bracket: bool, bracket_tolerance: float | None, displacement: object, eigenstrain: object = None
) -> None:
    """Raise `DataError` where settings do not go with the continuum bracket or without it."""
    if bracket_tolerance is not None and not bracket:
        raise DataError(
            f"bracket_tolerance: expected bracket=True with it, got {bracket_tolerance:g} alone"
        )
    given = {"displacement": displacement, "eigenstrain": eigenstrain}
    for name, value in given.items():
        if bracket and value is not None:
            raise DataError(f"{name}: expected none with bracket=True, got one; leave it out")
