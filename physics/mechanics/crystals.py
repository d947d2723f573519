"""Anisotropic phases, and the stiffness fields that oriented grains make of them."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from microstructures import DataError
from physics.mechanics.grid import SHEAR_PAIRS
from physics.mechanics.materials import phase_field


@runtime_checkable
class ElasticMaterial(Protocol):
    """A linear elastic phase, known by its stiffness in its own (crystal) axes."""

    def crystal_stiffness(self) -> Float[Tensor, "6 6"]:
        """Return the Mandel stiffness in GPa, `(6, 6)`, in crystal axes."""
        ...


class _Crystal(BaseModel):
    """Base of the anisotropic phases: frozen settings whose faults are `DataError`s."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **settings: float | int) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as fault:
            first = fault.errors()[0]
            name = ".".join(str(part) for part in first["loc"]) or "constants"
            raise DataError(
                f"{type(self).__name__}: {name}: {first['msg']}, got {first['input']!r}; give "
                f"finite constants in GPa: {', '.join(type(self).model_fields)}"
            ) from None
        lowest = float(torch.linalg.eigvalsh(self.crystal_stiffness())[0])
        if not lowest > 0.0:
            raise DataError(
                f"{type(self).__name__}: expected constants of a positive definite stiffness, got "
                f"{settings} with lowest eigenvalue {lowest:.3g} GPa; check their order and signs"
            )

    @abstractmethod
    def crystal_stiffness(self) -> Float[Tensor, "6 6"]:
        """Return the Mandel stiffness in GPa in crystal axes."""


class CubicElastic(_Crystal):
    """A cubic crystal by C11, C12 and C44 (tensor shear modulus) in GPa; axes <100>.

    Example:
        >>> CubicElastic(c11_gpa=168.4, c12_gpa=121.4, c44_gpa=75.4).zener_ratio   # copper
        3.2085106382978725
    """

    c11_gpa: float = Field(gt=0.0)
    c12_gpa: float
    c44_gpa: float = Field(gt=0.0)

    @property
    def zener_ratio(self) -> float:
        """2 C44 / (C11 - C12), 1 for isotropy."""
        return 2.0 * self.c44_gpa / (self.c11_gpa - self.c12_gpa)

    def crystal_stiffness(self) -> Float[Tensor, "6 6"]:
        """Return the Mandel stiffness in GPa in crystal axes."""
        stiffness = torch.zeros(6, 6, dtype=torch.float64)
        stiffness[:3, :3] = self.c12_gpa
        stiffness.diagonal()[:3] = self.c11_gpa
        stiffness.diagonal()[3:] = 2.0 * self.c44_gpa
        return stiffness


class TransverselyIsotropicElastic(_Crystal):
    """A phase isotropic about its own axis 3: a fibre, or a hexagonal crystal.

    `poisson_ratio_axial` is the contraction across the axis over the stretch along it;
    `poisson_ratio_transverse` lies in the plane of isotropy.
    """

    youngs_modulus_axial_gpa: float = Field(gt=0.0)
    youngs_modulus_transverse_gpa: float = Field(gt=0.0)
    shear_modulus_axial_gpa: float = Field(gt=0.0)
    poisson_ratio_axial: float = 0.3
    poisson_ratio_transverse: float = Field(default=0.3, gt=-1.0, lt=1.0)

    def crystal_stiffness(self) -> Float[Tensor, "6 6"]:
        """Return the Mandel stiffness in GPa in crystal axes."""
        along, across = self.youngs_modulus_axial_gpa, self.youngs_modulus_transverse_gpa
        compliance = torch.zeros(6, 6, dtype=torch.float64)
        compliance[0, 1] = compliance[1, 0] = -self.poisson_ratio_transverse / across
        compliance[:2, 2] = compliance[2, :2] = -self.poisson_ratio_axial / along
        plane_shear = across / (2.0 * (1.0 + self.poisson_ratio_transverse))
        axial = 0.5 / self.shear_modulus_axial_gpa
        compliance.diagonal().copy_(
            torch.tensor([1 / across, 1 / across, 1 / along, axial, axial, 0.5 / plane_shear])
        )
        stiffness = torch.linalg.inv(compliance)
        return 0.5 * (stiffness + stiffness.mT)


def isotropic_floor(stiffness: Float[Tensor, "6 6"]) -> tuple[float, float]:
    """Return the Lame constant and shear modulus of the largest isotropic part.

    stiffness - (lame 1 x 1 + 2 G I) is positive semi-definite, with 2 G the lowest eigenvalue and
    then lame as large as possible. For a cubic crystal both have the same bulk modulus.
    """
    values, vectors = torch.linalg.eigh(stiffness)
    rest = (values - values[0]).clamp_min(0.0)
    trace = torch.zeros(6, dtype=torch.float64)
    trace[:3] = 1.0
    share = (vectors.mT @ trace).square()
    empty = rest <= 1e-12 * values[-1]
    if float(share[empty].sum()) > 1e-12:
        return 0.0, 0.5 * float(values[0])
    return 1.0 / float((share / rest)[~empty].sum()), 0.5 * float(values[0])


def mandel_rotation(
    orientations: Float[Tensor, "batch 4 *space"],
) -> Float[Tensor, "batch 6 6 *space"]:
    """Return the orthogonal Mandel matrices of unit quaternions (w, x, y, z).

    They turn crystal into sample axes: strain = Q strain_crystal, C = Q C_crystal Q^T.
    """
    w, x, y, z = orientations.unbind(1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    pairs = ((0, 0), (1, 1), (2, 2), *SHEAR_PAIRS[3])
    matrix = []
    for i, j in pairs:
        row = []
        for k, m in pairs:
            entry = rows[i][k] * rows[j][m]
            if k != m:
                entry = (entry + rows[i][m] * rows[j][k]) * 0.5**0.5
            row.append(entry * 2.0**0.5 if i != j else entry)
        matrix.append(torch.stack(row, 1))
    return torch.stack(matrix, 1)


def check_orientations(
    orientations: Float[Tensor, "batch 4 *dims"], batch: int, space: tuple[int, ...]
) -> None:
    """Raise `DataError` unless there is one unit quaternion per voxel."""
    if tuple(orientations.shape) != (batch, 4, *space):
        raise DataError(
            f"orientations: expected unit quaternions (w, x, y, z) of shape {(batch, 4, *space)}, "
            f"got shape {tuple(orientations.shape)}"
        )
    miss = float((orientations.square().sum(1) - 1.0).abs().max())
    if not miss < 1e-4:
        raise DataError(
            f"orientations: expected unit quaternions, got a squared norm off by {miss:.3g}; "
            "divide them by their norm"
        )


def oriented(
    matrices: Float[Tensor, "phase 6 6"],
    phases: Shaped[Tensor, "batch *dims"],
    orientations: Float[Tensor, "batch 4 *space"] | None,
    keep: Sequence[int],
) -> Float[Tensor, "batch n n *space"]:
    """Return a field of the phases' matrices turned into sample axes, the kept rows and columns.

    Fractions mix by Voigt's rule.
    """
    entries = [
        torch.stack([phase_field(phases, matrices[:, i, j].tolist()) for j in range(6)], 1)
        for i in range(6)
    ]
    field = torch.stack(entries, 1)
    keep = list(keep)
    if orientations is None:
        return field[:, keep][:, :, keep]
    turn = mandel_rotation(orientations.to(torch.float64))[:, keep]
    half = torch.einsum("bik...,bkm...->bim...", turn, field)
    return torch.einsum("bim...,bjm...->bij...", half, turn)
