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
from functools import lru_cache
from math import prod

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from physics.mechanics.green import GreenOperator, symmetric_green
from physics.mechanics.grid import SHEAR_PAIRS, backward, forward
from physics.mechanics.laws import Law, isotropic_reference_stress
from physics.mechanics.problem import CellProblem, LawOperator, Operator


@dataclass(frozen=True)
class CornerElement:
    """A scheme by its quadrature points along one axis, in voxels from the lower corner."""

    name: str
    offsets: tuple[float, ...]

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

    def has_pores(self) -> Bool[Tensor, " batch"]:
        return self.law.pores()

    def centred(self, field: Tensor) -> Tensor:
        return field.mean(3) if self.points else field

    def operator(self, loads: int, dtype: torch.dtype) -> Operator:
        return LawOperator(self._map(lambda field: field.to(dtype)))


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

    def green(self, dtype: torch.dtype) -> GreenOperator:
        return _elastic_green(self.element, self.shape, self.ratio, dtype, self.device)


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

    def green(self, dtype: torch.dtype) -> GreenOperator:
        return _conduction_green(self.element, self.shape, dtype, self.device)


@lru_cache(maxsize=8)
def _elastic_green(
    element: CornerElement,
    shape: tuple[int, ...],
    ratio: float,
    dtype: torch.dtype,
    device: torch.device,
) -> GreenOperator:
    """Return the inverse of A_im = d_im sum_j P_jj + (1 + ratio) P_im, P the mean of b_i* b_m."""
    dim = len(shape)
    products = _products(element, shape, device)
    grid = torch.broadcast_shapes(*(p.shape for p in products.values()))
    laplacian = sum((products[j, j] for j in range(dim)), torch.zeros(grid, device=device))
    matrix = torch.stack(
        [
            torch.stack(
                [
                    ((1.0 + ratio) * products[min(i, m), max(i, m)]).expand(grid)
                    + (laplacian if i == m else 0.0)
                    for m in range(dim)
                ]
            )
            for i in range(dim)
        ]
    )
    return symmetric_green(matrix, laplacian, shape, dtype)


@lru_cache(maxsize=8)
def _conduction_green(
    element: CornerElement, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> GreenOperator:
    products = _products(element, shape, device)
    grid = torch.broadcast_shapes(*(p.shape for p in products.values()))
    laplacian = sum((products[j, j] for j in range(len(shape))), torch.zeros(grid, device=device))
    return symmetric_green(laplacian[None, None], laplacian, shape, dtype)


def _products(
    element: CornerElement, shape: tuple[int, ...], device: torch.device
) -> dict[tuple[int, int], Tensor]:
    """Return the means over points of b_i* b_j, i <= j, b the symbols of the partials: real."""
    dim = len(shape)
    sines, squares, means = [], [], []
    for axis, n in enumerate(shape):
        half = (
            torch.pi
            / n
            * torch.arange(n // 2 + 1 if axis == dim - 1 else n, dtype=torch.float64, device=device)
        )
        view = [-1 if k == axis else 1 for k in range(dim)]
        squares.append((4.0 * torch.sin(half) ** 2).view(view))
        # sin(pi) of the alternating mode is a round-off that would pass for a stiffness.
        sine = torch.where(2 * torch.round(half * n / torch.pi) == n, 0.0, torch.sin(2.0 * half))
        sines.append(sine.view(view))
        mean = 1.0 - element.spread * squares[-1]
        means.append(torch.where(mean.abs() < 1e-15, 0.0, mean))
    products = {}
    for i in range(dim):
        for j in range(i, dim):
            own = squares[i] if i == j else sines[i] * sines[j]
            products[i, j] = own * prod((means[k] for k in range(dim) if k not in (i, j)), start=1)
    return products
