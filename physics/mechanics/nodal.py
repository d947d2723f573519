"""Schemes with all unknowns at the voxels' corners: conforming elements and the rotated grid.

q1: bilinear or trilinear elements, one per voxel, integrated exactly at 2^d Gauss points. Their
displacement is continuous, so their energy is a guaranteed upper bound of the voxel geometry's
(Leute et al. 2022, doi:10.1016/j.jcp.2022.111151; Ladecky et al. 2023,
doi:10.1016/j.amc.2023.127835).

rotated: one point at the voxel's centre (Willot 2015, doi:10.1016/j.crme.2014.12.005), the same
elements under reduced integration; on even grids modes that alternate along two axes cost nothing.

Corner I of the grid is the lower corner of voxel I. Each scheme is given by its quadrature points
along one axis; a gradient along axis j is a difference along j and a mean along the others.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from physics.mechanics.green import GreenOperator
from physics.mechanics.grid import SHEAR_PAIRS, add_weighted, backward, forward
from physics.mechanics.laws import (
    ConductionLaw,
    IsotropicLaw,
    Law,
    isotropic_reference_stress,
    mean_isotropic,
)
from physics.mechanics.nodal_green import corner_conduction_green, corner_elastic_green
from physics.mechanics.nodal_stencil import NodalConductionStencil, NodalElasticStencil
from physics.mechanics.problem import CellProblem, LawOperator, Operator


@dataclass(frozen=True)
class CornerElement:
    """A scheme by its quadrature points along one axis, in voxels from the lower corner."""

    name: str
    offsets: tuple[float, ...]

    @property
    def variance(self) -> float:
        """<t^2> - <t>^2 of the offsets t."""
        return 0.25 - self.spread

    @property
    def spread(self) -> float:
        """<t> - <t^2> of the offsets t: a mean along an axis has |symbol|^2 = 1 - spread |k|^2."""
        n = len(self.offsets)
        return sum(self.offsets) / n - sum(t * t for t in self.offsets) / n

    def points(self, dim: int) -> tuple[int, ...]:
        """Return the axes of quadrature points that a field has."""
        return () if len(self.offsets) == 1 else (len(self.offsets) ** dim,)

    def partials(self, u: Float[Tensor, "*lead"], dim: int) -> list[Tensor]:
        """Return du/dx_j for each axis j, `(*lead, *points, *space)`, of corner values."""
        lead = u.shape[: u.ndim - dim]
        shape = (*lead, *self.points(dim), *u.shape[u.ndim - dim :])
        full = (*lead, *[len(self.offsets)] * dim, *u.shape[u.ndim - dim :])
        return [self._partial(u, j, dim).expand(full).reshape(shape) for j in range(dim)]

    def transposed(self, fields: list[Tensor], dim: int) -> Tensor:
        """Return the transpose of `partials`, summed over j, as a mean over the points."""
        space = fields[0].shape[fields[0].ndim - dim :]
        lead = fields[0].shape[: fields[0].ndim - dim - len(self.points(dim))]
        count = len(self.offsets)
        grids = [field.reshape(*lead, *[count] * dim, *space) for field in fields]
        total = self._transposed(grids[0], 0, dim)
        for j in range(1, dim):
            total = total + self._transposed(grids[j], j, dim)
        return total / count**dim

    def slopes(self, field: Float[Tensor, "batch *space"]) -> list[Tensor]:
        """Return minus the transposed `partials` of a field constant in each voxel, per axis."""
        dim = field.ndim - 1
        slopes = []
        for j in range(dim):
            slope = field
            for k in range(dim):
                below = slope.roll(1, k - dim)
                slope = slope - below if k == j else 0.5 * (slope + below)
            slopes.append(slope)
        return slopes

    def _partial(self, u: Tensor, j: int, dim: int) -> Tensor:
        """Return du/dx_j with one axis of points per axis of space, of length 1 along j."""
        lead = u.ndim - dim
        for k in range(dim):
            axis = k - dim
            if k == j:
                parts = [forward(u, axis)]
            else:
                step = forward(u, axis)
                parts = [u + t * step for t in self.offsets]
            u = torch.stack(parts, lead + k)
        return u

    def _transposed(self, field: Tensor, j: int, dim: int) -> Tensor:
        lead = field.ndim - 2 * dim
        for k in reversed(range(dim)):
            axis, place = k - dim, lead + k
            if k == j:
                field = -backward(field.sum(place), axis)
                continue
            weights = torch.tensor(self.offsets, dtype=field.dtype, device=field.device)
            view = weights.view(-1, *[1] * (field.ndim - place - 1))
            field = field.sum(place) - backward((view * field).sum(place), axis)
        return field


Q1 = CornerElement("q1", (0.5 - 0.5 / 3.0**0.5, 0.5 + 0.5 / 3.0**0.5))
ROTATED = CornerElement("rotated", (0.5,))


class NodalProblem(CellProblem):
    """Base of the two problems on corner elements, which have `element` and `law`."""

    element: CornerElement
    law: Law

    @property
    def shape(self) -> tuple[int, ...]:
        return self.law.shape

    @property
    def points(self) -> tuple[int, ...]:
        return self.element.points(len(self.shape))

    def stress(self, strain: Tensor) -> Tensor:
        return self.law.stress(strain)

    def strain(self, stress: Tensor) -> Tensor:
        return self.law.strain(stress)

    @property
    def rigid_pieces(self) -> bool:
        return len(self.element.offsets) > 1

    def contrast(self) -> Float[Tensor, " batch"]:
        return self.law.contrast()

    def centred(self, field: Tensor) -> Tensor:
        return field.mean(3) if self.points else field


@dataclass(frozen=True)
class NodalElasticity(NodalProblem):
    """Elastic cells on corner elements; `ratio` is lame/shear of the reference material."""

    element: CornerElement
    law: Law
    ratio: float

    @property
    def unknowns(self) -> int:
        return len(self.shape)

    @property
    def components(self) -> int:
        return self.unknowns * (self.unknowns + 1) // 2

    def gradient(self, u: Tensor) -> Tensor:
        dim = self.unknowns
        partials = self.element.partials(u, dim)
        normal = [partials[i][:, :, i] for i in range(dim)]
        shear = [
            (partials[j][:, :, i] + partials[i][:, :, j]) * 0.5**0.5 for i, j in SHEAR_PAIRS[dim]
        ]
        return torch.stack(normal + shear, 2)

    def divergence(self, stress: Tensor) -> Tensor:
        dim = self.unknowns
        rows = [[stress[:, :, i]] * dim for i in range(dim)]
        for (i, j), tau in zip(SHEAR_PAIRS[dim], stress[:, :, dim:].unbind(2), strict=True):
            rows[i][j] = rows[j][i] = tau * 0.5**0.5
        return -torch.stack([self.element.transposed(row, dim) for row in rows], 2)

    def reference_stress(self, strain: Tensor) -> Tensor:
        return isotropic_reference_stress(strain, self.ratio, self.unknowns)

    def load_force(self, macro: Float[Tensor, "batch load n"]) -> Tensor:
        law, dim = self.law, self.unknowns
        if not (isinstance(law, IsotropicLaw) and law.shear.shape[1] == 1):
            return super().load_force(macro)
        force = macro.new_zeros(*macro.shape[:2], dim, *self.shape)
        trace = macro[:, :, :dim].sum(2)
        for i, slope in enumerate(self.element.slopes(law.lame)):
            add_weighted(trace, slope, force[:, :, i])
        slopes = self.element.slopes(law.shear[:, 0])
        for i, slope in enumerate(slopes):
            add_weighted(2.0 * macro[:, :, i], slope, force[:, :, i])
        for place, (i, j) in enumerate(SHEAR_PAIRS[dim], dim):
            weight = 2.0**0.5 * macro[:, :, place]
            add_weighted(weight, slopes[j], force[:, :, i])
            add_weighted(weight, slopes[i], force[:, :, j])
        return force

    def mean_law(self) -> Float[Tensor, "batch n n"]:
        if isinstance(self.law, IsotropicLaw):
            return mean_isotropic(self.law.lame, self.law.shear)
        return super().mean_law()

    def operator(self, loads: int, dtype: torch.dtype) -> Operator:
        law = self.law
        if not (isinstance(law, IsotropicLaw) and law.shear.shape[1] == 1):
            return LawOperator(self._map(lambda field: field.to(dtype)))
        moduli = [law.lame.to(dtype), law.shear[:, 0].to(dtype)]
        variance = self.element.variance
        return NodalElasticStencil(self.shape, self.unknowns, loads, moduli, variance)

    def green(self, dtype: torch.dtype) -> GreenOperator:
        return corner_elastic_green(self.element.spread, self.shape, self.ratio, dtype, self.device)


@dataclass(frozen=True)
class NodalConduction(NodalProblem):
    """Conducting cells on corner elements."""

    element: CornerElement
    law: Law

    @property
    def unknowns(self) -> int:
        return 1

    @property
    def components(self) -> int:
        return len(self.shape)

    def gradient(self, u: Tensor) -> Tensor:
        return torch.cat(self.element.partials(u, self.components), 2)

    def divergence(self, stress: Tensor) -> Tensor:
        parts = [field.unsqueeze(2) for field in stress.unbind(2)]
        return -self.element.transposed(parts, self.components)

    def reference_stress(self, strain: Tensor) -> Tensor:
        return strain

    def load_force(self, macro: Float[Tensor, "batch load n"]) -> Tensor:
        law = self.law
        if not isinstance(law, ConductionLaw):
            return super().load_force(macro)
        force = macro.new_zeros(*macro.shape[:2], 1, *self.shape)
        fields = law.conductivity.unbind(1) * (self.components // law.conductivity.shape[1])
        for j, k in enumerate(fields):
            add_weighted(macro[:, :, j], self.element.slopes(k)[j], force[:, :, 0])
        return force

    def operator(self, loads: int, dtype: torch.dtype) -> Operator:
        law = self.law
        if not isinstance(law, ConductionLaw):
            return LawOperator(self._map(lambda field: field.to(dtype)))
        moduli = list(law.conductivity.to(dtype).unbind(1))
        return NodalConductionStencil(self.shape, 1, loads, moduli, self.element.variance)

    def green(self, dtype: torch.dtype) -> GreenOperator:
        return corner_conduction_green(self.element.spread, self.shape, dtype, self.device)
