"""The sparse matrix of an operator that couples neighbouring voxels, read off by probing.

Unit values on voxels at least three apart have answers that do not overlap, so that each answer
belongs to the one unit value beside it (Curtis, Powell, Reid 1974, doi:10.1093/imamat/13.1.117).
"""

from itertools import product

import numpy as np
import torch
from jaxtyping import Int
from scipy import sparse
from torch import Tensor

from physics.mechanics.problem import Operator


def assembled(
    operator: Operator, batch: int, unknowns: int, shape: tuple[int, ...], device: torch.device
) -> sparse.csr_array:
    """Return the float64 matrix of an operator on `(batch, 1, unknowns, *shape)`, flattened.

    Samples are diagonal blocks. The operator must couple each voxel with those that touch it (of
    all components) and nothing else, on a periodic grid.
    """
    axes = [_seeds(n) for n in shape]
    field = torch.zeros(batch, 1, unknowns, *shape, dtype=torch.float64, device=device)
    rows, columns, values = [], [], []
    voxels = int(np.prod(shape))
    for colour in product(*[range(len(seeds)) for seeds in axes]):
        seeds = [seeds[k] for seeds, k in zip(axes, colour, strict=True)]
        seed = _voxel_of(seeds, shape)
        place = torch.as_tensor(seed == np.arange(voxels), device=device).view(shape)
        for component in range(unknowns):
            field.zero_()
            field[:, 0, component] = place.to(torch.float64)
            answer = _on_host(operator(field)).reshape(-1)
            at = np.flatnonzero(answer).astype(np.int32)
            target = at % voxels
            sample = at // (unknowns * voxels)
            rows.append(at)
            columns.append((sample * unknowns + component) * voxels + seed[target])
            values.append(answer[at])
    size = batch * unknowns * voxels
    entries = (np.concatenate(rows), np.concatenate(columns))
    return sparse.coo_array((np.concatenate(values), entries), shape=(size, size)).tocsr()


def _seeds(n: int) -> list[Int[np.ndarray, " n"]]:
    """Return, per colour of an axis, the voxel of that colour beside each voxel, -1 for none.

    Colours repeat every three voxels, or four where three do not fit.
    """
    runs = max(1, n // 3)
    starts = [n * i // runs for i in range(runs + 1)]
    colour = np.concatenate(
        [np.arange(b - a) for a, b in zip(starts[:-1], starts[1:], strict=True)]
    )
    found = []
    for k in range(int(colour.max()) + 1):
        seed = np.full(n, -1, dtype=np.int32)
        here = np.flatnonzero(colour == k)
        for step in (-1, 1, 0):
            seed[(here + step) % n] = here
        found.append(seed)
    return found


def _voxel_of(seeds: list[np.ndarray], shape: tuple[int, ...]) -> Int[np.ndarray, " voxels"]:
    """Return the flat index of the seed beside each voxel, -1 where an axis has none."""
    total = np.zeros((1,) * len(shape), dtype=np.int32)
    missing = np.zeros((1,) * len(shape), dtype=bool)
    for axis, (seed, n) in enumerate(zip(seeds, shape, strict=True)):
        view = [-1 if k == axis else 1 for k in range(len(shape))]
        total = total * n + seed.reshape(view)
        missing = missing | (seed.reshape(view) < 0)
    return np.where(missing, -1, total).reshape(-1).astype(np.int32)


def _on_host(field: Tensor) -> np.ndarray:
    return field.detach().to("cpu", torch.float64).contiguous().numpy()
