"""Anisotropic voxels on the staggered grid.

There the components of a strain live at different points, so an anisotropic law cannot act on
them directly. Each voxel's stiffness is split into its largest isotropic part, which the staggered
grid treats as ever, and a positive semi-definite rest, which acts on the strain at the voxel's
centre (edge values averaged). Both are energies of the same displacement: the scheme is symmetric,
has no hourglass modes, and is the plain staggered scheme where all voxels are isotropic. A field
holds both: n components on the grid, then n at the centres.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from physics.mechanics.green import GreenOperator
from physics.mechanics.laws import AnisotropicLaw
from physics.mechanics.problem import CellProblem, LawOperator, Operator
from physics.mechanics.staggered import StaggeredElasticity, mandel_at_centres, mandel_at_edges


@dataclass(frozen=True)
class StaggeredCrystals(CellProblem):
    """Cells of anisotropic voxels: the isotropic part as in `StaggeredElasticity`, and the rest."""

    lame: Float[Tensor, "batch *space"]
    shear: Float[Tensor, "batch n *space"]
    ratio: float
    rest: AnisotropicLaw

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.lame.shape[1:])

    @property
    def unknowns(self) -> int:
        return len(self.shape)

    @property
    def components(self) -> int:
        return self.shear.shape[1]

    @property
    def _grid(self) -> StaggeredElasticity:
        return StaggeredElasticity(self.lame, self.shear, self.ratio)

    def gradient(self, u: Tensor) -> Tensor:
        strain = self._grid.gradient(u)
        return torch.cat((strain, mandel_at_centres(strain)), 2)

    def stress(self, strain: Tensor) -> Tensor:
        n = self.components
        return torch.cat(
            (self._grid.stress(strain[:, :, :n]), self.rest.stress(strain[:, :, n:])), 2
        )

    def strain(self, stress: Tensor) -> Tensor:
        n = self.components
        return torch.cat(
            (self._grid.strain(stress[:, :, :n]), self.rest.strain(stress[:, :, n:])), 2
        )

    def divergence(self, stress: Tensor) -> Tensor:
        n = self.components
        return self._grid.divergence(stress[:, :, :n] + mandel_at_edges(stress[:, :, n:]))

    def reference_stress(self, strain: Tensor) -> Tensor:
        n = self.components
        own = self._grid.reference_stress(strain[:, :, :n])
        return torch.cat((own, torch.zeros_like(own)), 2)

    def green(self, dtype: torch.dtype) -> GreenOperator:
        return self._grid.green(dtype)

    def operator(self, loads: int, dtype: torch.dtype) -> Operator:
        return LawOperator(self._map(lambda field: field.to(dtype)))

    @property
    def couplings(self) -> int:
        return self.unknowns * 5 ** len(self.shape)

    def contrast(self) -> Float[Tensor, " batch"]:
        return self._grid.contrast()

    def spread(self, uniform: Float[Tensor, "batch load n"]) -> Tensor:
        return super().spread(torch.cat((uniform, uniform), 2))

    def spread_stress(self, uniform: Float[Tensor, "batch load n"]) -> Tensor:
        return super().spread(torch.cat((uniform, torch.zeros_like(uniform)), 2))

    def voxel_stress(
        self, stress: Float[Tensor, "batch n *space"]
    ) -> Float[Tensor, "batch 1 field *space"]:
        return torch.cat((torch.zeros_like(stress), stress), 1).unsqueeze(1)

    def mean(self, stress: Tensor) -> Float[Tensor, "batch load n"]:
        means = super().mean(stress)
        return means[:, :, : self.components] + means[:, :, self.components :]

    def mean_strain(self, strain: Tensor) -> Float[Tensor, "batch load n"]:
        return super().mean_strain(strain[:, :, : self.components])

    def centred(self, field: Tensor) -> Tensor:
        return field[:, :, self.components :]

    def centred_stress(self, stress: Tensor) -> Tensor:
        n = self.components
        return mandel_at_centres(stress[:, :, :n]) + stress[:, :, n:]
