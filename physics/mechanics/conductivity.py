"""Steady conduction (heat, charge, diffusion) in periodic voxel cells: effective conductivity."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from microstructures import DataError
from physics.mechanics.cells import MAX_ITERATIONS
from physics.mechanics.effective import (
    EffectiveProperty,
    bracketed_property,
    check_bracket,
    effective_property,
)
from physics.mechanics.laws import ConductionLaw
from physics.mechanics.materials import check_phases, phase_field
from physics.mechanics.nodal import Q1, ROTATED, NodalConduction
from physics.mechanics.problem import CellProblem
from physics.mechanics.staggered import FaceConduction


def effective_conductivity(
    phases: Shaped[Tensor, "batch *dims"],
    conductivities: Sequence[float | int],
    *,
    scheme: str = "staggered",
    tolerance: float | None = None,
    bracket: bool = False,
    bracket_tolerance: float | None = None,
    displacement: Float[Tensor, "batch dim 1 *space"] | None = None,
    max_iterations: int = MAX_ITERATIONS,
    dtype: torch.dtype = torch.float64,
) -> EffectiveProperty:
    """Return the effective conductivity `(batch, dim, dim)` in the unit of `conductivities`.

    Staggered: temperature at voxel centres, fluxes on faces with the harmonic mean of both sides
    (the five- or seven-point finite volume). q1 and rotated: temperature at the voxels' corners.
    Solved by FFT-preconditioned conjugate gradients.

    Args:
        phases: integer labels `(batch, *space)` or float fractions `(batch, phase, *space)`,
            mixed by Voigt's rule; `.value` is differentiable with respect to fractions.
        conductivities: one isotropic value per phase; 0 is an insulator.
        tolerance: residual relative to that of a uniform gradient; None is 1e-4, and
            0.01 / sqrt(contrast) in a bracket.
        bracket: bound the voxel geometry's own continuum, as in `effective_stiffness`.
        bracket_tolerance: widest relative bracket; wider cells have their voxels refined.
        displacement: a start: the temperature fluctuation of each unit gradient.
        dtype: precision of the iterations.

    Raises:
        DataError: phases or settings do not fit.
        ConvergenceError: not converged within `max_iterations`.

    Example:
        >>> halves = torch.zeros(1, 8, 8, dtype=torch.long)
        >>> halves[:, 4:] = 1
        >>> effective_conductivity(halves, [1.0, 10.0]).value    # diag(20/11, 5.5)
    """
    check_bracket(bracket, bracket_tolerance, displacement)
    problem = conduction_problem(phases, conductivities, "q1" if bracket else scheme)
    if bracket:
        return bracketed_property(
            problem,
            bracket_tolerance=bracket_tolerance,
            tolerance=tolerance,
            max_iterations=max_iterations,
            dtype=dtype,
        )
    return effective_property(
        problem,
        displacement=displacement,
        tolerance=1e-4 if tolerance is None else tolerance,
        max_iterations=max_iterations,
        dtype=dtype,
    )


def conduction_problem(
    phases: Shaped[Tensor, "batch *dims"],
    conductivities: Sequence[float | int],
    scheme: str = "staggered",
) -> CellProblem:
    """Return the discrete problem of labels or fractions, in the unit of `conductivities`.

    Raises:
        DataError: phases do not fit the conductivities, none conducts, or no such scheme.
    """
    check_phases(phases, len(conductivities))
    if not all(math.isfinite(k) and k >= 0.0 for k in conductivities) or max(conductivities) <= 0.0:
        raise DataError(
            f"conductivities: expected finite numbers >= 0, one of them positive, got "
            f"{list(conductivities)}"
        )
    k = phase_field(phases, conductivities)
    match scheme:
        case "staggered":
            return FaceConduction.of_voxels(k)
        case "q1" | "rotated":
            return NodalConduction(Q1 if scheme == "q1" else ROTATED, ConductionLaw(k.unsqueeze(1)))
        case _:
            raise DataError(f'scheme: expected "staggered", "q1" or "rotated", got {scheme!r}')
