"""Least energies of cells under uniform loads, by conjugate gradients, for any residual a bound."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from physics.mechanics.iterations import GROUP_VALUES
from physics.mechanics.krylov import conjugate_gradients
from physics.mechanics.problem import Operator

ROUND_OFF = 1e-12
"""A residual this small against the uniform field's own stress is zero."""


@runtime_checkable
class QuadraticCells(Protocol):
    """Cells whose energy is quadratic in periodic unknowns."""

    def operator(self, loads: int, dtype: torch.dtype) -> Operator:
        """Return unknowns -> half the derivative of their energy, times the voxels."""
        ...

    def green(self, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """Return the inverse of the operator in a homogeneous reference material."""
        ...


@dataclass(frozen=True)
class LeastEnergy:
    """Energy matrices of the loads, never below the least ones, and how they were reached."""

    energy: Float[Tensor, "batch load load"]
    iterations: Int[Tensor, "batch load"]
    residual: Float[Tensor, "batch load"]


def least_energy(
    cells: QuadraticCells,
    force: Float[Tensor, "batch load c *space"],
    uniform: Float[Tensor, "batch load load"],
    *,
    tolerance: Float[Tensor, " batch"],
    max_iterations: int,
    dtype: torch.dtype,
) -> LeastEnergy:
    """Return the energies of uniform fields plus the best found of periodic unknowns.

    `force` is what the uniform fields leave, minus half the energy's derivative times the voxels,
    `uniform` their energies V. With unknowns sum_m a_m u_m, u_m the solutions of all loads, the
    energy of load l is V - 2 a.g + a.H a, least over a: so it never exceeds V, in the Loewner
    order. Evaluated in float64 for whatever u_m the iterations end with.
    """
    loads, size, voxels = force.shape[1], force[0, 0].numel(), force[0, 0, 0].numel()
    green = cells.green(torch.float64)
    start = _norm(green, force)
    floor = ROUND_OFF * voxels**0.5 * uniform.diagonal(dim1=1, dim2=2)
    target = torch.maximum(tolerance.unsqueeze(1) * start, floor)
    group = max(1, GROUP_VALUES // size) if force.device.type == "cpu" else loads
    runs = []
    for first in range(0, loads, group):
        part = slice(first, first + group)
        runs.append(_solve(cells, force[:, part], target[:, part], max_iterations, dtype))
    u, image, counts, left = (torch.cat(parts, 1) for parts in zip(*runs, strict=True))
    g = u.flatten(2) @ force.flatten(2).mT / voxels
    h = _symmetric(u.flatten(2) @ image.flatten(2).mT) / voxels
    a = torch.linalg.pinv(h, hermitian=True) @ g
    energy = uniform - g.mT @ a - a.mT @ g + a.mT @ h @ a
    return LeastEnergy(_symmetric(energy), counts, left / torch.maximum(start, floor))


def _solve(
    cells: QuadraticCells, force: Tensor, target: Tensor, max_iterations: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the unknowns, the operator's image of them, iterations, and the residual's norm."""
    operator = cells.operator(force.shape[1], dtype)
    u, counts = conjugate_gradients(
        operator,
        cells.green(dtype),
        force.to(dtype, copy=True),
        target=target.to(dtype),
        max_iterations=max_iterations,
    )
    u = u.to(torch.float64)
    if dtype is not torch.float64:
        operator = cells.operator(force.shape[1], torch.float64)
    image = operator(u).clone()
    return u, image, counts, _norm(cells.green(torch.float64), force - image)


def _norm(green: Callable[[Tensor], Tensor], force: Tensor) -> Float[Tensor, "batch load"]:
    square = torch.linalg.vecdot(force.flatten(2), green(force).flatten(2))
    return square.clamp_min(0.0).sqrt()


def _symmetric(matrix: Tensor) -> Tensor:
    return 0.5 * (matrix + matrix.mT)
