"""Homogeneous reference materials, one per cell: relative moduli and Lippmann-Schwinger steps."""

from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from physics.mechanics.grid import difference_symbols
from physics.mechanics.laws import IsotropicLaw
from physics.mechanics.staggered import StaggeredElasticity

TINY = 1e-20  # keeps the iterations of a cell that is solved finite


@dataclass(frozen=True)
class ReferencedCells:
    """Cells in units of the shear modulus of a reference of their own.

    The reference has the mean of each cell's lowest and highest shear modulus, and the mean of
    its lowest and highest bulk modulus (2-D: plane strain), so that Lippmann-Schwinger steps
    contract (Moulinec, Suquet 1998). `lame` is the Lame constant of each reference, its shear
    modulus being 1.
    """

    cells: StaggeredElasticity
    lame: Float[Tensor, " batch"]

    @classmethod
    def of_moduli(
        cls, lame: Float[Tensor, "batch *space"], shear: Float[Tensor, "batch *space"]
    ) -> "tuple[ReferencedCells, Float[Tensor, ' batch']]":
        """Return float32 cells and the shear modulus of each reference, in the moduli's unit."""
        dim = shear.ndim - 1
        bulk = lame + 2 / dim * shear
        unit = _middle(shear)
        wide = unit.view(-1, *[1] * dim)
        cells = StaggeredElasticity.of_voxels((lame / wide).float(), (shear / wide).float(), 1.0)
        return cls(cells, (_middle(bulk) / unit - 2 / dim).float()), unit

    @property
    def moduli(self) -> Float[Tensor, "batch 2 *space"]:
        """Bulk (2-D: plane strain) and shear modulus of every voxel."""
        shear = self.cells.shear[:, 0]
        return torch.stack([self.cells.lame + 2 / self.cells.unknowns * shear, shear], 1)

    def select(self, samples: slice) -> "ReferencedCells":
        """Return some of the cells."""
        c = self.cells
        cells = StaggeredElasticity(c.lame[samples], c.shear[samples], c.ratio)
        return type(self)(cells, self.lame[samples])

    def unit_loads(self) -> Float[Tensor, "batch load n *space"]:
        """Return the homogeneous unit Mandel strains as fields (expanded, not copied)."""
        n = self.cells.components
        loads = torch.eye(n, dtype=self.lame.dtype, device=self.lame.device)
        loads = loads.view(1, n, n, *[1] * self.cells.unknowns)
        return loads.expand(self.cells.batch, n, n, *self.cells.shape)

    def step(
        self, strain: Float[Tensor, "batch load n *space"]
    ) -> Float[Tensor, "batch load dim *space"]:
        """Return u = G0 div ((C - C0) : strain), a displacement of any trial strain.

        The cell's own strain, macroscopic part included, is the fixed point: it gives its own
        displacement. A homogeneous strain gives the first Born step.
        """
        cells = self.cells
        lame = cells.lame - self.lame.view(-1, *[1] * cells.unknowns)
        polarisation = IsotropicLaw(lame, cells.shear - 1).stress(strain)
        return self.solve(cells.divergence(polarisation))

    def born(self) -> Float[Tensor, "batch n dim *space"]:
        """Return the displacement of the first step from each unit load: `step(unit_loads())`."""
        n = self.cells.components
        unit = torch.eye(n, dtype=self.lame.dtype, device=self.lame.device)
        return self.solve(self.cells.load_force(unit.expand(self.cells.batch, n, n)))

    def descended(
        self, displacement: Float[Tensor, "batch n dim *space"], iterations: int
    ) -> Float[Tensor, "batch n dim *space"]:
        """Return what conjugate gradients make of the displacements of the unit loads.

        Preconditioned by `solve`: what `iterated` does with another reference, differentiable.
        """
        p, before = torch.zeros_like(displacement), None
        for _ in range(iterations):
            strain = self.unit_loads() + self.cells.gradient(displacement)
            r = self.cells.divergence(self.cells.stress(strain))
            z = self.solve(r)
            rz = _dot(r, z)
            p = z if before is None else z + rz / before.clamp_min(TINY) * p
            before = rz
            along = self.cells.gradient(p)
            step = rz / _dot(along, self.cells.stress(along)).clamp_min(TINY)
            displacement = displacement + step * p
        return displacement

    def solve(
        self, force: Float[Tensor, "batch load dim *space"]
    ) -> Float[Tensor, "batch load dim *space"]:
        """Return the zero-mean u with -div C0 grad u = force; differentiable.

        u_i = (f_i - c conj(k_i) (k . f) / |k|^2) / |k|^2, c = (lame + 1) / (lame + 2), with the
        symbols k of the staggered grid (Schneider, Ospald, Kabel 2016).
        """
        dim, shape = self.cells.unknowns, self.cells.shape
        axes = tuple(range(-dim, 0))
        symbols, inverse = _symbols(shape, force.device)
        c = ((self.lame + 1) / (self.lame + 2)).view(-1, 1, *[1] * dim)
        spectrum = [f * inverse for f in torch.fft.rfftn(force, dim=axes).unbind(2)]
        pairs = list(zip(symbols, spectrum, strict=True))
        share = c * inverse * sum((k * f for k, f in pairs), torch.zeros(()))
        solved = torch.stack([f - k.conj() * share for k, f in pairs], 2)
        return torch.fft.irfftn(solved, s=shape, dim=axes)

    def energy(
        self, displacement: Float[Tensor, "batch load dim *space"]
    ) -> Float[Tensor, "batch n n"]:
        """Return <strain_i : C : strain_j>: at least the effective stiffness, as a quadratic form.

        The displacements belong to the unit loads.
        """
        strain = self.unit_loads() + self.cells.gradient(displacement)
        stress = self.cells.stress(strain)
        return strain.flatten(2) @ stress.flatten(2).mT / self.cells.lame[0].numel()


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the inner products of each load's fields, with the fields' axes."""
    return torch.linalg.vecdot(a.flatten(2), b.flatten(2)).view(*a.shape[:2], *[1] * (a.ndim - 2))


def _middle(modulus: Float[Tensor, "batch *space"]) -> Float[Tensor, " batch"]:
    flat = modulus.flatten(1)
    return (flat.amin(1) + flat.amax(1)) / 2


def _symbols(
    shape: tuple[int, ...], device: torch.device
) -> tuple[list[Complex[Tensor, "..."]], Float[Tensor, "..."]]:
    """Return the difference symbols and 1 / |k|^2, 0 at the constant mode, in float32."""
    symbols = difference_symbols(shape, device)
    square = sum((k.abs().square() for k in symbols), torch.zeros(()))
    square[(0,) * len(shape)] = torch.inf
    return [k.to(torch.complex64) for k in symbols], (1 / square).float()
