"""Linear laws of voxels: stress from strain and back, on any number of points per voxel.

Fields are `(batch, load, component, *points, *space)`; a law's tensors have the samples first and
the voxels last, and are the same at all points of a voxel.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor


class Law(ABC):
    """A symmetric, positive semi-definite law; subclasses are frozen dataclasses of tensors."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Voxels along each axis."""

    @abstractmethod
    def stress(self, strain: Tensor) -> Tensor:
        """Return the stress (or flux) of a strain (or gradient)."""

    @abstractmethod
    def strain(self, stress: Tensor) -> Tensor:
        """Return the inverse law; infinite values are kept finite."""

    @abstractmethod
    def contrast(self) -> Float[Tensor, " batch"]:
        """Return the stiffest over the softest voxel of each sample: infinite with pores."""

    @abstractmethod
    def to(self, dtype: torch.dtype) -> "Law":
        """Return the law in another precision."""

    def tensors(self) -> list[Tensor]:
        """Return the law's tensors, samples first."""
        return [getattr(self, entry.name) for entry in fields(self)]  # type: ignore

    def map(self, change: Callable[[Tensor], Tensor]) -> "Law":
        """Return the law with every tensor changed."""
        return type(self)(*[change(tensor) for tensor in self.tensors()])


@dataclass(frozen=True)
class IsotropicLaw(Law):
    """lame tr(eps) 1 + 2 G eps; `shear` has one component, or one per strain component."""

    lame: Float[Tensor, "batch *space"]
    shear: Float[Tensor, "batch c *space"]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.lame.shape[1:])

    def stress(self, strain: Tensor) -> Tensor:
        dim = len(self.shape)
        pressure = _spread(self.lame.unsqueeze(1), strain) * strain[:, :, :dim].sum(2, keepdim=True)
        stress = 2.0 * _spread(self.shear, strain) * strain
        return torch.cat((stress[:, :, :dim] + pressure, stress[:, :, dim:]), 2)

    def strain(self, stress: Tensor) -> Tensor:
        dim = len(self.shape)
        tiny = torch.finfo(self.shear.dtype).tiny
        total = (dim * self.lame + 2.0 * self.shear[:, 0]).clamp_min(tiny)
        share = _spread((self.lame / total).unsqueeze(1), stress)
        share = share * stress[:, :, :dim].sum(2, keepdim=True)
        deviation = torch.cat((stress[:, :, :dim] - share, stress[:, :, dim:]), 2)
        return deviation / (2.0 * _spread(self.shear, stress)).clamp_min(tiny)

    def contrast(self) -> Float[Tensor, " batch"]:
        shear = self.shear[:, 0]
        return torch.maximum(_spread_of(shear), _spread_of(self.lame + 2.0 * shear))

    def to(self, dtype: torch.dtype) -> "IsotropicLaw":
        return IsotropicLaw(self.lame.to(dtype), self.shear.to(dtype))


@dataclass(frozen=True)
class ConductionLaw(Law):
    """k grad T; `conductivity` has one component, or one per gradient component."""

    conductivity: Float[Tensor, "batch c *space"]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.conductivity.shape[2:])

    def stress(self, strain: Tensor) -> Tensor:
        return _spread(self.conductivity, strain) * strain

    def strain(self, stress: Tensor) -> Tensor:
        tiny = torch.finfo(self.conductivity.dtype).tiny
        return stress / _spread(self.conductivity, stress).clamp_min(tiny)

    def contrast(self) -> Float[Tensor, " batch"]:
        return _spread_of(self.conductivity)

    def to(self, dtype: torch.dtype) -> "ConductionLaw":
        return ConductionLaw(self.conductivity.to(dtype))


@dataclass(frozen=True)
class AnisotropicLaw(Law):
    """C : eps with a Mandel matrix per voxel (n^2 numbers: 75 MB for 64^3 in 3-D)."""

    stiffness: Float[Tensor, "batch n n *space"]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.stiffness.shape[3:])

    def stress(self, strain: Tensor) -> Tensor:
        return _applied(self.stiffness, strain)

    def strain(self, stress: Tensor) -> Tensor:
        return _applied(_pseudo_inverse(self.stiffness), stress)

    def contrast(self) -> Float[Tensor, " batch"]:
        return _spread_of(self.stiffness.diagonal(dim1=1, dim2=2).sum(-1))

    def to(self, dtype: torch.dtype) -> "AnisotropicLaw":
        return AnisotropicLaw(self.stiffness.to(dtype))


def mean_isotropic(
    lame: Float[Tensor, "batch *space"], shear: Float[Tensor, "batch c *space"]
) -> Float[Tensor, "batch n n"]:
    """Return the mean of lame 1 x 1 + 2 G I; G has one component, or one per strain component."""
    dim = lame.ndim - 1
    n = dim * (dim + 1) // 2
    matrix = torch.diag_embed((2.0 * shear.flatten(2).mean(2)).expand(-1, n))
    matrix[:, :dim, :dim] += lame.flatten(1).mean(1).view(-1, 1, 1)
    return matrix


def isotropic_reference_stress(strain: Tensor, ratio: float, dim: int) -> Tensor:
    """Return ratio tr(eps) 1 + 2 eps: the stress in a material of shear modulus 1."""
    pressure = ratio * strain[:, :, :dim].sum(2, keepdim=True)
    return torch.cat((2.0 * strain[:, :, :dim] + pressure, 2.0 * strain[:, :, dim:]), 2)


def _spread_of(moduli: Float[Tensor, "batch *field"]) -> Float[Tensor, " batch"]:
    """Return the largest over the smallest value of each sample, infinite where that is 0."""
    low, high = moduli.flatten(1).aminmax(dim=1)
    return torch.where(low > 0.0, high / low, torch.inf)


def _spread(values: Float[Tensor, "batch c *space"], field: Tensor) -> Tensor:
    """Return `(batch, c, *space)` as `(batch, 1, c, *1, *space)`, to meet a field with points."""
    points = field.ndim - values.ndim - 1
    return values[(slice(None), None, slice(None), *[None] * points)]


def _applied(matrix: Float[Tensor, "batch n n *space"], field: Tensor) -> Tensor:
    """Return the matrix-vector products per point; row by row, as elementwise products."""
    columns = field.unbind(2)
    rows = []
    for row in matrix.unbind(1):
        total = torch.zeros_like(columns[0])
        for j, column in enumerate(columns):
            entry = row[:, j]
            view = (slice(None), *[None] * (column.ndim - entry.ndim))
            total = torch.addcmul(total, entry[view], column)
        rows.append(total)
    return torch.stack(rows, 2)


def _pseudo_inverse(matrix: Float[Tensor, "batch n n *space"]) -> Tensor:
    """Return the pseudo-inverse per voxel; directions of round-off stiffness count as empty."""
    values, vectors = torch.linalg.eigh(matrix.movedim((1, 2), (-2, -1)))
    floor = 1e-10 * values.amax()
    inverse = torch.where(values > floor, 1.0 / values.clamp_min(floor), 0.0)
    return ((vectors * inverse.unsqueeze(-2)) @ vectors.mT).movedim((-2, -1), (1, 2))
