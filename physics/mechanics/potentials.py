"""Periodic potentials of equilibrated fluxes and stresses on the staggered grid.

A flux without sources is the curl of a vector potential (in 2-D of a stream function), a stress in
equilibrium the double curl of Beltrami's six functions (in 2-D of Airy's). The potentials are
tensor-product B-splines with knots on the voxels' faces. Their degree along an axis is one (in
conduction) or two (in elasticity) less the number of their indices equal to it; each derivative
lowers it by one and turns coefficients into differences. Coefficients lie at voxel centres along
axes of even degree, at lower corners along those of odd degree.
"""

from functools import lru_cache
from itertools import product
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor

from physics.mechanics.green import GreenOperator
from physics.mechanics.grid import SHEAR_PAIRS
from physics.mechanics.shift_graph import ShiftGraph, Term
from physics.mechanics.shift_program import ShiftProgram


def component_indices(dim: int, order: int) -> list[tuple[int, ...]]:
    """Return the axes of each flux or stress component: (i,), or (i, i) then the shear pairs."""
    normal = [(i,) * order for i in range(dim)]
    return normal + (list(SHEAR_PAIRS[dim]) if order == 2 else [])


def potential_indices(dim: int, order: int) -> list[tuple[int, ...]]:
    return component_indices(3, order) if dim == 3 else [(2,) * order]


def _degree(index: tuple[int, ...], axis: int) -> int:
    """Return the spline degree of a potential along an axis."""
    return len(index) - index.count(axis)


@lru_cache(maxsize=8)
def _curl(dim: int, order: int) -> list[dict[tuple[int, tuple[int, ...]], int]]:
    """Return, per component, {(potential, axes of its derivatives): factor}.

    q_i = e_ijk d_j A_k, or sigma_ij = e_ikl e_jmn d_k d_m Phi_ln (Beltrami 1892; in 2-D Airy 1863).
    """
    potentials = potential_indices(dim, order)
    rows = []
    for index in component_indices(dim, order):
        row: dict[tuple[int, tuple[int, ...]], int] = {}
        for axes in product(range(dim), repeat=order):
            for other in product(range(3), repeat=order):
                sign = prod(_levi_civita(*each) for each in zip(index, axes, other, strict=True))
                if sign:
                    place = next(p for p, q in enumerate(potentials) if sorted(q) == sorted(other))
                    key = (place, tuple(sorted(axes)))
                    row[key] = row.get(key, 0) + sign
        rows.append(row)
    return rows


def _levi_civita(i: int, j: int, k: int) -> int:
    return (i - j) * (j - k) * (k - i) // 2


def curl_coefficients(graph: ShiftGraph, dim: int, order: int) -> dict[int, Term]:
    """Return the curl's coefficients; a shear component is sqrt(2) sigma_ij."""
    potentials = potential_indices(dim, order)
    found = {}
    for c, row in enumerate(_curl(dim, order)):
        terms = []
        for (place, axes), factor in row.items():
            term = graph.input(place)
            degrees = [_degree(potentials[place], axis) for axis in range(dim)]
            for axis in axes:
                # Even degrees have their coefficients at voxel centres, odd ones at lower corners.
                term = graph.difference(term, axis, ahead=degrees[axis] % 2 == 1)
                degrees[axis] -= 1
            terms.append(term.times(float(factor)))
        total = graph.total(terms)
        found[c] = total if c < dim else total.times(2.0**0.5)
    return found


def stress_coefficients(
    potentials: Float[Tensor, "batch load c *space"], order: int
) -> Float[Tensor, "batch load n *space"]:
    """Return the spline coefficients of the potentials' curl: flux (order 1) or Mandel stress."""
    dim = potentials.ndim - 3
    graph = ShiftGraph(dim, potentials.shape[2])
    terms = list(curl_coefficients(graph, dim, order).values())
    loads = potentials.shape[1]
    program = ShiftProgram(
        graph, terms, [], tuple(potentials.shape[3:]), loads=loads, like=potentials
    )
    return program(potentials)


@lru_cache(maxsize=8)
def potential_green(
    shape: tuple[int, ...], order: int, ratio: float, dtype: torch.dtype, device: torch.device
) -> GreenOperator:
    """Return the pseudo-inverse, per frequency, of curl^T S0 curl.

    S0 is the compliance of an isotropic material of lame/shear `ratio`; in conduction `ratio` does
    not matter. Potentials without a curl are given an energy of their own, which makes the
    matrices regular and changes nothing else.
    """
    dim = len(shape)
    half = _half_angles(shape, device)
    k = [2.0 * torch.sin(angle) for angle in half]
    curl = _curl_symbol(k, order)
    matrix = curl.mT @ _spline_energy(k, order, ratio) @ curl
    if dim == 3:
        gauge = _gauge(k, order)
        square = (k[0] ** 2 + k[1] ** 2 + k[2] ** 2) ** (order - 1)
        matrix = matrix + gauge @ gauge.mT * square[..., None, None]
    mean = (0,) * dim
    matrix[mean] = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=device)
    inverse = torch.linalg.inv(matrix)
    inverse[mean] = 0.0
    symbol = inverse.movedim((-2, -1), (0, 1)).contiguous()
    if len(symbol) == 1:
        return GreenOperator(symbol.to(dtype), shape)
    # The matrices are real for fields that are read where their coefficients lie.
    places = torch.stack(
        [
            _total([h for a, h in enumerate(half) if _degree(q, a) % 2], symbol[0, 0])
            for q in potential_indices(dim, order)
        ]
    )
    symbol = (
        torch.polar(torch.ones_like(symbol), places.unsqueeze(0) - places.unsqueeze(1)) * symbol
    )
    return GreenOperator(
        symbol.to(torch.complex64 if dtype is torch.float32 else torch.complex128), shape
    )


def _half_angles(shape: tuple[int, ...], device: torch.device) -> list[Tensor]:
    """Return half the angle per voxel of the rfft's modes, one broadcastable entry per axis."""
    dim = len(shape)
    angles = []
    for axis, n in enumerate(shape):
        count = n // 2 + 1 if axis == dim - 1 else n
        modes = torch.arange(count, dtype=torch.float64, device=device)
        angles.append((torch.pi / n * modes).view([-1 if a == axis else 1 for a in range(dim)]))
    return angles


def _curl_symbol(k: list[Tensor], order: int) -> Float[Tensor, "*frequency n c"]:
    dim = len(k)
    entries = {
        (c, p): [
            f * prod((k[a] for a in axes[1:]), start=k[axes[0]])
            for (q, axes), f in row.items()
            if q == p
        ]
        for c, row in enumerate(_curl(dim, order))
        for p in range(len(potential_indices(dim, order)))
    }
    return _matrix(entries, k)


def _spline_energy(k: list[Tensor], order: int, ratio: float) -> Float[Tensor, "*frequency n n"]:
    """Return the energies of the components' B-splines in the reference material.

    Along an axis: linear 1 - k^2 / 6, quadratic 1 - k^2 / 4 + k^4 / 120, and two quadratic ones
    that are constant along each other's axis meet in their means, 1 - k^2 / 6 each.
    """
    dim = len(k)
    linear = [1.0 - entry**2 / 6.0 for entry in k]
    coupling = -ratio / (dim * ratio + 2.0)
    entries: dict[tuple[int, int], list[Tensor]] = {}
    for c, index in enumerate(component_indices(dim, order)):
        if order == 1:
            entries[c, c] = [linear[c]]
        elif c >= dim:
            entries[c, c] = [2.0 * linear[index[0]] * linear[index[1]]]
        else:
            for d in range(dim):
                entries[c, d] = [coupling * linear[c] * linear[d]]
            entries[c, c] = [(1.0 + coupling) * (1.0 - k[c] ** 2 / 4.0 + k[c] ** 4 / 120.0)]
    return _matrix(entries, k)


def _gauge(k: list[Tensor], order: int) -> Float[Tensor, "*frequency c gauge"]:
    """Return the potentials without a curl: gradients, or symmetric gradients of a vector."""
    entries: dict[tuple[int, int], list[Tensor]] = {}
    for p, index in enumerate(potential_indices(3, order)):
        if order == 1:
            entries[p, 0] = [k[p]]
            continue
        i, j = index
        for v in {i, j}:
            entries[p, v] = [0.5 * k[other] for at, other in ((i, j), (j, i)) if at == v]
    return _matrix(entries, k)


def _matrix(
    entries: dict[tuple[int, int], list[Tensor]], k: list[Tensor]
) -> Float[Tensor, "*frequency row column"]:
    """Return sums of terms that broadcast over the frequencies as a matrix for each."""
    grid = torch.broadcast_shapes(*(entry.shape for entry in k))
    rows, columns = (1 + max(place[side] for place in entries) for side in (0, 1))
    matrix = torch.zeros(*grid, rows, columns, dtype=torch.float64, device=k[0].device)
    for (row, column), terms in entries.items():
        for term in terms:
            matrix[..., row, column] += term
    return matrix


def _total(terms: list[Tensor], like: Tensor) -> Tensor:
    total = torch.zeros_like(like)
    for term in terms:
        total = total + term
    return total
