"""The two discrete problems: elasticity and conduction, on the points where each scheme works.

Elasticity (Schneider, Ospald, Kabel 2016, doi:10.1002/nme.5008): displacement i on the faces
normal to i, normal strains at voxel centres, shear strain ij on the edges parallel to the third
axis (in 2-D: on the corners). An edge carries the harmonic mean of the shear moduli of its four
voxels. That mean is exact for layers: across the layers 1/G averages, within them all four are
equal. It also keeps the mean of 1/G and so both Voigt's and Reuss's bound.

Conduction: temperature at centres, gradient on faces with the harmonic mean of both sides.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from physics.mechanics.green import GreenOperator, conduction_green, elastic_green
from physics.mechanics.grid import (
    SHEAR_PAIRS,
    add_weighted,
    backward,
    forward,
    harmonic_below,
    to_centres,
)
from physics.mechanics.laws import (
    ConductionLaw,
    IsotropicLaw,
    isotropic_reference_stress,
    mean_isotropic,
)
from physics.mechanics.problem import CellProblem
from physics.mechanics.stencil import ConductionStencil, ElasticStencil, HaloStencil


@dataclass(frozen=True)
class StaggeredElasticity(CellProblem):
    """Cells of isotropic voxels.

    `lame` is `(batch, *space)`; `shear` `(batch, n, *space)` holds the shear modulus at each
    strain component's point; `ratio` is lame/shear of the reference material.
    """

    lame: Float[Tensor, "batch *space"]
    shear: Float[Tensor, "batch n *space"]
    ratio: float

    @classmethod
    def of_voxels(
        cls,
        lame: Float[Tensor, "batch *space"],
        shear: Float[Tensor, "batch *space"],
        ratio: float,
    ) -> "StaggeredElasticity":
        """Return the problem of voxel-wise moduli in GPa."""
        dim = lame.ndim - 1
        below = {i: harmonic_below(shear, i - dim) for i in {i for i, _ in SHEAR_PAIRS[dim]}}
        edges = [harmonic_below(below[i], j - dim) for i, j in SHEAR_PAIRS[dim]]
        return cls(lame, torch.stack([shear] * dim + edges, 1), ratio)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.lame.shape[1:])

    @property
    def unknowns(self) -> int:
        return len(self.shape)

    @property
    def components(self) -> int:
        return self.shear.shape[1]

    def gradient(
        self, u: Float[Tensor, "batch load dim *space"]
    ) -> Float[Tensor, "batch load n *space"]:
        """Return the Mandel strain of a periodic displacement on the quadrature points."""
        return staggered_strain(u)

    def stress(
        self, strain: Float[Tensor, "batch load n *space"]
    ) -> Float[Tensor, "batch load n *space"]:
        """Return lame tr(strain) 1 + 2 G strain on the quadrature points, in GPa."""
        return IsotropicLaw(self.lame, self.shear).stress(strain)

    def strain(
        self, stress: Float[Tensor, "batch load n *space"]
    ) -> Float[Tensor, "batch load n *space"]:
        """Return the strain of a stress (the inverse law; infinite values are kept finite)."""
        return IsotropicLaw(self.lame, self.shear).strain(stress)

    def divergence(
        self, stress: Float[Tensor, "batch load n *space"]
    ) -> Float[Tensor, "batch load dim *space"]:
        """Return div stress on the faces; minus the transpose of `gradient`."""
        dim = self.unknowns
        force = [backward(stress[:, :, i], i - dim) for i in range(dim)]
        for pair, tau in zip(SHEAR_PAIRS[dim], stress[:, :, dim:].unbind(2), strict=True):
            scaled = tau * 0.5**0.5
            i, j = pair
            force[i] = force[i] + forward(scaled, j - dim)
            force[j] = force[j] + forward(scaled, i - dim)
        return torch.stack(force, 2)

    def reference_stress(
        self, strain: Float[Tensor, "batch load n *space"]
    ) -> Float[Tensor, "batch load n *space"]:
        """Return the stress in the reference material of shear modulus 1."""
        return isotropic_reference_stress(strain, self.ratio, self.unknowns)

    def green(self, dtype: torch.dtype) -> GreenOperator:
        """Return the reference material's Green operator."""
        return elastic_green(self.shape, self.ratio, dtype, self.lame.device)

    def load_force(self, macro: Float[Tensor, "batch load n"]) -> Tensor:
        """Return div C E of uniform strains E: differences of the moduli, weighted by E."""
        dim = self.unknowns
        force = macro.new_zeros(*macro.shape[:2], dim, *self.shape)
        trace = macro[:, :, :dim].sum(2)
        for i in range(dim):
            add_weighted(trace, backward(self.lame, i - dim), force[:, :, i])
            normal = backward(self.shear[:, i], i - dim)
            add_weighted(2.0 * macro[:, :, i], normal, force[:, :, i])
        for place, (i, j) in enumerate(SHEAR_PAIRS[dim], dim):
            weight, edge = 2.0**0.5 * macro[:, :, place], self.shear[:, place]
            add_weighted(weight, forward(edge, j - dim), force[:, :, i])
            add_weighted(weight, forward(edge, i - dim), force[:, :, j])
        return force

    def mean_law(self) -> Float[Tensor, "batch n n"]:
        """Return the volume mean of C in GPa: Voigt's matrix."""
        return mean_isotropic(self.lame, self.shear)

    def operator(self, loads: int, dtype: torch.dtype) -> HaloStencil:
        """Return the fast u -> -div C grad u for `loads` load cases per sample."""
        dim = self.unknowns
        shear = self.shear.to(dtype)
        moduli = [self.lame.to(dtype), 2.0 * shear[:, 0], *shear[:, dim:].unbind(1)]
        return ElasticStencil(self.shape, dim, loads, moduli)

    def voxel_stress(
        self, stress: Float[Tensor, "batch n *space"]
    ) -> Float[Tensor, "batch 1 n *space"]:
        """Return a stress given per voxel, its shear averaged to the edges."""
        return mandel_at_edges(stress.unsqueeze(1))

    def centred(self, field: Tensor) -> Tensor:
        """Return a field with its shear averaged from the edges to the voxel centres."""
        return mandel_at_centres(field)

    @property
    def couplings(self) -> int:
        """Both neighbours along each axis, and four displacements of each other component."""
        return 6 * self.unknowns - 3

    def contrast(self) -> Float[Tensor, " batch"]:
        """Return the ratio of moduli at the centres, infinite where a voxel carries no shear."""
        return IsotropicLaw(self.lame, self.shear).contrast()


@dataclass(frozen=True)
class FaceConduction(CellProblem):
    """Cells of isotropically conducting voxels; `faces` is `(batch, dim, *space)`."""

    faces: Float[Tensor, "batch dim *space"]

    @classmethod
    def of_voxels(cls, conductivity: Float[Tensor, "batch *space"]) -> "FaceConduction":
        """Return the problem of voxel-wise conductivities."""
        dim = conductivity.ndim - 1
        return cls(torch.stack([harmonic_below(conductivity, i - dim) for i in range(dim)], 1))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.faces.shape[2:])

    @property
    def unknowns(self) -> int:
        return 1

    @property
    def components(self) -> int:
        return self.faces.shape[1]

    def gradient(
        self, u: Float[Tensor, "batch load 1 *space"]
    ) -> Float[Tensor, "batch load dim *space"]:
        """Return the temperature gradient on the faces."""
        dim = self.components
        return torch.cat([backward(u, i - dim) for i in range(dim)], 2)

    def stress(
        self, strain: Float[Tensor, "batch load dim *space"]
    ) -> Float[Tensor, "batch load dim *space"]:
        """Return k grad T on the faces (minus the heat flux)."""
        return ConductionLaw(self.faces).stress(strain)

    def strain(
        self, stress: Float[Tensor, "batch load dim *space"]
    ) -> Float[Tensor, "batch load dim *space"]:
        """Return the inverse law (infinite values are kept finite)."""
        return ConductionLaw(self.faces).strain(stress)

    def divergence(
        self, stress: Float[Tensor, "batch load dim *space"]
    ) -> Float[Tensor, "batch load 1 *space"]:
        """Return div(k grad T) at the centres; minus the transpose of `gradient`."""
        dim = self.components
        total = forward(stress[:, :, 0], -dim)
        for i in range(1, dim):
            total = total + forward(stress[:, :, i], i - dim)
        return total.unsqueeze(2)

    def reference_stress(
        self, strain: Float[Tensor, "batch load dim *space"]
    ) -> Float[Tensor, "batch load dim *space"]:
        """Return the flux in the reference material of conductivity 1."""
        return strain

    def green(self, dtype: torch.dtype) -> GreenOperator:
        """Return the reference material's Green operator."""
        return conduction_green(self.shape, dtype, self.faces.device)

    def load_force(self, macro: Float[Tensor, "batch load dim"]) -> Tensor:
        """Return div k E of uniform gradients E: differences of the conductivities."""
        dim = self.components
        force = macro.new_zeros(*macro.shape[:2], 1, *self.shape)
        for i in range(dim):
            add_weighted(macro[:, :, i], forward(self.faces[:, i], i - dim), force[:, :, 0])
        return force

    def mean_law(self) -> Float[Tensor, "batch dim dim"]:
        """Return the volume mean of the faces' conductivities."""
        return torch.diag_embed(self.faces.flatten(2).mean(2))

    def operator(self, loads: int, dtype: torch.dtype) -> HaloStencil:
        """Return the fast u -> -div k grad u for `loads` load cases per sample."""
        return ConductionStencil(self.shape, 1, loads, list(self.faces.to(dtype).unbind(1)))

    @property
    def couplings(self) -> int:
        """Both neighbours along each axis."""
        return 2 * self.components + 1

    def contrast(self) -> Float[Tensor, " batch"]:
        """Return the ratio of conductivities of the faces."""
        return ConductionLaw(self.faces).contrast()


def staggered_strain(
    u: Float[Tensor, "batch load dim *space"],
) -> Float[Tensor, "batch load n *space"]:
    """Return the Mandel strain on the quadrature points: normal at centres, shear on edges."""
    dim = u.ndim - 3
    components = u.unbind(2)
    normal = [forward(components[i], i - dim) for i in range(dim)]
    shear = [
        (backward(components[i], j - dim) + backward(components[j], i - dim)) * 0.5**0.5
        for i, j in SHEAR_PAIRS[dim]
    ]
    return torch.stack(normal + shear, 2)


def mandel_at_centres(
    field: Float[Tensor, "batch load n *space"],
) -> Float[Tensor, "batch load n *space"]:
    """Return a Mandel field with its shear components averaged from the edges to the centres."""
    dim = field.ndim - 3
    shear = [
        to_centres(tau, i - dim, j - dim)
        for (i, j), tau in zip(SHEAR_PAIRS[dim], field[:, :, dim:].unbind(2), strict=True)
    ]
    return torch.cat((field[:, :, :dim], torch.stack(shear, 2)), 2)


def mandel_at_edges(
    field: Float[Tensor, "batch load n *space"],
) -> Float[Tensor, "batch load n *space"]:
    """Return a Mandel field with its shear averaged from the centres to the edges."""
    dim = field.ndim - 3
    shear = []
    for (i, j), tau in zip(SHEAR_PAIRS[dim], field[:, :, dim:].unbind(2), strict=True):
        for axis in (i - dim, j - dim):
            tau = 0.5 * (tau + tau.roll(1, axis))
        shear.append(tau)
    return torch.cat((field[:, :, :dim], torch.stack(shear, 2)), 2)
