"""Trial displacements of loaded cells: their force, and their fields when asked for."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from physics.mechanics.green import GreenOperator
from physics.mechanics.problem import CellProblem


@dataclass(frozen=True)
class Loading:
    """Load cases of some cells: uniform gradients E, less the stress that eigenstrains take off."""

    problem: CellProblem
    macro: Float[Tensor, "batch load n"]
    prestress: Float[Tensor, "batch 1 *field"] | None
    force: Float[Tensor, "batch load c *space"]
    """div(C : E - prestress)."""

    @classmethod
    def of(
        cls,
        problem: CellProblem,
        macro: Float[Tensor, "batch load n"],
        prestress: Float[Tensor, "batch 1 *field"] | None = None,
    ) -> "Loading":
        """Return the loading with its force."""
        force = problem.load_force(macro)
        if prestress is not None:
            force = force - problem.divergence(prestress)
        return cls(problem, macro, prestress, force)

    def cases(self, start: int, stop: int) -> "Loading":
        """Return some of the load cases."""
        macro, force = self.macro[:, start:stop], self.force[:, start:stop]
        return Loading(self.problem, macro, self.prestress, force)

    def scale(self) -> Float[Tensor, "batch load"]:
        """Return the size of the stress C : E, summed like a field over the voxels."""
        mean = torch.linalg.vector_norm(self.macro @ self.problem.mean_law(), dim=-1)
        return mean * self.problem.voxels**0.5


@dataclass(frozen=True)
class TrialState:
    """A trial displacement of some cells in float64, its force, and its fields when asked for."""

    loading: Loading
    displacement: Float[Tensor, "batch load c *space"]
    force: Float[Tensor, "batch load c *space"]
    """div stress."""
    residual_norm: Float[Tensor, "batch load"]

    @cached_property
    def strain(self) -> Float[Tensor, "batch load n *points"]:
        """E + grad u."""
        problem = self.loading.problem
        return problem.spread(self.loading.macro) + problem.gradient(self.displacement)

    @cached_property
    def stress(self) -> Float[Tensor, "batch load n *points"]:
        """C : strain - prestress."""
        stress, prestress = self.loading.problem.stress(self.strain), self.loading.prestress
        return stress if prestress is None else stress - prestress

    @cached_property
    def correction(self) -> Float[Tensor, "batch load c *space"]:
        """Green operator times the force: the next step of a fixed-point iteration."""
        return self.loading.problem.green(torch.float64)(self.force)


def trial_state(
    problem: CellProblem,
    macro: Float[Tensor, "batch load n"],
    displacement: Float[Tensor, "batch load c *space"],
) -> TrialState:
    """Return a trial displacement under macroscopic gradients with its force."""
    loading = Loading.of(problem, macro)
    force = loading.force - problem.operator(macro.shape[1], torch.float64)(displacement)
    _, norm = measured(problem.green(torch.float64), force)
    return TrialState(loading, displacement, force, norm)


def measured(green: GreenOperator, force: Tensor) -> tuple[Tensor, Float[Tensor, "batch load"]]:
    """Return G f in the precision of f, and sqrt(f . G f)."""
    correction = green(force)
    square = torch.linalg.vecdot(force.flatten(2), correction.flatten(2))
    return correction, square.clamp_min(0.0).sqrt().to(torch.float64)


def unit_loads(batch: int, n: int, device: torch.device) -> Float[Tensor, "batch n n"]:
    """Return the n unit macroscopic gradients for every sample."""
    return torch.eye(n, dtype=torch.float64, device=device).expand(batch, n, n)
