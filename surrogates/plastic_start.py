"""The cheap strains that a path surrogate starts from, and a stress field's imbalance."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from physics.mechanics.equilibrium import MixedSystem
from physics.mechanics.krylov import conjugate_gradients
from physics.mechanics.laws import IsotropicLaw, Law
from physics.mechanics.nodal import ROTATED, NodalElasticity
from surrogates.plastic_return import in_plane_basis, von_mises_of, whole_coordinates

REFERENCE_RATIO = 1.5  # lame / shear: Poisson's ratio 0.3


def cell_problem(moduli: Float[Tensor, "batch modulus *space"]) -> NodalElasticity:
    """Return the elastic problem of cells on the grid of `solve_plasticity`'s default scheme."""
    bulk, shear = moduli[:, 0], moduli[:, 1]
    return NodalElasticity(
        ROTATED, IsotropicLaw(bulk - 2 / 3 * shear, shear.unsqueeze(1)), REFERENCE_RATIO
    )


@dataclass(frozen=True)
class SecantStart:
    """How a net's start is solved: iterations of each linear problem, and secant sweeps."""

    iterations: int
    sweeps: int

    @torch.no_grad()
    def strains(
        self,
        moduli: Float[Tensor, "batch 4 *space"],
        target: Float[Tensor, "batch n"],
        driven: Bool[Tensor, " n"],
    ) -> tuple[Float[Tensor, "batch n *space"], Float[Tensor, "batch n *space"]]:
        """Return the strains at multiplier 1 of cells that do not yield, and of secant cells.

        The latter are elastic cells whose shear moduli are those of Hencky's theory at their own
        strain, found by repetition (Ilyushin 1946): what loading in one go would give. Each sweep
        takes a few conjugate-gradient iterations from the one before.

        Args:
            moduli: Float32, of `PlasticCells`.
            target: Mean strains where driven; mean stresses, zero, elsewhere.
            driven: The same for all cells.
        """
        mean = (target * driven).to(moduli).unsqueeze(1)
        dim = moduli.ndim - 2
        still = mean.new_zeros(len(mean), 1, dim, *moduli.shape[2:])
        elastic, moved, mean = _solved(moduli, driven, still, mean, self.iterations)
        secant = elastic
        for _ in range(self.sweeps):
            softened = torch.cat([moduli[:, :1], secant_shear(moduli, secant).unsqueeze(1)], 1)
            secant, moved, mean = _solved(softened, driven, moved, mean, self.iterations)
        return elastic, secant


def secant_shear(
    moduli: Float[Tensor, "batch 4 *space"], strain: Float[Tensor, "batch n *space"]
) -> Float[Tensor, "batch *space"]:
    """Return q / (3 e) at the equivalent strain e, q by the law as if loaded in one go."""
    dim = moduli.ndim - 2
    _, shear, first, hardening = moduli.unbind(1)
    coordinates = torch.einsum("cn,bn...->bc...", in_plane_basis(dim).to(strain), strain)
    whole = whole_coordinates(coordinates, strain[:, :dim].sum(1))
    tripled = 2 * von_mises_of(whole, 1)
    q = (first + hardening / 3 * tripled) / (1 + hardening / (3 * shear))
    return torch.minimum(shear, q / tripled)


def _solved(
    moduli: Tensor, driven: Tensor, moved: Tensor, mean: Tensor, iterations: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return strain, displacement and mean strain after iterations from the latter two."""
    problem = cell_problem(moduli)
    system = MixedSystem(problem, driven, moduli.dtype)
    nothing = torch.zeros_like(mean)
    step, _ = conjugate_gradients(
        ElasticOperator(system, problem.law),
        system.precondition,
        system.force(problem.stress(system.strain(moved, mean)), nothing),
        target=mean.new_zeros(len(mean), 1),
        max_iterations=iterations,
    )
    further, strained = system.unpack(step)
    moved, mean = moved + further, mean + strained
    return system.strain(moved, mean)[:, 0], moved, mean


class ElasticOperator:
    """A packed step of displacement and mean strain to the force and mean stress it takes."""

    def __init__(self, system: MixedSystem, law: Law) -> None:
        self._system, self._law = system, law

    def __call__(self, field: Tensor, /) -> Tensor:
        displacement, mean = self._system.unpack(field)
        stress = self._law.stress(self._system.strain(displacement, mean))
        return -self._system.force(stress, torch.zeros_like(mean))

    def select(self, keep: Tensor, /) -> "ElasticOperator":
        """Return the operator of some of the samples."""
        return ElasticOperator(self._system, self._law.map(lambda field: field[keep]))


@torch.no_grad()
def imbalance(
    problem: NodalElasticity, stress: Float[Tensor, "batch step n *space"]
) -> Float[Tensor, "batch step"]:
    """Return the unbalanced part of stress fields, as `solve_plasticity` measures its residual.

    The stress that the reference material needs to carry the field's own forces, relative to the
    field, both in the energy norm of that material.
    """
    everything = torch.ones(problem.components, dtype=torch.bool, device=stress.device)
    system = MixedSystem(problem, everything, stress.dtype)
    force = problem.divergence(stress)
    moved = problem.green(stress.dtype)(force)
    norms = (force * moved).flatten(2).sum(2).clamp_min(0).sqrt()
    batch = len(stress)
    sizes = system.size(stress.flatten(0, 1).unsqueeze(1)).view(batch, -1)
    return norms / sizes.clamp_min(torch.finfo(stress.dtype).tiny)
