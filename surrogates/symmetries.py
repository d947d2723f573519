"""Shifts, mirrors and exchanged axes: cells and their effective matrices turned together."""

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from physics.mechanics.grid import SHEAR_PAIRS
from surrogates.quantities import Quantity


def augmented(
    phases: UInt8[Tensor, "batch *space"],
    effective: Float[Tensor, "batch n n"],
    *,
    quantity: Quantity,
    generator: torch.Generator,
) -> tuple[UInt8[Tensor, "batch *space"], Float[Tensor, "batch n n"]]:
    """Shift, mirror and exchange axes at random, each cell on its own, its matrix with it."""
    dim = phases.ndim - 1
    cubic = len(set(phases.shape[1:])) == 1
    cells, matrices = [], []
    for cell, matrix in zip(phases, effective, strict=True):
        u = torch.rand(2 * dim, generator=generator).tolist()
        order = torch.randperm(dim, generator=generator) if cubic else torch.arange(dim)
        shifts = [int(u[axis] * cell.shape[axis]) for axis in range(dim)]
        cell = cell.roll(shifts, tuple(range(dim)))
        mirrored = [axis for axis in range(dim) if u[dim + axis] < 0.5]
        cell = cell.flip(mirrored).permute(order.tolist())
        turn = turned(order, mirrored, tensors=quantity.components(dim) > dim).to(matrix)
        cells.append(cell)
        matrices.append(turn @ matrix @ turn.mT)
    return torch.stack(cells), torch.stack(matrices)


def turned(
    order: Int[Tensor, " dim"], mirrored: list[int], *, tensors: bool
) -> Float[Tensor, "n n"]:
    """Return the matrix of mirroring some axes, then taking axes in another order.

    It acts on symmetric tensors in Mandel notation, or on vectors. New axis k is old axis
    `order[k]`, as in `Tensor.permute`.
    """
    dim = len(order)
    sign = [-1.0 if axis in mirrored else 1.0 for axis in range(dim)]
    if not tensors:
        return torch.diag(torch.tensor(sign))[order]
    pairs = [(i, i) for i in range(dim)] + list(SHEAR_PAIRS[dim])
    turn = torch.zeros(len(pairs), len(pairs))
    for row, (i, j) in enumerate(pairs):
        old = sorted((int(order[i]), int(order[j])))
        turn[row, pairs.index((old[0], old[1]))] = sign[old[0]] * sign[old[1]]
    return turn
