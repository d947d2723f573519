"""Steady conduction (heat, charge, diffusion) in periodic voxel cells: effective conductivity."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from microstructures import DataError
from physics.mechanics.cells import MAX_ITERATIONS
from physics.mechanics.effective import EffectiveProperty, effective_property
from physics.mechanics.grid import check_scheme
from physics.mechanics.materials import check_phases, phase_field
from physics.mechanics.staggered import FaceConduction


def effective_conductivity(
    phases: Shaped[Tensor, "batch *dims"],
    conductivities: Sequence[float | int],
    *,
    scheme: str = "staggered",
    tolerance: float = 1e-4,
    displacement: Float[Tensor, "batch dim 1 *space"] | None = None,
    max_iterations: int = MAX_ITERATIONS,
    dtype: torch.dtype = torch.float64,
) -> EffectiveProperty:
    """Return the effective conductivity `(batch, dim, dim)` in the unit of `conductivities`.

    Temperature at voxel centres, fluxes on faces with the harmonic mean of both sides (the
    five- or seven-point finite volume, the scalar case of the staggered scheme), solved by
    FFT-preconditioned conjugate gradients.

    Args:
        phases: integer labels `(batch, *space)` or float fractions `(batch, phase, *space)`,
            mixed by Voigt's rule; `.value` is differentiable with respect to fractions.
        conductivities: one isotropic value per phase; 0 is an insulator.
        tolerance: residual relative to that of a uniform gradient.
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
    check_scheme(scheme)
    check_phases(phases, len(conductivities))
    if not all(math.isfinite(k) and k >= 0.0 for k in conductivities) or max(conductivities) <= 0.0:
        raise DataError(
            f"conductivities: expected finite numbers >= 0, one of them positive, got "
            f"{list(conductivities)}"
        )
    return effective_property(
        FaceConduction.of_voxels(phase_field(phases, conductivities)),
        displacement=displacement,
        tolerance=tolerance,
        max_iterations=max_iterations,
        dtype=dtype,
    )
