"""The two discrete problems: elasticity and conduction, on the points where each scheme works.

Both follow one pattern: a periodic unknown u, a gradient on quadrature points with components
`(batch, load, n, *space)`, a pointwise law C there, and -div as the gradient's transpose. The
energy of a cell is the sum over quadrature points of gradient : C : gradient, per voxel.

Elasticity (Schneider, Ospald, Kabel 2016, doi:10.1002/nme.5008): displacement i on the faces
normal to i, normal strains at voxel centres, shear strain ij on the edges parallel to the third
axis (in 2-D: on the corners). An edge carries the harmonic mean of the shear moduli of its four
voxels. That mean is exact for layers: across the layers 1/G averages, within them all four are
equal. It also keeps the mean of 1/G and so both Voigt's and Reuss's bound.

Conduction: temperature at centres, gradient on faces with the harmonic mean of both sides.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from physics.mechanics.green import GreenOperator, conduction_green, elastic_green
from physics.mechanics.grid import SHEAR_PAIRS, backward, forward, harmonic_below, to_centres
from physics.mechanics.stencil import ConductionStencil, ElasticStencil, HaloStencil


class CellProblem(ABC):
    """A batch of periodic cells with a linear law on their quadrature points.

    Subclasses are frozen dataclasses whose tensors have the samples first.
    """

    shape: tuple[int, ...]
    unknowns: int
    components: int

    @abstractmethod
    def gradient(self, u: Tensor) -> Tensor:
        """Return grad u, `(batch, load, component, *space)`, of the periodic unknown."""

    @abstractmethod
    def stress(self, strain: Tensor) -> Tensor:
        """Return the law C : strain."""

    @abstractmethod
    def strain(self, stress: Tensor) -> Tensor:
        """Return the inverse law; infinite values are kept finite."""

    @abstractmethod
    def divergence(self, stress: Tensor) -> Tensor:
        """Return div stress, minus the transpose of `gradient`."""

    @abstractmethod
    def reference_stress(self, strain: Tensor) -> Tensor:
        """Return the stress in the reference material of unit shear modulus or conductivity."""

    @abstractmethod
    def green(self, dtype: torch.dtype) -> GreenOperator:
        """Return the reference material's Green operator."""

    @abstractmethod
    def operator(self, loads: int, dtype: torch.dtype) -> HaloStencil:
        """Return the fast u -> -div C grad u for `loads` load cases per sample."""

    @abstractmethod
    def has_pores(self) -> Tensor:
        """Return per sample whether some point carries nothing."""

    @property
    def batch(self) -> int:
        return len(self._tensors()[0])

    @property
    def device(self) -> torch.device:
        return self._tensors()[0].device

    @property
    def requires_grad(self) -> bool:
        return any(field.requires_grad for field in self._tensors())

    def select(self, samples: slice) -> "CellProblem":
        """Return the problem of some samples."""
        return self._map(lambda field: field[samples])

    def detach(self) -> "CellProblem":
        """Return the problem without gradients."""
        return self._map(lambda field: field.detach())

    def _tensors(self) -> list[Tensor]:
        entries = [getattr(self, entry.name) for entry in fields(self)]  # type: ignore
        return [entry for entry in entries if isinstance(entry, Tensor)]

    def _map(self, change: Callable[[Tensor], Tensor]) -> "CellProblem":
        entries = {entry.name: getattr(self, entry.name) for entry in fields(self)}  # type: ignore
        return type(self)(
            **{k: change(v) if isinstance(v, Tensor) else v for k, v in entries.items()}
        )


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
        dim = self.unknowns
        pressure = self.lame.unsqueeze(1) * strain[:, :, :dim].sum(2)
        stress = 2.0 * self.shear.unsqueeze(1) * strain
        return torch.cat((stress[:, :, :dim] + pressure.unsqueeze(2), stress[:, :, dim:]), 2)

    def strain(
        self, stress: Float[Tensor, "batch load n *space"]
    ) -> Float[Tensor, "batch load n *space"]:
        """Return the strain of a stress (the inverse law; infinite values are kept finite)."""
        dim = self.unknowns
        tiny = torch.finfo(self.shear.dtype).tiny
        total = (dim * self.lame + 2.0 * self.shear[:, 0]).clamp_min(tiny)
        share = (self.lame / total).unsqueeze(1) * stress[:, :, :dim].sum(2)
        deviation = torch.cat((stress[:, :, :dim] - share.unsqueeze(2), stress[:, :, dim:]), 2)
        return deviation / (2.0 * self.shear.unsqueeze(1)).clamp_min(tiny)

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
        dim = self.unknowns
        pressure = self.ratio * strain[:, :, :dim].sum(2, keepdim=True)
        return torch.cat((2.0 * strain[:, :, :dim] + pressure, 2.0 * strain[:, :, dim:]), 2)

    def green(self, dtype: torch.dtype) -> GreenOperator:
        """Return the reference material's Green operator."""
        return elastic_green(self.shape, self.ratio, dtype, self.lame.device)

    def operator(self, loads: int, dtype: torch.dtype) -> HaloStencil:
        """Return the fast u -> -div C grad u for `loads` load cases per sample."""
        dim = self.unknowns
        shear = self.shear.to(dtype)
        moduli = [self.lame.to(dtype), 2.0 * shear[:, 0], *shear[:, dim:].unbind(1)]
        return ElasticStencil(self.shape, dim, loads, moduli)

    def has_pores(self) -> Tensor:
        """Return per sample whether some voxel cannot carry shear."""
        return self.shear[:, 0].flatten(1).amin(1) <= 0.0


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
        return self.faces.unsqueeze(1) * strain

    def strain(
        self, stress: Float[Tensor, "batch load dim *space"]
    ) -> Float[Tensor, "batch load dim *space"]:
        """Return the inverse law (infinite values are kept finite)."""
        return stress / self.faces.unsqueeze(1).clamp_min(torch.finfo(self.faces.dtype).tiny)

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

    def operator(self, loads: int, dtype: torch.dtype) -> HaloStencil:
        """Return the fast u -> -div k grad u for `loads` load cases per sample."""
        return ConductionStencil(self.shape, 1, loads, list(self.faces.to(dtype).unbind(1)))

    def has_pores(self) -> Tensor:
        """Return per sample whether some face does not conduct."""
        return self.faces.flatten(1).amin(1) <= 0.0


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
