"""From phases, materials and orientations to the discrete elastic problem of a scheme."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from microstructures import DataError
from physics.mechanics.crystals import (
    ElasticMaterial,
    check_orientations,
    isotropic_floor,
    mandel_rotation,
    oriented,
)
from physics.mechanics.laws import AnisotropicLaw, IsotropicLaw, Law
from physics.mechanics.materials import (
    IsotropicElastic,
    check_phases,
    isotropic_stiffness,
    phase_field,
)
from physics.mechanics.nodal import Q1, ROTATED, NodalElasticity
from physics.mechanics.problem import CellProblem
from physics.mechanics.staggered import StaggeredElasticity
from physics.mechanics.staggered_crystals import StaggeredCrystals

PLANE_STRAIN = (0, 1, 5)
"""Places of the in-plane Mandel components (11, 22, 12) among the six."""


def elastic_problem(
    phases: Shaped[Tensor, "batch *dims"],
    materials: Sequence[ElasticMaterial],
    scheme: str = "staggered",
    orientations: Float[Tensor, "batch 4 *space"] | None = None,
) -> CellProblem:
    """Return the discrete problem of labels or fractions, its moduli in float64 GPa.

    Raises:
        DataError: phases or orientations do not fit, no material carries load, no such scheme.
    """
    space = check_phases(phases, len(materials))
    if orientations is not None:
        check_orientations(orientations, len(phases), space)
    ratio = _reference_ratio(materials, len(space))
    plain = all(isinstance(material, IsotropicElastic) for material in materials)
    match scheme:
        case "staggered":
            lame, shear = _isotropic_parts(phases, materials)
            cells = StaggeredElasticity.of_voxels(lame, shear, ratio)
            if plain:
                return cells
            rest = _anisotropic_rest(phases, materials, orientations)
            return StaggeredCrystals(cells.lame, cells.shear, ratio, rest)
        case "q1" | "rotated":
            law: Law
            if plain:
                lame, shear = _isotropic_parts(phases, materials)
                law = IsotropicLaw(lame, shear.unsqueeze(1))
            else:
                crystals = torch.stack([m.crystal_stiffness() for m in materials])
                law = AnisotropicLaw(oriented(crystals, phases, orientations, _kept(len(space))))
            return NodalElasticity(Q1 if scheme == "q1" else ROTATED, law, ratio)
        case _:
            raise DataError(f'scheme: expected "staggered", "q1" or "rotated", got {scheme!r}')


def staggered_problem(
    phases: Shaped[Tensor, "batch *dims"], materials: Sequence[IsotropicElastic]
) -> StaggeredElasticity:
    """Return `elastic_problem` of isotropic phases on the staggered grid."""
    ratio = _reference_ratio(materials, len(check_phases(phases, len(materials))))
    return StaggeredElasticity.of_voxels(*_isotropic_parts(phases, materials), ratio)


def eigenstress(
    phases: Shaped[Tensor, "batch *dims"],
    materials: Sequence[ElasticMaterial],
    eigenstrain: Float[Tensor, "..."] | Sequence[float | int],
    orientations: Float[Tensor, "batch 4 *space"] | None = None,
) -> Float[Tensor, "batch n *space"]:
    """Return C : eigenstrain in GPa per voxel, in-plane components in 2-D.

    The eigenstrain is one number per phase (isotropic), `(phase, 6)` Mandel in crystal axes, or a
    field `(batch, 6, *space)` in sample axes. Plane strain needs all six: a stretch along 33 that
    is held back presses in the plane.

    Raises:
        DataError: neither of these, or not finite.
    """
    space = check_phases(phases, len(materials))
    given = torch.as_tensor(eigenstrain, dtype=torch.float64, device=phases.device)
    if not bool(given.isfinite().all()):
        raise DataError("eigenstrain: expected finite numbers, got NaN or infinity")
    crystals = torch.stack([material.crystal_stiffness() for material in materials])
    keep = _kept(len(space))
    if tuple(given.shape) == (len(phases), 6, *space):
        stiffness = oriented(crystals, phases, orientations, range(6))[:, keep]
        return torch.einsum("bij...,bj...->bi...", stiffness, given)
    if given.shape == (len(materials),):
        unit = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
        given = given.unsqueeze(1) * unit.to(given.device)
    if tuple(given.shape) != (len(materials), 6):
        raise DataError(
            f"eigenstrain: expected one number per phase, ({len(materials)}, 6) in crystal axes or "
            f"{(len(phases), 6, *space)} in sample axes, got shape {tuple(given.shape)}"
        )
    stress = torch.einsum("pij,pj->pi", crystals.to(given.device), given)
    field = torch.stack([phase_field(phases, stress[:, i].tolist()) for i in range(6)], 1)
    if orientations is None:
        return field[:, keep]
    turn = mandel_rotation(orientations.to(torch.float64))[:, keep]
    return torch.einsum("bij...,bj...->bi...", turn, field)


def _kept(dim: int) -> list[int]:
    return list(PLANE_STRAIN if dim == 2 else range(6))


def _parts(material: ElasticMaterial) -> tuple[float, float]:
    if isinstance(material, IsotropicElastic):
        return material.lame, material.shear
    return isotropic_floor(material.crystal_stiffness())


def _isotropic_parts(
    phases: Shaped[Tensor, "batch *dims"], materials: Sequence[ElasticMaterial]
) -> tuple[Tensor, Tensor]:
    lames, shears = zip(*[_parts(material) for material in materials], strict=True)
    return phase_field(phases, lames), phase_field(phases, shears)


def _anisotropic_rest(
    phases: Shaped[Tensor, "batch *dims"],
    materials: Sequence[ElasticMaterial],
    orientations: Tensor | None,
) -> AnisotropicLaw:
    dim = len(check_phases(phases, len(materials)))
    rests = [m.crystal_stiffness() - isotropic_stiffness(*_parts(m), 3) for m in materials]
    return AnisotropicLaw(oriented(torch.stack(rests), phases, orientations, _kept(dim)))


def _reference_ratio(materials: Sequence[ElasticMaterial], dim: int) -> float:
    """Return lame/shear in the middle of the phases' range (isotropic means of the crystals).

    Rounded, so that cells of like phases share one cached Green operator.
    """
    moduli = [_mean_moduli(material) for material in materials]
    if max(shear for _, shear in moduli) <= 0.0:
        raise DataError("materials: expected at least one with youngs_modulus_gpa > 0, got pores")
    bulks = [lame + 2.0 * shear / dim for lame, shear in moduli]
    shears = [shear for _, shear in moduli]
    bulk_ratio = float(f"{(min(bulks) + max(bulks)) / (min(shears) + max(shears)):.2g}")
    return round(bulk_ratio - 2.0 / dim, 12)


def _mean_moduli(material: ElasticMaterial) -> tuple[float, float]:
    """Return lame and shear of the isotropic mean (Voigt 1889)."""
    if isinstance(material, IsotropicElastic):
        return material.lame, material.shear
    stiffness = material.crystal_stiffness()
    bulk = float(stiffness[:3, :3].sum()) / 9.0
    shear = (float(stiffness.trace()) - 3.0 * bulk) / 10.0
    return bulk - 2.0 * shear / 3.0, shear
