"""The operators' inner kernels: -div C grad on a grid with a halo, read as one flat array.

With one halo voxel on every side, a shift along any axis is a constant offset in memory, so each
difference is one pass over contiguous memory, whatever the dimension. On a CPU the grid is walked
in slabs of rows that keep the intermediate stresses in cache. All views are made once; applying
the operator replays the recorded passes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from physics.mechanics.grid import SHEAR_PAIRS

SLAB_VALUES = 49152
"""Values of one component that a slab works on (192 KiB in float32): few calls, still in cache."""

Pass = tuple[Callable[..., Tensor], tuple[Tensor, ...], dict[str, Any]]


class HaloStencil(ABC):
    """Base of the fast operators: the halo, the slabs and the replay.

    Subclasses record passes that read `_fields` (the unknown with its halo, space flattened) and
    fill `_result`; `_moduli` are the laws' fields, one voxel each.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        unknowns: int,
        loads: int,
        moduli: list[Float[Tensor, "batch *space"]],
    ) -> None:
        self._moduli = moduli
        self._shape, self._unknowns, self._loads = shape, unknowns, loads
        dim, first = len(shape), moduli[0]
        self._padded = [n + 2 for n in shape]
        self._strides = [prod(self._padded[axis + 1 :]) for axis in range(dim)]
        halo = first.new_zeros(len(first), loads, unknowns, *self._padded)
        self._interior = halo[(..., *[slice(1, -1)] * dim)]
        self._wraps = []
        for axis in range(-dim, 0):
            n = shape[axis]
            self._wraps.append((halo.narrow(axis, 0, 1), halo.narrow(axis, n, 1)))
            self._wraps.append((halo.narrow(axis, n + 1, 1), halo.narrow(axis, 1, 1)))
        self._fields = halo.flatten(3)
        self._result = first.new_empty(len(first), loads, unknowns, *shape)
        self._passes: list[Pass] = []
        self._plan([_periodic_pad(field).flatten(1).unsqueeze(1) for field in moduli])

    def __call__(
        self, field: Float[Tensor, "batch load c *space"]
    ) -> Float[Tensor, "batch load c *space"]:
        """Return -div C grad field in a buffer that the next call overwrites."""
        return _SelfAdjoint.apply(field, self) if field.requires_grad else self._replay(field)

    def _replay(self, field: Tensor) -> Tensor:
        self._interior.copy_(field)
        for target, source in self._wraps:
            target.copy_(source)
        for function, arguments, options in self._passes:
            function(*arguments, **options)
        return self._result

    def select(self, keep: Tensor) -> "HaloStencil":
        """Return the operator of some of the samples."""
        moduli = [field[keep] for field in self._moduli]
        return type(self)(self._shape, self._unknowns, self._loads, moduli)

    @abstractmethod
    def _plan(self, moduli: list[Tensor]) -> None:
        """Record the passes; moduli are `(batch, 1, space)` with halo, flattened."""

    def _record(self, function: Callable[..., Tensor], *arguments: Tensor, **options: Any) -> None:
        self._passes.append((function, arguments, options))

    def _slabs(self, rows: int) -> list[tuple[int, int]]:
        """Return runs of rows of about `SLAB_VALUES` values (one run on an accelerator)."""
        first = self._moduli[0]
        width = len(first) * self._loads * self._strides[0]
        each = max(1, round(SLAB_VALUES / width)) if first.device.type == "cpu" else rows
        count = -(-rows // each)
        return list(pairwise([rows * i // count for i in range(count + 1)]))

    def _buffer(self, values: int, *components: int) -> Tensor:
        """Return a work buffer `(batch, load, *components, values)`; zeros, never NaN."""
        first = self._moduli[0]
        return first.new_zeros(len(first), self._loads, *components, values)

    def _inner(self, flat: Tensor) -> Tensor:
        """Return the voxels (without halo) of a flat run of whole rows."""
        rows = flat.unflatten(-1, (-1, *self._padded[1:]))
        return rows[(..., *[slice(1, -1)] * (len(self._shape) - 1))]


class StaggeredStencil(HaloStencil):
    """Base of the two operators on the staggered grid: slabs that overlap by one row."""

    def _plan(self, moduli: list[Tensor]) -> None:
        cuts = [(1 + start, 1 + stop) for start, stop in self._slabs(self._shape[0])]
        values = (max(stop - start for start, stop in cuts) + 1) * self._strides[0]
        self._work = [self._buffer(values) for _ in range(self._buffers())]
        for start, stop in cuts:
            self._rows(moduli, start, stop)

    @abstractmethod
    def _buffers(self) -> int:
        """Return the number of work buffers."""

    @abstractmethod
    def _rows(self, moduli: list[Tensor], start: int, stop: int) -> None:
        """Record the passes that fill the result's rows from `start` to `stop` (with halo)."""

    def _result_rows(self, component: int, start: int, stop: int) -> Tensor:
        return self._result[:, :, component, start - 1 : stop - 1]


class ElasticStencil(StaggeredStencil):
    """-div (lame tr eps + 2 G eps); moduli are lame, 2 G at centres, then G on the edges."""

    def _buffers(self) -> int:
        dim = len(self._shape)
        return dim + 1 + len(SHEAR_PAIRS[dim])

    def _rows(self, moduli: list[Tensor], start: int, stop: int) -> None:
        dim, s, u = len(self._shape), self._strides, self._fields.unbind(2)
        lame, twice_shear, *edges = moduli
        low, high = start * s[0], stop * s[0]
        record = self._record

        begin = low - s[0]
        width = high - begin
        *normal, trace = [buffer[..., :width] for buffer in self._work[: dim + 1]]
        for i in range(dim):
            ahead = u[i][..., begin + s[i] : high + s[i]]
            record(torch.sub, ahead, u[i][..., begin:high], out=normal[i])
        record(torch.add, normal[0], normal[1], out=trace)
        for i in range(2, dim):
            record(torch.add, trace, normal[i], out=trace)
        record(torch.mul, trace, lame[..., begin:high], out=trace)
        for i in range(dim):
            record(torch.addcmul, trace, normal[i], twice_shear[..., begin:high], out=normal[i])

        end = high + s[0]
        shear = {}
        for pair, edge, buffer in zip(SHEAR_PAIRS[dim], edges, self._work[dim + 1 :], strict=True):
            i, j = pair
            tau = buffer[..., : end - low]
            record(torch.sub, u[i][..., low:end], u[i][..., low - s[j] : end - s[j]], out=tau)
            record(torch.add, tau, u[j][..., low:end], out=tau)
            record(torch.sub, tau, u[j][..., low - s[i] : end - s[i]], out=tau)
            record(torch.mul, tau, edge[..., low:end], out=tau)
            shear[i, j] = shear[j, i] = tau

        size = high - low
        force = self._work[dim][..., :size]
        for i in range(dim):
            at = slice(s[0], s[0] + size)
            below = slice(s[0] - s[i], s[0] - s[i] + size)
            *others, last = [j for j in range(dim) if j != i]
            record(torch.sub, normal[i][..., below], normal[i][..., at], out=force)
            for j in others:
                record(torch.add, force, shear[i, j][..., :size], out=force)
                record(torch.sub, force, shear[i, j][..., s[j] : s[j] + size], out=force)
            record(torch.add, force, shear[i, last][..., :size], out=force)
            ahead = self._inner(shear[i, last][..., s[last] : s[last] + size])
            record(torch.sub, self._inner(force), ahead, out=self._result_rows(i, start, stop))


class ConductionStencil(StaggeredStencil):
    """-div (k grad T); moduli are the conductivities of the faces, one field per axis."""

    def _buffers(self) -> int:
        return 2

    def _rows(self, moduli: list[Tensor], start: int, stop: int) -> None:
        s, t, record = self._strides, self._fields[:, :, 0], self._record
        low, high, end = start * s[0], stop * s[0], (stop + 1) * s[0]
        flux = self._work[0][..., : end - low]
        size = high - low
        total = self._work[1][..., :size]
        for axis, conductivity in enumerate(moduli):
            record(torch.sub, t[..., low:end], t[..., low - s[axis] : end - s[axis]], out=flux)
            record(torch.mul, flux, conductivity[..., low:end], out=flux)
            here, ahead = flux[..., :size], flux[..., s[axis] : s[axis] + size]
            if axis == 0:
                record(torch.sub, here, ahead, out=total)
                continue
            record(torch.add, total, here, out=total)
            if axis < len(moduli) - 1:
                record(torch.sub, total, ahead, out=total)
                continue
            rows = self._result_rows(0, start, stop)
            record(torch.sub, self._inner(total), self._inner(ahead), out=rows)


class _SelfAdjoint(torch.autograd.Function):
    """A stencil for autograd: its transpose is itself."""

    @staticmethod
    def forward(ctx: Any, field: Tensor, stencil: HaloStencil) -> Tensor:
        ctx.stencil = stencil
        return stencil(field.detach()).clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.stencil(gradients[0]).clone(), None


def _periodic_pad(field: Tensor) -> Tensor:
    """Return the field with one wrapped voxel on every side."""
    sides = (1, 1) * (field.ndim - 1)
    return pad(field.unsqueeze(1), sides, mode="circular").squeeze(1)
