"""Green operators of a homogeneous reference on corner elements.

A gradient along axis j is a difference along j and a mean along the others, so the symbols are
products of one factor per axis. `spread` is <t> - <t^2> of the quadrature points t along one axis:
a mean there has the squared symbol 1 - spread |k|^2, k that of the difference.
"""

from functools import lru_cache
from math import prod

import torch
from torch import Tensor

from physics.mechanics.green import GreenOperator, symmetric_green


@lru_cache(maxsize=8)
def corner_elastic_green(
    spread: float,
    shape: tuple[int, ...],
    ratio: float,
    dtype: torch.dtype,
    device: torch.device,
) -> GreenOperator:
    """Return the inverse of A_im = d_im sum_j P_jj + (1 + ratio) P_im, P the mean of b_i* b_m."""
    dim = len(shape)
    products = _products(spread, shape, device)
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
def corner_conduction_green(
    spread: float, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> GreenOperator:
    """Return the inverse of sum_j P_jj, P the mean of b_i* b_j over the points."""
    products = _products(spread, shape, device)
    grid = torch.broadcast_shapes(*(p.shape for p in products.values()))
    laplacian = sum((products[j, j] for j in range(len(shape))), torch.zeros(grid, device=device))
    return symmetric_green(laplacian[None, None], laplacian, shape, dtype)


def _products(
    spread: float, shape: tuple[int, ...], device: torch.device
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
        mean = 1.0 - spread * squares[-1]
        means.append(torch.where(mean.abs() < 1e-15, 0.0, mean))
    products = {}
    for i in range(dim):
        for j in range(i, dim):
            own = squares[i] if i == j else sines[i] * sines[j]
            products[i, j] = own * prod((means[k] for k in range(dim) if k not in (i, j)), start=1)
    return products
