"""Isotropic phases, and the moduli fields that labels or phase fractions make of them."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from microstructures import DataError


class IsotropicElastic(BaseModel):
    """A linear elastic isotropic phase; Young's modulus 0 is a pore.

    `poisson_ratio` lies in (-1, 0.5). In 2-D every stiffness is plane strain.

    Example:
        >>> IsotropicElastic(youngs_modulus_gpa=210.0, poisson_ratio=0.3).shear
        80.76923076923076
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    youngs_modulus_gpa: float = Field(ge=0.0, description="Young's modulus in GPa, 0 = pore")
    poisson_ratio: float = Field(default=0.3, gt=-1.0, lt=0.5, description="Poisson's ratio")

    def __init__(self, **settings: float | int) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as fault:
            first = fault.errors()[0]
            name = ".".join(str(part) for part in first["loc"]) or "material"
            raise DataError(
                f"IsotropicElastic: {name}: {first['msg']}, got {first['input']!r}; "
                "give youngs_modulus_gpa >= 0 and -1 < poisson_ratio < 0.5"
            ) from None

    @property
    def shear(self) -> float:
        """Shear modulus G = E / (2 (1 + nu)) in GPa."""
        return self.youngs_modulus_gpa / (2.0 * (1.0 + self.poisson_ratio))

    @property
    def lame(self) -> float:
        """First Lame constant E nu / ((1 + nu) (1 - 2 nu)) in GPa."""
        nu = self.poisson_ratio
        return self.youngs_modulus_gpa * nu / ((1.0 + nu) * (1.0 - 2.0 * nu))

    @property
    def bulk(self) -> float:
        """Bulk modulus K = E / (3 (1 - 2 nu)) in GPa (the three-dimensional one)."""
        return self.youngs_modulus_gpa / (3.0 * (1.0 - 2.0 * self.poisson_ratio))

    def stiffness(self, dim: int) -> Float[Tensor, "n n"]:
        """Return the Mandel stiffness matrix in GPa, `(3, 3)` plane strain or `(6, 6)`."""
        return isotropic_stiffness(self.lame, self.shear, dim)

    def crystal_stiffness(self) -> Float[Tensor, "6 6"]:
        """Return the `(6, 6)` Mandel stiffness in GPa: the same in all axes."""
        return self.stiffness(3)


def isotropic_stiffness(lame: float, shear: float, dim: int) -> Float[Tensor, "n n"]:
    """Return lame 1 x 1 + 2 shear I as a Mandel matrix for 2-D (plane strain) or 3-D."""
    if dim not in (2, 3):
        raise DataError(f"dim must be 2 or 3, got {dim!r}")
    n = dim * (dim + 1) // 2
    stiffness = 2.0 * shear * torch.eye(n, dtype=torch.float64)
    stiffness[:dim, :dim] += lame
    return stiffness


def check_phases(phases: Shaped[Tensor, "batch *dims"], n_phases: int) -> tuple[int, ...]:
    """Return the spatial shape of labels `(batch, *space)` or fractions `(batch, phase, *space)`.

    Raises:
        DataError: wrong rank, a single-voxel axis, unknown label, negative or non-finite
            fraction, or fractions that do not add up to one.
    """
    soft = phases.is_floating_point()
    space = tuple(phases.shape[2 if soft else 1 :])
    if len(space) not in (2, 3) or min(phases.shape) < 1:
        kind = "fractions (batch, phase, *space)" if soft else "labels (batch, *space)"
        raise DataError(
            f"phases: expected {kind} on a 2-D or 3-D grid, got shape {tuple(phases.shape)}; "
            "labels are integers, fractions are floats"
        )
    if min(space) < 2:
        raise DataError(
            f"phases: expected at least 2 voxels along every axis, got {space}; leave the axis out "
            "(a 2-D cell is plane strain) or repeat the voxels along it"
        )
    if soft:
        _check_fractions(phases, n_phases)
    else:
        low, high = int(phases.min()), int(phases.max())
        if low < 0 or high >= n_phases:
            raise DataError(
                f"phases: expected labels 0..{n_phases - 1} for {n_phases} materials, got labels "
                f"{low}..{high}; give one material per label"
            )
    return space


def _check_fractions(phases: Tensor, n_phases: int) -> None:
    if phases.shape[1] != n_phases:
        raise DataError(
            f"phases: expected {n_phases} fractions, one per material, got {phases.shape[1]} in "
            f"shape {tuple(phases.shape)}"
        )
    values = phases.detach()
    miss = float((values.sum(1) - 1.0).abs().max())
    lowest = float(values.min())
    if not (math.isfinite(miss) and miss < 1e-3 and lowest > -1e-6):
        raise DataError(
            f"phases: fractions must be at least 0 and add up to 1 in every voxel, got lowest "
            f"{lowest:g} and a sum off by {miss:g}; normalise them (a softmax does)"
        )


def phase_field(
    phases: Shaped[Tensor, "batch *dims"], values: Sequence[float | int]
) -> Float[Tensor, "batch *space"]:
    """Return the float64 field of a modulus: one value per label, or Voigt's mean of fractions."""
    table = torch.tensor(values, dtype=torch.float64, device=phases.device)
    if phases.is_floating_point():
        return torch.einsum("bp...,p->b...", phases.to(torch.float64), table)
    return table[phases.long()]
