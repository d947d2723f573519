"""What the solver knows of a discretised cell: gradient, law, divergence, reference material.

Every scheme follows one pattern: a periodic unknown u, a gradient on quadrature points with
fields `(batch, load, component, *points, *space)`, a linear law C there, and -div as the
gradient's transpose. The energy of a cell is the mean over quadrature points of
gradient : C : gradient.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import fields
from math import prod
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from physics.mechanics.green import GreenOperator
from physics.mechanics.laws import Law


@runtime_checkable
class Operator(Protocol):
    """A symmetric operator on unknowns `(batch, load, c, *space)` of a batch of samples."""

    def __call__(self, field: Tensor, /) -> Tensor: ...

    def select(self, keep: Tensor, /) -> "Operator":
        """Return the operator of some of the samples."""
        ...


class CellProblem(ABC):
    """A batch of periodic cells with a linear law on their quadrature points.

    Subclasses are frozen dataclasses whose tensors, and whose laws' tensors, have the samples
    first.
    """

    points: tuple[int, ...] = ()
    """Quadrature points of a voxel, as axes between the components and the voxels."""

    rigid_pieces: bool = True
    """Whether connected voxels move together: false where a scheme has hourglass modes."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Voxels along each axis."""

    @property
    @abstractmethod
    def unknowns(self) -> int:
        """Components of the periodic unknown."""

    @property
    @abstractmethod
    def components(self) -> int:
        """Components of a macroscopic gradient."""

    @abstractmethod
    def gradient(self, u: Tensor) -> Tensor:
        """Return grad u, `(batch, load, component, *points, *space)`, of the periodic unknown."""

    @abstractmethod
    def stress(self, strain: Tensor) -> Tensor:
        """Return the law C : strain."""

    @abstractmethod
    def strain(self, stress: Tensor) -> Tensor:
        """Return the inverse law; infinite values are kept finite."""

    @abstractmethod
    def divergence(self, stress: Tensor) -> Tensor:
        """Return div stress: minus the transpose of `gradient`, per voxel."""

    @abstractmethod
    def reference_stress(self, strain: Tensor) -> Tensor:
        """Return the stress in the reference material of unit shear modulus or conductivity."""

    @abstractmethod
    def green(self, dtype: torch.dtype) -> GreenOperator:
        """Return the reference material's Green operator."""

    @abstractmethod
    def operator(self, loads: int, dtype: torch.dtype) -> Operator:
        """Return the fast u -> -div C grad u for `loads` load cases per sample."""

    def load_force(self, macro: Float[Tensor, "batch load n"]) -> Tensor:
        """Return div C E, `(batch, load, c, *space)`, of uniform gradients E."""
        return self.divergence(self.stress(self.spread(macro)))

    def mean_law(self) -> Float[Tensor, "batch n n"]:
        """Return the volume mean of C: Voigt's matrix."""
        n = self.components
        unit = torch.eye(n, dtype=torch.float64, device=self.device).expand(self.batch, n, n)
        return torch.cat([self.mean(self.stress(self.spread(e))) for e in unit.split(1, 1)], 1)

    @abstractmethod
    def contrast(self) -> Float[Tensor, " batch"]:
        """Return the stiffest over the softest point of each sample: infinite with pores."""

    def has_pores(self) -> Bool[Tensor, " batch"]:
        """Return per sample whether some point carries nothing."""
        return self.contrast().isinf()

    def spread(self, uniform: Float[Tensor, "batch load n"]) -> Tensor:
        """Return uniform gradients as fields, without copying."""
        rest = (*self.points, *self.shape)
        return uniform.view(*uniform.shape, *[1] * len(rest)).expand(*uniform.shape, *rest)

    def spread_stress(self, uniform: Float[Tensor, "batch load n"]) -> Tensor:
        """Return uniform stresses as fields whose means they are."""
        return self.spread(uniform)

    def voxel_stress(
        self, stress: Float[Tensor, "batch n *space"]
    ) -> Float[Tensor, "batch 1 field *rest"]:
        """Return a stress given per voxel as one load case of a stress field."""
        points = self.points
        field = stress[(slice(None), None, slice(None), *[None] * len(points))]
        return field.expand(*field.shape[:3], *points, *self.shape)

    def mean(self, stress: Tensor) -> Float[Tensor, "batch load n"]:
        """Return the volume means of a stress field."""
        return stress.flatten(3).mean(-1)

    def mean_strain(self, strain: Tensor) -> Float[Tensor, "batch load n"]:
        """Return the work of a strain field on unit uniform stresses (`spread_stress`)."""
        return strain.flatten(3).mean(-1)

    def energies(self, a: Tensor, b: Tensor) -> Float[Tensor, "batch load other"]:
        """Return the volume means of a_l : b_m for all pairs of loads."""
        return a.flatten(2) @ b.flatten(2).mT / prod((*self.points, *self.shape))

    def centred(self, field: Tensor) -> Float[Tensor, "batch load n *space"]:
        """Return one gradient per voxel, with the same volume mean."""
        return field

    def centred_stress(self, stress: Tensor) -> Float[Tensor, "batch load n *space"]:
        """Return one stress per voxel, with the same volume mean."""
        return self.centred(stress)

    @property
    def voxels(self) -> int:
        """Number of voxels of a cell."""
        return prod(self.shape)

    @property
    def couplings(self) -> int:
        """An upper bound of the unknowns that the operator couples one unknown to."""
        return self.unknowns * 3 ** len(self.shape)

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
        found = []
        for entry in self._entries().values():
            if isinstance(entry, Tensor):
                found.append(entry)
            elif isinstance(entry, Law):
                found.extend(entry.tensors())
        return found

    def _map(self, change: Callable[[Tensor], Tensor]) -> "CellProblem":
        return type(self)(**{name: _changed(v, change) for name, v in self._entries().items()})

    def _entries(self) -> dict:
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}  # type: ignore


def _changed(entry: object, change: Callable[[Tensor], Tensor]) -> object:
    if isinstance(entry, Tensor):
        return change(entry)
    return entry.map(change) if isinstance(entry, Law) else entry


class LawOperator:
    """u -> -div C grad u as the three steps say it: for laws that have no stencil of their own."""

    def __init__(self, problem: CellProblem) -> None:
        self._problem = problem

    def __call__(self, field: Tensor, /) -> Tensor:
        problem = self._problem
        return -problem.divergence(problem.stress(problem.gradient(field)))

    def select(self, keep: Tensor, /) -> "LawOperator":
        """Return the operator of some of the samples."""
        return LawOperator(self._problem._map(lambda field: field[keep]))
