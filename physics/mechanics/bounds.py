"""Bounds of effective properties from volume fractions alone."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from microstructures import DataError
from physics.mechanics.materials import IsotropicElastic


class Interval(NamedTuple):
    """A lower and an upper bound; of matrices, in the Loewner order."""

    lower: Float[Tensor, "..."]
    upper: Float[Tensor, "..."]


class ModuliBounds(NamedTuple):
    """Hashin-Shtrikman intervals in GPa.

    `bulk` is the bulk modulus K in 3-D and the plane-strain bulk modulus k = lame + G in 2-D.
    """

    bulk: Interval
    shear: Interval


def voigt_reuss_bounds(
    fractions: Sequence[float | int] | Float[Tensor, "*batch phase"],
    materials: Sequence[IsotropicElastic],
    *,
    dim: int,
) -> Interval:
    """Return Reuss's and Voigt's Mandel stiffness `(*batch, n, n)` in GPa.

    They hold for every geometry, in the Loewner order, and for the staggered scheme's discrete
    cells as well. Reuss is 0 once a pore takes part (Hill 1952).

    Raises:
        DataError: fractions are negative, do not add up to 1 or do not fit the materials.
    """
    shares = _checked(fractions, len(materials))
    stiffness = torch.stack([material.stiffness(dim) for material in materials])
    solid = torch.tensor([material.youngs_modulus_gpa > 0.0 for material in materials])
    voigt = torch.einsum("...p,pij->...ij", shares, stiffness)
    # Isotropic phases share their eigenspaces, so the inverse of the mean compliance is isotropic.
    unit = torch.eye(stiffness.shape[-1], dtype=torch.float64)
    compliance = torch.linalg.inv(torch.where(solid.view(-1, 1, 1), stiffness, unit))
    mean = torch.einsum("...p,pij->...ij", torch.where(solid, shares, 0.0), compliance)
    porous = (shares[..., ~solid] > 0.0).any(-1)[..., None, None]
    reuss = torch.where(porous, 0.0, torch.linalg.inv(torch.where(porous, unit, mean)))
    return Interval(reuss, voigt)


def hashin_shtrikman_bounds(
    fractions: Sequence[float | int] | Float[Tensor, "*batch phase"],
    materials: Sequence[IsotropicElastic],
    *,
    dim: int,
) -> ModuliBounds:
    """Return bounds of the moduli of statistically isotropic composites, `(*batch,)` in GPa.

    With L(z) = 1 / sum_i f_i / (M_i + z) - z for a modulus M and the extreme phase moduli K, G:
    3-D, bulk z = 4 G / 3, shear z = G (9 K + 8 G) / (6 (K + 2 G)); 2-D plane strain with
    k = lame + G, bulk z = G, shear z = k G / (k + 2 G). Any number of phases; where K and G are
    ordered differently these are Walpole's bounds (Hashin, Shtrikman 1963,
    doi:10.1016/0022-5096(63)90060-7; Walpole 1966; Hashin 1965 in the plane).

    Raises:
        DataError: fractions are negative, do not add up to 1 or do not fit the materials.

    Example:
        >>> soft, stiff = (IsotropicElastic(youngs_modulus_gpa=e) for e in (1.0, 10.0))
        >>> hashin_shtrikman_bounds([0.6, 0.4], [soft, stiff], dim=3).bulk.upper
        tensor(2.5429, dtype=torch.float64)
    """
    shares = _checked(fractions, len(materials))
    shear = [material.shear for material in materials]
    match dim:
        case 2:
            bulk = [material.lame + material.shear for material in materials]
        case 3:
            bulk = [material.bulk for material in materials]
        case _:
            raise DataError(f"dim must be 2 or 3, got {dim!r}")
    ends = [(min(bulk), min(shear)), (max(bulk), max(shear))]
    bulk_bounds = [_mean(shares, bulk, g if dim == 2 else 4.0 * g / 3.0) for _, g in ends]
    shear_bounds = [_mean(shares, shear, _shear_shift(k, g, dim)) for k, g in ends]
    return ModuliBounds(Interval(*bulk_bounds), Interval(*shear_bounds))


def hashin_shtrikman_conductivity(
    fractions: Sequence[float | int] | Float[Tensor, "*batch phase"],
    conductivities: Sequence[float | int],
    *,
    dim: int,
) -> Interval:
    """Return bounds `(*batch,)` of the conductivity of isotropic composites, 2-D or 3-D.

    1 / sum_i f_i / (k_i + z) - z with z = (dim - 1) times the least and the greatest k
    (Hashin, Shtrikman 1962, doi:10.1063/1.1728579).

    Raises:
        DataError: fractions or conductivities are not valid.
    """
    shares = _checked(fractions, len(conductivities))
    if dim not in (2, 3):
        raise DataError(f"dim must be 2 or 3, got {dim!r}")
    if not all(math.isfinite(k) and k >= 0.0 for k in conductivities):
        raise DataError(f"conductivities: expected finite numbers >= 0, got {list(conductivities)}")
    values = list(conductivities)
    ends = (min(values), max(values))
    return Interval(*(_mean(shares, values, (dim - 1) * end) for end in ends))


def _shear_shift(bulk: float, shear: float, dim: int) -> float:
    if shear == 0.0:
        return 0.0
    if dim == 2:
        return bulk * shear / (bulk + 2.0 * shear)
    return shear * (9.0 * bulk + 8.0 * shear) / (6.0 * (bulk + 2.0 * shear))


def _mean(shares: Tensor, moduli: list[float], shift: float) -> Tensor:
    """Return 1 / sum_i f_i / (M_i + shift) - shift; 0 where a present phase has M + shift = 0."""
    shifted = torch.tensor(moduli, dtype=torch.float64) + shift
    return 1.0 / torch.where(shares > 0.0, shares / shifted, 0.0).sum(-1) - shift


def _checked(fractions: Sequence[float | int] | Tensor, n_phases: int) -> Tensor:
    shares = torch.as_tensor(fractions, dtype=torch.float64)
    if shares.ndim < 1 or shares.shape[-1] != n_phases:
        raise DataError(
            f"fractions: expected {n_phases}, one per phase, got shape {tuple(shares.shape)}"
        )
    if not bool((shares >= 0.0).all()) or float((shares.sum(-1) - 1.0).abs().max()) > 1e-6:
        raise DataError(f"fractions: expected numbers >= 0 that add up to 1, got {fractions!r}")
    return shares
