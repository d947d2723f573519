"""Steady diffusion through the voxels of one phase: multigrid-preconditioned finite volumes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from microstructures import ConvergenceError
from physics.mechanics.krylov import conjugate_gradients

DAMPING = 0.85
"""Of the Jacobi smoothing."""

COARSE_CONDUCTANCE = 0.6
"""Conductance of a coarse face over the sum of the fine ones in it; 1/2 if potentials were linear,
1 for the piecewise constant ones that blocks of voxels have."""

MAX_ITERATIONS = 1000


def effective_diffusivity(
    inside: Bool[Tensor, "*space"],
    *,
    axis: int,
    wraps: Sequence[bool],
    tolerance: float = 1e-3,
) -> float:
    """Return D_eff / D_0 along an axis of a phase in an impermeable matrix.

    The five- or seven-point finite volumes, unit conductance between neighbouring voxels of the
    phase. An axis that is not periodic ends in walls: of fixed potential, half a voxel from the
    last centres, along `axis`, impermeable along others. Along a periodic axis the potential's
    mean gradient is fixed. Conjugate gradients, preconditioned by multigrid on blocks of 2^d
    voxels, in float32 unless the tolerance is below 1e-4; D_eff is the energy of the potential
    found, in float64, and so never too small.

    Args:
        inside: One sample; every cluster of it should percolate along the axis.
        axis: Space axis of the transport, from 0.
        wraps: One flag per axis, True where it is periodic.
        tolerance: Residual relative to that of a linear potential, D_eff being off by its square.

    Raises:
        ConvergenceError: The tolerance was not met.
    """
    exact = _Network.of_phase(inside.double(), axis, wraps)
    push = _push(exact, inside.double(), axis)
    work = torch.float32 if tolerance >= 1e-4 else torch.float64
    network = _Network([c.to(work) for c in exact.faces], exact.walls.to(work))
    hierarchy = _Multigrid(network)
    start = push.to(work, copy=True)[None, None, None]
    size = torch.linalg.vecdot(start.flatten(2), hierarchy(start).flatten(2)).clamp(min=0).sqrt()
    u, iterations = conjugate_gradients(
        network, hierarchy, start, target=tolerance * size, max_iterations=MAX_ITERATIONS
    )
    if int(iterations) >= MAX_ITERATIONS:
        raise ConvergenceError(
            f"the residual of diffusion should fall to {tolerance:g} of its start, and did not in "
            f"{MAX_ITERATIONS} iterations; loosen the tolerance"
        )
    u = u[0, 0, 0].double()
    # Energy of a linear potential: its faces, and half a voxel at either wall.
    linear = exact.faces[axis].sum()
    if not wraps[axis]:
        linear += inside.select(axis, 0).sum() / 2 + inside.select(axis, -1).sum() / 2
    energy = linear - 2 * (push * u).sum() + (u * exact(u)).sum()
    return float(energy) / inside.numel()


@dataclass(frozen=True)
class _Network:
    """Conductances between neighbouring cells, and between cells and walls of zero potential.

    Args:
        faces: Per axis, from each cell to the next, `(*space)`; from the last to the first across
            a periodic face, else 0 there.
        walls: From each cell, `(*space)`.
    """

    faces: Sequence[Tensor]
    walls: Tensor

    @classmethod
    def of_phase(cls, inside: Tensor, axis: int, wraps: Sequence[bool]) -> "_Network":
        faces = [inside * inside.roll(-1, k) for k in range(inside.ndim)]
        for k, wrap in enumerate(wraps):
            if not wrap:
                faces[k].select(k, -1).zero_()
        walls = torch.zeros_like(inside)
        if not wraps[axis]:
            for end in (0, -1):
                walls.select(axis, end).add_(2 * inside.select(axis, end))
        return cls(faces, walls)

    @cached_property
    def diagonal(self) -> Tensor:
        """Sum of all conductances of each cell."""
        return self.walls + sum(c + c.roll(1, k) for k, c in enumerate(self.faces))

    @cached_property
    def smoother(self) -> Tensor:
        """Damped inverse of the diagonal; 0 where nothing is connected."""
        return torch.where(self.diagonal > 0, DAMPING / self.diagonal, 0.0)

    def __call__(self, u: Tensor, /) -> Tensor:
        """Return what flows out of every cell at potentials `(..., *space)`."""
        out = self.diagonal * u
        ndim = self.walls.ndim
        for k, c in enumerate(self.faces):
            n, at = c.shape[k], k - ndim
            inner = c.narrow(k, 0, n - 1)
            out.narrow(at, 0, n - 1).addcmul_(inner, u.narrow(at, 1, n - 1), value=-1)
            out.narrow(at, 1, n - 1).addcmul_(inner, u.narrow(at, 0, n - 1), value=-1)
            last = c.narrow(k, n - 1, 1)
            out.narrow(at, n - 1, 1).addcmul_(last, u.narrow(at, 0, 1), value=-1)
            out.narrow(at, 0, 1).addcmul_(last, u.narrow(at, n - 1, 1), value=-1)
        return out

    def select(self, keep: Tensor, /) -> "_Network":
        """Return the network itself: there is one sample."""
        return self

    def coarse(self) -> "_Network":
        """Return the network of blocks of 2^d cells."""
        faces = []
        for k, c in enumerate(self.faces):
            n = c.shape[k]
            # The faces between blocks: every other one, and of an odd number the last.
            chosen = torch.arange(1, n + n % 2, 2, device=c.device).clamp(max=n - 1)
            faces.append(_blocks(c.index_select(k, chosen), without=k) * COARSE_CONDUCTANCE)
        return _Network(faces, _blocks(self.walls) * COARSE_CONDUCTANCE)


class _Multigrid:
    """One symmetric V-cycle from zero: an approximate inverse of a network."""

    def __init__(self, network: _Network) -> None:
        self.levels = [network]
        while max(self.levels[-1].walls.shape) > 2:
            self.levels.append(self.levels[-1].coarse())

    def __call__(self, r: Tensor, /) -> Tensor:
        return self._cycle(r, 0)

    def _cycle(self, r: Tensor, level: int) -> Tensor:
        network = self.levels[level]
        u = network.smoother * r
        if level + 1 < len(self.levels):
            shape = network.walls.shape
            rest = (r - network(u)).view(shape)
            step = self._cycle(_blocks(rest), level + 1)
            for k, n in enumerate(shape):
                step = step.repeat_interleave(2, k).narrow(k, 0, n)
            u += step.view(u.shape)
        return u.addcmul_(network.smoother, r - network(u))


def _push(network: _Network, inside: Tensor, axis: int) -> Float[Tensor, "*space"]:
    """Return what a unit gradient of the potential along the axis makes flow into every cell."""
    after = network.faces[axis].clone()
    before = after.roll(1, axis)
    if bool(network.walls.any()):
        after.select(axis, -1).copy_(inside.select(axis, -1))
        before.select(axis, 0).copy_(inside.select(axis, 0))
    return after - before


def _blocks(field: Tensor, *, without: int | None = None) -> Tensor:
    """Return the sums over blocks of 2 cells along all axes, or all but one."""
    for k, n in enumerate(field.shape):
        if k != without:
            pad = [0, 0] * (field.ndim - 1 - k) + [0, n % 2]
            field = F.pad(field, pad) if n % 2 else field
            field = field.unflatten(k, (-1, 2)).sum(k + 1)
    return field
