"""The sparse matrix of u -> -div C grad u, from the gradient's answer to single unknowns."""

from math import prod

import numpy as np
import torch
from jaxtyping import Float
from scipy import sparse
from torch import Tensor

from physics.mechanics.problem import CellProblem

REACH = 2
"""Voxels around an unknown beyond which its gradient is surely zero."""

Offset = tuple[int, ...]


def assembled(problem: CellProblem) -> sparse.csr_array:
    """Return the float64 matrix on unknowns `(batch, unknowns, *shape)`, flattened.

    With W the gradient at voxel J + d of one unknown at J, entries are sums over voxels q of
    W(q - I) : C(q) : W(q - J). Samples are diagonal blocks. The law must be the same at all
    quadrature points of a voxel, as the laws of this package are.
    """
    shapes = _impulses(problem)
    law = _law(problem, next(iter(shapes[0].values())).shape[1])
    entries = _stencil(law, shapes)
    batch, space = problem.batch, problem.shape
    voxels = np.arange(prod(space), dtype=np.int32).reshape(space)
    axes = tuple(range(len(space)))
    columns, values, counts = [], [], []
    ahead = {o: np.roll(voxels, [-s for s in o], axes).reshape(-1) for _, _, o in entries}
    for sample in range(batch):
        for i in range(problem.unknowns):
            own = [(j, o) for (first, j, o) in entries if first == i]
            starts = [(sample * problem.unknowns + j) * voxels.size for j, _ in own]
            parts = [ahead[o] + start for (_, o), start in zip(own, starts, strict=True)]
            columns.append(np.stack(parts, 1).reshape(-1))
            fields = [entries[i, j, o][sample].reshape(-1) for j, o in own]
            values.append(torch.stack(fields, 1).reshape(-1).cpu().numpy())
            counts.append(np.full(voxels.size, len(own), dtype=np.int32))
    pointer = np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int32)
    size = batch * problem.unknowns * voxels.size
    matrix = sparse.csr_array(
        (np.concatenate(values), np.concatenate(columns), pointer), shape=(size, size)
    )
    if min(space) < 4 * REACH + 1:
        matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def _law(
    problem: CellProblem, components: int
) -> dict[tuple[int, int], Float[Tensor, "batch *space"]]:
    """Return the entries C_kl of the law that are not zero everywhere."""
    found = {}
    rest = (*problem.points, *problem.shape)
    for k in range(components):
        strain = torch.zeros(components, dtype=torch.float64, device=problem.device)
        strain[k] = 1.0
        strain = strain.view(1, 1, -1, *[1] * len(rest))
        stress = problem.stress(strain.expand(problem.batch, 1, components, *rest))[:, 0]
        for _ in problem.points:
            stress = stress.select(2, 0)
        for m in range(components):
            if k == m or bool(stress[:, m].any()):
                found[m, k] = stress[:, m].clone()
    return found


def _impulses(problem: CellProblem) -> list[dict[Offset, Float[Tensor, "points n"]]]:
    """Return, per component of the unknown, its gradient at each voxel beside a unit value."""
    dim, c = len(problem.shape), problem.unknowns
    side = 2 * REACH + 1
    middle = (side // 2,) * dim
    unit = torch.zeros(1, c, c, *[side] * dim, dtype=torch.float64, device=problem.device)
    for i in range(c):
        unit[(0, i, i, *middle)] = 1.0
    gradient = problem.gradient(unit)[0].reshape(c, -1, prod(problem.points), *[side] * dim)
    found = []
    for answer in gradient:
        voxels = torch.nonzero(answer.abs().sum((0, 1))).tolist()
        found.append(
            {
                tuple(q - m for q, m in zip(voxel, middle, strict=True)): answer[
                    (slice(None), slice(None), *voxel)
                ].T
                for voxel in voxels
            }
        )
    return found


def _stencil(
    law: dict[tuple[int, int], Tensor], shapes: list[dict[Offset, Tensor]]
) -> dict[tuple[int, int, Offset], Float[Tensor, "batch *space"]]:
    """Return the entries (i, I), (j, I + o) as fields over I, by i, j and o."""
    entries: dict[tuple[int, int, Offset], Tensor] = {}
    for i, own in enumerate(shapes):
        for d, left in own.items():
            for (k, m), stiffness in law.items():
                if not bool(left[:, k].any()):
                    continue
                here = stiffness.roll([-s for s in d], list(range(1, stiffness.ndim)))
                for j, others in enumerate(shapes):
                    for e, right in others.items():
                        weight = float((left[:, k] * right[:, m]).mean())
                        if abs(weight) < 1e-14:
                            continue
                        key = (i, j, tuple(a - b for a, b in zip(d, e, strict=True)))
                        if key in entries:
                            entries[key].add_(here, alpha=weight)
                        else:
                            entries[key] = weight * here
    return entries
