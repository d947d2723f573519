"""The operators' inner kernels: -div C grad on a grid with a halo, read as one flat array.

With one halo voxel on every side, a shift along any axis is a constant offset in memory, so each
difference is one pass over contiguous memory, whatever the dimension. The grid is walked in slabs
of rows that keep the intermediate stresses in cache. All views are made once; applying the
operator replays the recorded passes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from physics.mechanics.grid import SHEAR_PAIRS

SLAB_VALUES = 16384
"""Values of one component that a slab works on (128 KiB in float64)."""

Pass = tuple[Callable[..., Tensor], tuple[Tensor, ...], Tensor]


class HaloStencil(ABC):
    """Base of the two operators: the halo, the slabs and the replay."""

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
        padded = [n + 2 for n in shape]
        self._strides = [prod(padded[axis + 1 :]) for axis in range(dim)]
        self._padded = padded
        batch = first.shape[0]
        halo = first.new_zeros(batch, loads, unknowns, *padded)
        self._interior = halo[(..., *[slice(1, -1)] * dim)]
        self._wraps = []
        for axis in range(-dim, 0):
            n = shape[axis]
            self._wraps.append((halo.narrow(axis, 0, 1), halo.narrow(axis, n, 1)))
            self._wraps.append((halo.narrow(axis, n + 1, 1), halo.narrow(axis, 1, 1)))
        self._fields = halo.flatten(3).unbind(2)
        self._result = first.new_empty(batch, loads, unknowns, *shape)
        flat = [_periodic_pad(field).flatten(1).unsqueeze(1) for field in moduli]
        width = batch * loads * self._strides[0]
        rows = max(1, round(SLAB_VALUES / width))
        n_slabs = -(-shape[0] // rows)
        cuts = [1 + shape[0] * i // n_slabs for i in range(n_slabs + 1)]
        most = max(b - a for a, b in pairwise(cuts)) + 1
        self._work = [
            first.new_empty(batch, loads, most * self._strides[0])
            for _ in range(self._buffers(dim))
        ]
        self._passes: list[Pass] = []
        for start, stop in pairwise(cuts):
            self._record(flat, start, stop)

    def __call__(
        self, field: Float[Tensor, "batch load c *space"]
    ) -> Float[Tensor, "batch load c *space"]:
        """Return -div C grad field in a buffer that the next call overwrites."""
        self._interior.copy_(field)
        for target, source in self._wraps:
            target.copy_(source)
        for function, arguments, target in self._passes:
            function(*arguments, out=target)
        return self._result

    def select(self, keep: Tensor) -> "HaloStencil":
        """Return the operator of some of the samples."""
        moduli = [field[keep] for field in self._moduli]
        return type(self)(self._shape, self._unknowns, self._loads, moduli)

    @abstractmethod
    def _buffers(self, dim: int) -> int:
        """Return the number of work buffers."""

    @abstractmethod
    def _record(self, moduli: list[Tensor], start: int, stop: int) -> None:
        """Append the passes that fill the result's rows from `start` to `stop` (with halo)."""

    def _result_rows(self, component: int, start: int, stop: int) -> Tensor:
        return self._result[:, :, component, start - 1 : stop - 1]

    def _inner(self, flat: Tensor) -> Tensor:
        """Return the voxels (without halo) of a flat run of whole rows."""
        rows = flat.unflatten(-1, (-1, *self._padded[1:]))
        return rows[(..., *[slice(1, -1)] * (len(self._shape) - 1))]


class ElasticStencil(HaloStencil):
    """-div (lame tr eps + 2 G eps); moduli are lame, 2 G at centres, then G on the edges."""

    def _buffers(self, dim: int) -> int:
        return dim + 1 + len(SHEAR_PAIRS[dim])

    def _record(self, moduli: list[Tensor], start: int, stop: int) -> None:
        dim, s, u = len(self._shape), self._strides, self._fields
        lame, twice_shear, *edges = moduli
        low, high = start * s[0], stop * s[0]
        record = self._passes.append

        begin = low - s[0]
        width = high - begin
        *normal, trace = [buffer[..., :width] for buffer in self._work[: dim + 1]]
        for i in range(dim):
            record(
                (
                    torch.sub,
                    (u[i][..., begin + s[i] : high + s[i]], u[i][..., begin:high]),
                    normal[i],
                )
            )
        record((torch.add, (normal[0], normal[1]), trace))
        for i in range(2, dim):
            record((torch.add, (trace, normal[i]), trace))
        record((torch.mul, (trace, lame[..., begin:high]), trace))
        for i in range(dim):
            record((torch.addcmul, (trace, normal[i], twice_shear[..., begin:high]), normal[i]))

        end = high + s[0]
        shear = {}
        scratch = self._work[dim][..., : end - low]
        for pair, edge, buffer in zip(SHEAR_PAIRS[dim], edges, self._work[dim + 1 :], strict=True):
            i, j = pair
            tau = buffer[..., : end - low]
            record((torch.sub, (u[i][..., low:end], u[i][..., low - s[j] : end - s[j]]), tau))
            record((torch.add, (tau, u[j][..., low:end]), tau))
            record((torch.sub, (tau, u[j][..., low - s[i] : end - s[i]]), tau))
            record((torch.mul, (tau, edge[..., low:end]), tau))
            shear[i, j] = shear[j, i] = tau

        size = high - low
        force = scratch[..., :size]
        for i in range(dim):
            at = slice(s[0], s[0] + size)
            below = slice(s[0] - s[i], s[0] - s[i] + size)
            others = [j for j in range(dim) if j != i]
            record((torch.sub, (normal[i][..., below], normal[i][..., at]), force))
            for j in others:
                record((torch.add, (force, shear[i, j][..., :size]), force))
                if j != others[-1]:
                    record((torch.sub, (force, shear[i, j][..., s[j] : s[j] + size]), force))
            ahead = shear[i, others[-1]][..., s[others[-1]] : s[others[-1]] + size]
            record(
                (
                    torch.sub,
                    (self._inner(force), self._inner(ahead)),
                    self._result_rows(i, start, stop),
                )
            )


class ConductionStencil(HaloStencil):
    """-div (k grad T); moduli are the conductivities of the faces, one field per axis."""

    def _buffers(self, dim: int) -> int:
        return 2

    def _record(self, moduli: list[Tensor], start: int, stop: int) -> None:
        s, (t,) = self._strides, self._fields
        low, high, end = start * s[0], stop * s[0], (stop + 1) * s[0]
        flux = self._work[0][..., : end - low]
        size = high - low
        total = self._work[1][..., :size]
        record = self._passes.append
        for axis, conductivity in enumerate(moduli):
            record((torch.sub, (t[..., low:end], t[..., low - s[axis] : end - s[axis]]), flux))
            record((torch.mul, (flux, conductivity[..., low:end]), flux))
            here, ahead = flux[..., :size], flux[..., s[axis] : s[axis] + size]
            if axis == 0:
                record((torch.sub, (here, ahead), total))
                continue
            record((torch.add, (total, here), total))
            if axis < len(moduli) - 1:
                record((torch.sub, (total, ahead), total))
            else:
                record(
                    (
                        torch.sub,
                        (self._inner(total), self._inner(ahead)),
                        self._result_rows(0, start, stop),
                    )
                )


def _periodic_pad(field: Tensor) -> Tensor:
    """Return the field with one wrapped voxel on every side."""
    sides = (1, 1) * (field.ndim - 1)
    return pad(field.unsqueeze(1), sides, mode="circular").squeeze(1)
