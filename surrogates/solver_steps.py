"""The first steps of the solver as descriptors: strain fields, and an interval for the answer."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from physics.mechanics.problem import CellProblem

RIDGE = 1e-9  # of the directions' energy: keeps cells of one phase, which have none, solvable


class MatrixInterval(NamedTuple):
    """Matrices `lower` <= `upper` in the Loewner order, and `root` with root root^T between them.

    `at` maps a share between 0 and I to the matrix at that place, `share` inverts it.
    """

    lower: Float[Tensor, "batch n n"]
    upper: Float[Tensor, "batch n n"]
    root: Float[Tensor, "batch n n"]

    @classmethod
    def between(
        cls, lower: Float[Tensor, "batch n n"], upper: Float[Tensor, "batch n n"]
    ) -> "MatrixInterval":
        """Return the interval; where it is empty its root is round-off (1e-6 of `upper`)."""
        n = upper.shape[-1]
        size = upper.diagonal(dim1=-2, dim2=-1).mean(-1)
        gap = _symmetric(upper - lower)
        # Near laminates single-precision strains leave the ends crossed by their round-off.
        crossed = -torch.linalg.eigvalsh(gap.detach())[:, 0].clamp_max(0.0)
        slack = (1e-6 * size + crossed).view(-1, 1, 1)
        unit = torch.eye(n, dtype=upper.dtype, device=upper.device)
        return cls(lower, upper, torch.linalg.cholesky(gap + slack * unit))

    def at(self, share: Float[Tensor, "batch n n"]) -> Float[Tensor, "batch n n"]:
        """Return lower + root share root^T."""
        return self.lower + self.root @ share.to(self.root) @ self.root.mT

    def share(self, matrix: Float[Tensor, "batch n n"]) -> Float[Tensor, "batch n n"]:
        """Return where a matrix lies between the ends, 0 to I."""
        half = torch.linalg.solve_triangular(
            self.root, matrix.to(self.root) - self.lower, upper=False
        )
        return torch.linalg.solve_triangular(self.root, half.mT, upper=False).mT


@dataclass(frozen=True)
class SolverSteps:
    """What a few steps of the solver say of cells, all unit loads at once.

    `voigt` and `reuss` bound the effective matrix by the phases' amounts alone. `interval` runs
    from Reuss's matrix to the least energy among combinations of the steps' strain fields, which
    is at most Voigt's: a rigorous bound (Rayleigh-Ritz; the first steps of block conjugate
    gradients reach the same energy), and exact to second order in the contrast after one step.
    """

    strain: Float[Tensor, "batch load component *space"]
    voigt: Float[Tensor, "batch n n"]
    reuss: Float[Tensor, "batch n n"]
    interval: MatrixInterval

    @classmethod
    def of(cls, problem: CellProblem, steps: int = 1) -> "SolverSteps":
        """Take steps from zero; differentiable in the moduli.

        Args:
            problem: Cells of isotropic voxels on a staggered grid.
            steps: At least 1; each costs one application of the reference's Green operator.
        """
        n = problem.components
        unit = torch.eye(n, device=problem.device).expand(problem.batch, n, n)
        loads = problem.spread(unit)
        green = problem.green(torch.float32)
        fields, strain = [loads], loads
        for _ in range(steps):
            force = problem.divergence(problem.stress(strain))
            fields.append(problem.gradient(green(force)))
            strain = strain + fields[-1]
        voigt, upper = _least_energy(problem, fields)
        flexibility = problem.mean_strain(problem.strain(problem.spread_stress(unit))).double()
        reuss = torch.linalg.inv(_symmetric(flexibility))
        interval = MatrixInterval.between(reuss, upper)
        return cls(strain - loads, voigt, reuss, interval)


def _least_energy(problem: CellProblem, fields: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return Voigt's matrix and the least energy over combinations of the later fields."""
    n = problem.components
    joined = torch.cat(fields, 1)
    gram = _symmetric(problem.energies(joined, problem.stress(joined)).double())
    voigt, mixed, own = gram[:, :n, :n], gram[:, n:, :n], gram[:, n:, n:]
    ridge = RIDGE * voigt.diagonal(dim1=1, dim2=2).mean(1).view(-1, 1, 1)
    own = own + ridge * torch.eye(own.shape[-1], dtype=own.dtype, device=own.device)
    return voigt, _symmetric(voigt - mixed.mT @ torch.linalg.solve(own, mixed))


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.mT) / 2
