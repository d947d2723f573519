"""Which effective property a surrogate learns: its local moduli and its cell problem."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from microstructures import DataError
from physics.mechanics.materials import IsotropicElastic
from physics.mechanics.problem import CellProblem
from physics.mechanics.staggered import FaceConduction, StaggeredElasticity

Name = Literal["stiffness", "conductivity"]
REFERENCE_RATIO = 2.0  # lame / shear of the elastic reference: Poisson's ratio 1/3


@dataclass(frozen=True)
class MaterialRange:
    """From which each cell's materials are drawn.

    Young's moduli (or conductivities) of phases 1, 2, ... over that of phase 0 are log-uniform in
    `contrast`, or its reciprocal with probability 1/2; Poisson's ratios are uniform.
    """

    contrast: tuple[float, float]
    poisson_ratio: tuple[float, float]

    def relative(
        self, u: Float[Tensor, "cell 3 phase"]
    ) -> tuple[Float[Tensor, "cell phase"], Float[Tensor, "cell phase"]]:
        """Return moduli relative to phase 0, and Poisson's ratios, of uniform numbers."""
        low, high = self.contrast
        ratio = low * (high / low) ** u[:, 0]
        modulus = torch.where(u[:, 1] < 0.5, ratio, 1 / ratio)
        modulus[:, 0] = 1.0
        nu_low, nu_high = self.poisson_ratio
        return modulus, nu_low + (nu_high - nu_low) * u[:, 2]


@runtime_checkable
class Quantity(Protocol):
    """An effective matrix of isotropic phases, and how one voxel enters it.

    Local moduli are positive and `(batch, modulus, *space)`; the last is the one that cells are
    scaled by.
    """

    name: ClassVar[Name]
    unit: ClassVar[str]
    moduli: ClassVar[int]

    def components(self, dim: int) -> int:
        """Return the order of the effective matrix."""
        ...

    def phase_moduli(self, materials: Sequence, dim: int) -> Float[Tensor, "modulus phase"]:
        """Return the moduli of materials, one per phase.

        Raises:
            DataError: They are no materials of this quantity.
        """
        ...

    def drawn(
        self, u: Float[Tensor, "cell 3 phase"], materials: MaterialRange, dim: int
    ) -> Float[Tensor, "cell modulus phase"]:
        """Return moduli drawn from a range, by uniform numbers; those of phase 0 are about 1."""
        ...

    def problem(self, moduli: Float[Tensor, "batch modulus *space"]) -> CellProblem:
        """Return the staggered cell problem of local moduli."""
        ...


class Stiffness:
    """Effective stiffness: local moduli are the bulk modulus (2-D: plane strain) and shear."""

    name: ClassVar[Name] = "stiffness"
    unit: ClassVar[str] = "GPa"
    moduli: ClassVar[int] = 2

    def components(self, dim: int) -> int:
        """Return the order of the Mandel matrix."""
        return dim * (dim + 1) // 2

    def phase_moduli(self, materials: Sequence, dim: int) -> Float[Tensor, "modulus phase"]:
        """Return bulk and shear moduli in GPa, `(2, phase)`."""
        strange = [m for m in materials if not isinstance(m, IsotropicElastic)]
        if strange:
            raise DataError(f"expected one IsotropicElastic per phase, got {strange[0]!r}")
        lame = torch.tensor([m.lame for m in materials], dtype=torch.float64)
        shear = torch.tensor([m.shear for m in materials], dtype=torch.float64)
        return torch.stack([lame + 2 / dim * shear, shear])

    def drawn(
        self, u: Float[Tensor, "cell 3 phase"], materials: MaterialRange, dim: int
    ) -> Float[Tensor, "cell 2 phase"]:
        """Return bulk and shear moduli, Young's modulus of phase 0 being 1."""
        youngs, nu = materials.relative(u)
        lame, shear = youngs * nu / ((1 + nu) * (1 - 2 * nu)), youngs / (2 * (1 + nu))
        return torch.stack([lame + 2 / dim * shear, shear], 1)

    def problem(self, moduli: Float[Tensor, "batch 2 *space"]) -> CellProblem:
        """Return the staggered elastic problem."""
        bulk, shear = moduli.unbind(1)
        lame = bulk - 2 / (moduli.ndim - 2) * shear
        return StaggeredElasticity.of_voxels(lame, shear, REFERENCE_RATIO)


class Conductivity:
    """Effective conductivity, thermal or electrical; equally diffusivity or permittivity."""

    name: ClassVar[Name] = "conductivity"
    unit: ClassVar[str] = "the unit of the phases' conductivities"
    moduli: ClassVar[int] = 1

    def components(self, dim: int) -> int:
        """Return the number of axes."""
        return dim

    def phase_moduli(self, materials: Sequence, dim: int) -> Float[Tensor, "modulus phase"]:
        """Return the conductivities, `(1, phase)`."""
        if not all(isinstance(k, (int, float)) and math.isfinite(k) and k >= 0 for k in materials):
            raise DataError(
                f"expected one conductivity of at least 0 per phase, got {list(materials)!r}"
            )
        return torch.tensor([list(materials)], dtype=torch.float64)

    def drawn(
        self, u: Float[Tensor, "cell 3 phase"], materials: MaterialRange, dim: int
    ) -> Float[Tensor, "cell 1 phase"]:
        """Return conductivities, that of phase 0 being 1."""
        return materials.relative(u)[0].unsqueeze(1)

    def problem(self, moduli: Float[Tensor, "batch 1 *space"]) -> CellProblem:
        """Return the finite-volume conduction problem."""
        return FaceConduction.of_voxels(moduli[:, 0])


def quantity_named(name: Name) -> Quantity:
    """Return the quantity of a name, as saved models hold it."""
    match name:
        case "stiffness":
            return Stiffness()
        case "conductivity":
            return Conductivity()


def local_moduli(
    phases: Tensor, values: Float[Tensor, "#batch modulus phase"]
) -> Float[Tensor, "batch modulus *space"]:
    """Return the moduli of every voxel of labels `(batch, *space)` or fractions, by Voigt's rule.

    `values` may have a batch of 1 for materials that all cells share.
    """
    if phases.is_floating_point():
        return torch.einsum("bp...,bmp->bm...", phases, values.to(phases))
    count = values.shape[1]
    labels = phases.flatten(1).long().unsqueeze(1).expand(-1, count, -1)
    spread = values.expand(len(phases), -1, -1).gather(2, labels)
    return spread.unflatten(2, phases.shape[1:])


def scaled(
    moduli: Float[Tensor, "batch modulus *space"],
) -> tuple[Float[Tensor, "batch modulus *space"], Float[Tensor, " batch"]]:
    """Return moduli in units of the middle of the last one, and that unit per cell.

    The middle between the least and the greatest is where steps with a homogeneous reference
    contract fastest (Moulinec, Suquet 1998).
    """
    last = moduli[:, -1].flatten(1)
    unit = (last.amin(1) + last.amax(1)) / 2
    return moduli / unit.view(-1, *[1] * (moduli.ndim - 1)), unit
