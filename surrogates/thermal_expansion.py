"""Thermal expansion of two-phase cells from their stiffness alone, by Levin's relation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from microstructures import DataError
from physics.mechanics.materials import IsotropicElastic

SMALLEST_DIFFERENCE = 1e-9  # of two compliances, relative


@dataclass(frozen=True)
class ExpansionBracket:
    """Effective thermal expansion in Mandel notation, 1/K, and an interval for each component.

    Level "discrete": the interval follows from bounds of the stiffness in the Loewner order, and
    is guaranteed as they are. Level "statistical": it follows, to first order, from an interval
    for each entry of the stiffness, whose errors are taken to be independent.
    """

    value: Float[Tensor, "batch n"]
    lower: Float[Tensor, "batch n"]
    upper: Float[Tensor, "batch n"]
    level: Literal["statistical", "discrete"]


def expansion_bracket(
    value: Float[Tensor, "batch n n"],
    lower: Float[Tensor, "batch n n"],
    upper: Float[Tensor, "batch n n"],
    materials: Sequence[IsotropicElastic],
    expansions_per_k: Sequence[float],
    *,
    level: Literal["statistical", "discrete"],
) -> ExpansionBracket:
    """Return the expansion of two-phase cells with the interval that their stiffness's implies.

    With S = C^-1 and k = (b - a) / (t - s) (`levin_expansion`) the expansion is off by k dS i.
    Between bounds C- <= C <= C+ the compliance's error dS is at most D = (S- - S+) / 2 either way
    about the middle, and |j dS i| <= sqrt(j D j) sqrt(i D i) (Cauchy, Schwarz). From half widths H
    of single entries dS i is about the root of the sum of squares of the terms of S H S i.

    Raises:
        DataError: `levin_expansion` does not hold for these phases.
    """
    factor, dim = abs(_levin_factor(materials, expansions_per_k, value)), _axes(value)
    unit = _unit(value, dim)
    if level == "discrete":
        ends = torch.linalg.inv(lower.double()), torch.linalg.inv(upper.double())
        middle, gap = torch.linalg.inv((ends[0] + ends[1]) / 2), (ends[0] - ends[1]) / 2
        found = levin_expansion(middle, materials, expansions_per_k)
        own = gap.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt()
        along = torch.einsum("i,bij,j->b", unit, gap, unit).clamp_min(0).sqrt()
        half = factor * own * along[:, None]
    else:
        found = levin_expansion(value, materials, expansions_per_k)
        square, wide = torch.linalg.inv(value).square(), ((upper - lower) / 2).square()
        spread = torch.einsum("bij,bjk,bk->bi", square, wide, _strained(value, unit).square())
        half = factor * spread.sqrt()
    return ExpansionBracket(found, found - half, found + half, level)


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
    factor, dim = _levin_factor(materials, expansions_per_k, stiffness), _axes(stiffness)
    first = materials[0]
    own = expansions_per_k[0] * (1 + first.poisson_ratio if dim == 2 else 1)
    unit = _unit(stiffness, dim)
    return own * unit + factor * (_strained(stiffness, unit) - _compliance(first, dim) * unit)


def check_levin(
    materials: Sequence[IsotropicElastic], expansions_per_k: Sequence[float], *, dim: int
) -> None:
    """Refuse phases for which the stiffness alone does not give the expansion.

    Raises:
        DataError: Not two phases, one is a pore, or both are equally compressible.
    """
    if not len(materials) == len(expansions_per_k) == 2:
        raise DataError(
            f"expected two phases and two expansions, got {len(materials)} and "
            f"{len(expansions_per_k)}; with more phases the structure matters: use "
            "effective_stiffness(..., eigenstrain=...)"
        )
    if any(material.youngs_modulus_gpa == 0 for material in materials):
        raise DataError("expected two solid phases, got a pore; it expands as the solid does")
    s, t = (_compliance(material, dim) for material in materials)
    if abs(t - s) <= SMALLEST_DIFFERENCE * max(s, t):
        raise DataError(
            f"expected phases of different compressibility, got {s:g} and {t:g} 1/GPa: the "
            "expansion is then the mean of the phases', by volume"
        )


def _levin_factor(
    materials: Sequence[IsotropicElastic], expansions_per_k: Sequence[float], stiffness: Tensor
) -> float:
    """Return (b - a) / (t - s) of phases for which Levin's relation holds, in GPa/K."""
    dim = _axes(stiffness)
    check_levin(materials, expansions_per_k, dim=dim)
    s, t = (_compliance(material, dim) for material in materials)
    a, b = (
        alpha * (1 + material.poisson_ratio if dim == 2 else 1)
        for alpha, material in zip(expansions_per_k, materials, strict=True)
    )
    return (b - a) / (t - s)


def _strained(stiffness: Tensor, unit: Tensor) -> Tensor:
    """Return S i."""
    return torch.linalg.solve(stiffness, unit.expand(len(stiffness), -1))


def _axes(stiffness: Tensor) -> int:
    return 2 if stiffness.shape[-1] == 3 else 3


def _unit(stiffness: Tensor, dim: int) -> Tensor:
    """Return i = (1, ..., 1, 0, ...)."""
    unit = torch.zeros(stiffness.shape[-1], dtype=stiffness.dtype, device=stiffness.device)
    unit[:dim] = 1
    return unit


def _compliance(material: IsotropicElastic, dim: int) -> float:
    """Return the strain along each axis of equal unit stress along all, 1/GPa (2-D: in plane)."""
    return 1 / (dim * material.lame + 2 * material.shear)
