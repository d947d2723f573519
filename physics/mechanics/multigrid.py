"""A multigrid cycle as preconditioner, for contrasts and pores that defeat the Green operator.

With the Green operator the count of iterations grows with every thin bridge, narrow gap and
sliding voxel. Here the smoother works on the cell's own operator, and the coarse levels are its
Galerkin products on pieces of material (see `pieces`), so that the count depends little on the
contrast. Levels are set up on the host in float64 and applied in float32.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy import sparse
from scipy.sparse.linalg import SuperLU, splu
from torch import Tensor

from physics.mechanics.assembly import assembled
from physics.mechanics.pieces import coarsened, voxel_unknowns
from physics.mechanics.problem import CellProblem, Operator

FIRST_BLOCK = 4
"""Voxels along the side of the first level's blocks; each further level doubles it."""

DIRECT_ENTRIES = 300_000
"""Entries of a matrix that is factorised instead of coarsened."""

FINE_STEPS, COARSE_STEPS = 3, 4
"""Chebyshev steps before and after each coarse correction, on voxels and on pieces."""

POWER_STEPS = 12
SHIFT = 1e-8
"""Part of the diagonal added before the factorisation: floating islands have no stiffness."""


@dataclass(frozen=True)
class Smoother:
    """Chebyshev's polynomial in the Jacobi-scaled operator, for the upper end of its spectrum.

    `inverse` is 1 / diagonal over the largest eigenvalue; it damps what lies above `low`.
    """

    inverse: Tensor
    steps: int

    @property
    def low(self) -> float:
        return 0.45 / self.steps**2

    def __call__(
        self, operator: Callable[[Tensor], Tensor], r: Tensor, *, close: bool = True
    ) -> Tensor:
        """Return x, about A^-1 r; r becomes r - A x (but for x's last step if not `close`)."""
        middle, half = 0.5 * (1.0 + self.low), 0.5 * (1.0 - self.low)
        ratio = half / middle
        move = (self.inverse * r).mul_(1.0 / middle)
        total = move.clone()
        for _ in range(self.steps - 1):
            r.sub_(operator(move))
            ratio, before = 1.0 / (2.0 * middle / half - ratio), ratio
            move.mul_(ratio * before).addcmul_(self.inverse, r, value=2.0 * ratio / half)
            total.add_(move)
        if close:
            r.sub_(operator(move))
        return total


@dataclass(frozen=True)
class Transfer:
    """Sparse maps between the unknowns of a level and those of the next coarser one."""

    down: Tensor
    up: Tensor


@dataclass(frozen=True)
class Level:
    """A coarse matrix with its smoother, and the way to the next level."""

    matrix: Tensor
    smoother: Smoother
    transfer: Transfer

    def __call__(self, field: Float[Tensor, "unknown load"]) -> Float[Tensor, "unknown load"]:
        return torch.mm(self.matrix, field)


@dataclass(frozen=True)
class CoarseLevels:
    """The levels below the voxels, of all samples together, down to a factorised one."""

    levels: list[Level]
    bottom: SuperLU

    def __call__(
        self, r: Float[Tensor, "unknown load"], depth: int = 0
    ) -> Float[Tensor, "unknown load"]:
        """Return about A^-1 r; r is overwritten."""
        if depth == len(self.levels):
            solved = self.bottom.solve(r.to("cpu", torch.float64).numpy())
            return torch.from_numpy(solved).to(r)
        level = self.levels[depth]
        move = level.smoother(level, r)
        step = torch.mm(level.transfer.up, self(torch.mm(level.transfer.down, r), depth + 1))
        r.sub_(level(step))
        return move.add_(step).add_(level.smoother(level, r, close=False))


class Multigrid:
    """One symmetric V-cycle, r -> about A^-1 r, on residuals `(batch, load, c, *space)`.

    The voxels are smoothed `group` loads at a time, the coarse levels all loads together. These
    hold all `samples`; `active` says which of them the fields have.
    """

    def __init__(
        self,
        operator: Operator,
        smoother: Smoother,
        transfer: Transfer,
        coarse: CoarseLevels,
        *,
        group: int,
        samples: int,
        active: Tensor,
    ) -> None:
        self._operator, self._smoother = operator, smoother
        self._transfer, self._coarse = transfer, coarse
        self._group, self._samples, self._active = group, samples, active
        self._result = torch.empty(0)

    def __call__(
        self, r: Float[Tensor, "batch load c *space"], /
    ) -> Float[Tensor, "batch load c *space"]:
        """Return the cycle's answer in a buffer that the next call overwrites."""
        if self._result.shape != r.shape:
            self._result = torch.empty_like(r)
        operator, smoother, transfer = self._operator, self._smoother, self._transfer
        parts = [part.to(torch.float32, copy=True) for part in r.split(self._group, 1)]
        moves = [smoother(operator, part) for part in parts]
        pieces = torch.mm(transfer.down, torch.cat([self._flat(part) for part in parts], 1))
        changes = torch.mm(transfer.up, self._coarse(pieces)).split(self._group, 1)
        targets = self._result.split(self._group, 1)
        for part, move, change, target in zip(parts, moves, changes, targets, strict=True):
            step = self._field(change, part)
            part.sub_(operator(step))
            move.add_(step).add_(smoother(operator, part, close=False))
            target.copy_(move)
        return self._result

    def select(self, keep: Tensor, /) -> "Multigrid":
        """Return the cycle of some of the samples."""
        return Multigrid(
            self._operator.select(keep),
            Smoother(self._smoother.inverse[keep], self._smoother.steps),
            self._transfer,
            self._coarse,
            group=self._group,
            samples=self._samples,
            active=self._active[keep],
        )

    def _flat(self, field: Float[Tensor, "batch load c *space"]) -> Float[Tensor, "unknown load"]:
        if len(self._active) < self._samples:
            whole = field.new_zeros(self._samples, *field.shape[1:])
            whole[self._active] = field
            field = whole
        return field.movedim(1, -1).reshape(-1, field.shape[1])

    def _field(self, flat: Float[Tensor, "unknown load"], like: Tensor) -> Tensor:
        field = flat.unflatten(0, (self._samples, *like.shape[2:])).movedim(-1, 1)
        if len(self._active) < self._samples:
            field = field[self._active]
        return field.contiguous()


def multigrid(problem: CellProblem, *, group: int) -> Multigrid:
    """Return the V-cycle of a batch of cells, for fields of which it takes `group` loads at a time.

    Memory: about 40 bytes while it is set up, and 5 afterwards, per entry of the finest matrix,
    which has some 9 (staggered) or 18 (q1) a displacement in 2-D, 15 or 81 in 3-D.
    """
    shape, device = problem.shape, problem.device
    batch, c = problem.batch, problem.unknowns
    matrix = assembled(problem)
    unknowns = voxel_unknowns(batch, c, shape)
    inverse = _scaled_jacobi(matrix, unknowns.sample).view(batch, 1, c, *shape).to(device)
    blocks = tuple(max(1, n // FIRST_BLOCK) for n in shape)
    prolongation, matrix, unknowns = coarsened(matrix, unknowns, blocks, shape)
    transfer = _transfer(prolongation, device)
    levels = []
    while matrix.nnz > DIRECT_ENTRIES and max(blocks) > 1:
        inverses = _scaled_jacobi(matrix, unknowns.sample).unsqueeze(1).to(device)
        fine = _tensor(matrix, device)
        blocks = tuple(max(1, n // 2) for n in blocks)
        prolongation, matrix, unknowns = coarsened(matrix, unknowns, blocks, shape)
        smoother = Smoother(inverses, COARSE_STEPS)
        levels.append(Level(fine, smoother, _transfer(prolongation, device)))
    return Multigrid(
        problem.operator(group, torch.float32),
        Smoother(inverse, FINE_STEPS),
        transfer,
        CoarseLevels(levels, _factorised(matrix)),
        group=group,
        samples=batch,
        active=torch.arange(batch, device=device),
    )


def _scaled_jacobi(matrix: sparse.csr_array, sample: np.ndarray) -> Float[Tensor, " unknown"]:
    """Return 1 / (diagonal * largest eigenvalue of the Jacobi-scaled matrix, by sample)."""
    diagonal = matrix.diagonal()
    inverse = np.where(diagonal > 0.0, 1.0 / np.where(diagonal > 0.0, diagonal, 1.0), 0.0)
    vector = np.random.default_rng(0).standard_normal(len(diagonal))
    count = int(sample.max()) + 1
    tiny = np.finfo(float).tiny
    largest = np.ones(count)
    for _ in range(POWER_STEPS):
        before = np.sqrt(np.bincount(sample, vector * vector, count))
        vector = inverse * (matrix @ vector)
        after = np.sqrt(np.bincount(sample, vector * vector, count))
        largest = after / np.maximum(before, tiny)
        vector /= np.maximum(after, tiny)[sample]
    scale = np.where(largest > 0.0, 1.1 * largest, 1.0)
    return torch.from_numpy((inverse / scale[sample]).astype(np.float32))


def _factorised(matrix: sparse.csr_array) -> SuperLU:
    shifted = matrix + sparse.diags_array(SHIFT * matrix.diagonal())
    return splu(
        sparse.csc_matrix(shifted),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )


def _transfer(prolongation: sparse.csr_array, device: torch.device) -> Transfer:
    return Transfer(_tensor(prolongation.T.tocsr(), device), _tensor(prolongation, device))


def _tensor(matrix: sparse.csr_array, device: torch.device) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")
        return torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr.astype(np.int32)),
            torch.from_numpy(matrix.indices.astype(np.int32)),
            torch.from_numpy(matrix.data.astype(np.float32)),
            size=matrix.shape,
            device=device,
        )
