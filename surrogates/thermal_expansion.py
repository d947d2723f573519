"""Thermal expansion of two-phase cells from their stiffness alone, by Levin's relation."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from microstructures import DataError
from physics.mechanics.materials import IsotropicElastic

SMALLEST_DIFFERENCE = 1e-9  # of two compliances, relative


def levin_expansion(
    stiffness: Float[Tensor, "batch n n"],
    materials: Sequence[IsotropicElastic],
    expansions_per_k: Sequence[float],
) -> Float[Tensor, "batch n"]:
    """Return the effective thermal expansion of two-phase cells in Mandel notation, 1/K.

    Of two isotropic phases with expansions a, b and compliances s, t to equal stress on all axes,
    the effective expansion follows from the effective compliance S alone, whatever the structure:

        alpha = a i + (b - a) / (t - s) (S i - s i),    i = (1, ..., 1, 0, ...)

    (Levin 1967; Rosen and Hashin 1970). It is exact; the error of the stiffness enters times
    (b - a) / (t - s), so phases of nearly equal compressibility ask for an exact stiffness. In
    2-D it is the in-plane expansion under plane strain, where a phase held back along axis 3
    expands by (1 + nu) times its own in the plane.

    Args:
        stiffness: Effective stiffness of each cell in GPa, for instance of a property surrogate.
        materials: The two phases, neither a pore.
        expansions_per_k: Their linear thermal expansions.

    Raises:
        DataError: Not two phases, one is a pore, or both are equally compressible.

    >>> found = model.predict(phases, [matrix, fibre])  # doctest: +SKIP
    >>> levin_expansion(found.value, [matrix, fibre], [2e-5, 5e-6])  # doctest: +SKIP
    """
    if not len(materials) == len(expansions_per_k) == 2:
        raise DataError(
            f"expected two phases and two expansions, got {len(materials)} and "
            f"{len(expansions_per_k)}; with more phases the structure matters: use "
            "effective_stiffness(..., eigenstrain=...)"
        )
    if any(material.youngs_modulus_gpa == 0 for material in materials):
        raise DataError("expected two solid phases, got a pore; it expands as the solid does")
    dim = 2 if stiffness.shape[-1] == 3 else 3
    s, t = (_compliance(material, dim) for material in materials)
    if abs(t - s) <= SMALLEST_DIFFERENCE * max(s, t):
        raise DataError(
            f"expected phases of different compressibility, got {s:g} and {t:g} 1/GPa: the "
            "expansion is then the mean of the phases', by volume"
        )
    a, b = (
        alpha * (1 + material.poisson_ratio if dim == 2 else 1)
        for alpha, material in zip(expansions_per_k, materials, strict=True)
    )
    unit = torch.zeros(stiffness.shape[-1], dtype=stiffness.dtype, device=stiffness.device)
    unit[:dim] = 1
    strained = torch.linalg.solve(stiffness, unit.expand(len(stiffness), -1))
    return a * unit + (b - a) / (t - s) * (strained - s * unit)


def _compliance(material: IsotropicElastic, dim: int) -> float:
    """Return the strain along each axis of equal unit stress along all, 1/GPa (2-D: in plane)."""
    return 1 / (dim * material.lame + 2 * material.shear)
