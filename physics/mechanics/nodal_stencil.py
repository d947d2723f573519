"""The corner schemes' inner kernels: -div C grad by sums and differences along each axis.

In a voxel with corner values u, the sums and differences of u along all axes are the amplitudes of
products of centred coordinates, which are orthogonal in the mean over the quadrature points.
Gradients are single amplitudes in this basis, so a law that is constant in the voxel takes a few
elementwise passes, and the transposed sums and differences return the forces. With D the axes along
which u_c is differenced, the amplitude m(c, D) is the part of du_c/dx_j, for each j in D, that goes
with the other coordinates of D; its mean square is w^(|D| - 1), w the variance of the points along
one axis. A scheme with one point (w = 0) keeps |D| = 1 alone.
"""

from abc import abstractmethod
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

from physics.mechanics.stencil import HaloStencil

Axes = tuple[int, ...]


class NodalStencil(HaloStencil):
    """Base of the two operators on corner values; `variance` is that of the points on one axis.

    Voxel rows are walked once: forward along axis 0 first, backward along axis 0 last, so that only
    the forces on a slab's upper corners wait for the next slab.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        unknowns: int,
        loads: int,
        moduli: list[Float[Tensor, "batch *space"]],
        variance: float,
    ) -> None:
        self._variance = variance
        super().__init__(shape, unknowns, loads, moduli)

    def select(self, keep: Tensor) -> "NodalStencil":
        """Return the operator of some of the samples."""
        moduli = [field[keep] for field in self._moduli]
        return type(self)(self._shape, self._unknowns, self._loads, moduli, self._variance)

    @abstractmethod
    def _scaled(self, moduli: list[Tensor]) -> list[Tensor]:
        """Return the fields that `_law` needs, of moduli with halo."""

    @abstractmethod
    def _law(self, fields: list[Tensor], amplitudes: dict[Axes, Tensor]) -> None:
        """Record the passes that turn amplitudes into forces on them, in place."""

    @property
    def _degree(self) -> int:
        """The largest number of differences in an amplitude that carries stress."""
        return len(self._shape) if self._variance > 0.0 else 1

    def _weight(self, differences: int) -> float:
        """Mean square of an amplitude's part of a gradient, for sums in the place of means."""
        dim = len(self._shape)
        return self._variance ** (differences - 1) * 4.0 ** (differences - dim)

    def _plan(self, moduli: list[Tensor]) -> None:
        dim, s0 = len(self._shape), self._strides[0]
        # Voxel row 0, in the halo, bears on the first row of corners.
        cuts = self._slabs(self._shape[0] + 1)
        values = max(stop - start for start, stop in cuts) * s0
        self._levels = self._keys(dim)
        self._work = [self._buffer(values, len(k), self._unknowns) for k in self._levels[1:]]
        self._upper = self._buffer(values + s0, self._unknowns)
        self._scratch = self._buffer(values)
        fields = self._scaled(moduli)
        for start, stop in cuts:
            self._forward(start, stop)
            amplitudes = self._work[-1][..., : (stop - start) * s0].unbind(2)
            here = [field[..., start * s0 : stop * s0] for field in fields]
            self._law(here, dict(zip(self._levels[-1], amplitudes, strict=True)))
            self._backward(start, stop)

    def _keys(self, dim: int) -> list[list[Axes]]:
        """Return the amplitudes after each axis: first the sums along it, then the differences."""
        levels: list[list[Axes]] = [[()]]
        for axis in range(dim):
            before = levels[-1]
            sums = before[1:] if axis == dim - 1 else before
            levels.append(sums + [(*d, axis) for d in before if len(d) < self._degree])
        return levels

    def _forward(self, start: int, stop: int) -> None:
        """Record the amplitudes of voxel rows `start` to `stop`, one axis after the other."""
        s, dim = self._strides, len(self._shape)
        source = self._fields.unsqueeze(2)[..., start * s[0] : (stop + 1) * s[0]]
        for axis, keys in enumerate(self._levels[:-1]):
            width = source.shape[-1] - s[axis]
            here, ahead = source[..., :width], source[..., s[axis] :]
            target = self._work[axis][..., :width]
            skip = 1 if axis == dim - 1 else 0
            sums = len(keys) - skip
            varied = target.shape[2] - sums
            if sums:
                self._record(
                    torch.add, ahead[:, :, skip:], here[:, :, skip:], out=target[:, :, :sums]
                )
            differences = target[:, :, sums:]
            self._record(torch.sub, ahead[:, :, :varied], here[:, :, :varied], out=differences)
            source = target

    def _backward(self, start: int, stop: int) -> None:
        """Record the forces on the corners, the last step into the rows of the result."""
        s0 = self._strides[0]
        source = self._work[-1][..., : (stop - start) * s0]
        for axis in range(len(self._shape) - 1, 0, -1):
            source = self._transposed(source, axis)
        sums, differences = source.unbind(2)
        width, first = source.shape[-1], max(start, 1)
        skip = (first - start) * s0
        self._record(torch.add, sums, differences, out=self._upper[..., s0 : s0 + width])
        if stop > first:
            lower = sums[..., skip:]
            self._record(torch.sub, lower, differences[..., skip:], out=lower)
            upper = self._inner(self._upper[..., skip:width])
            result = self._result[:, :, :, first - 1 : stop - 1]
            self._record(torch.add, self._inner(lower), upper, out=result)
        last = self._upper[..., width : width + s0]
        self._record(Tensor.copy_, self._upper[..., :s0], last)

    def _transposed(self, source: Tensor, axis: int) -> Tensor:
        """Record the transposed sums and differences along one axis (not the first)."""
        s, width = self._strides[axis], source.shape[-1]
        keys = self._levels[axis]
        skip = 1 if axis == len(self._shape) - 1 else 0
        sums, differences = source[:, :, : len(keys) - skip], source[:, :, len(keys) - skip :]
        target = self._work[axis - 1][..., :width]
        varied = differences.shape[2]
        here, below = slice(s, None), slice(0, width - s)
        if skip:  # the amplitude without a difference has no sum along the last axis
            own, into = differences[:, :, :1], target[:, :, :1, ..., s:]
            self._record(torch.sub, own[..., below], own[..., here], out=into)
        if varied > skip:
            both, own = sums[:, :, : varied - skip], differences[:, :, skip:]
            into = target[:, :, skip:varied, ..., s:]
            self._record(torch.sub, both[..., here], own[..., here], out=into)
            self._record(torch.add, both, own, out=both)
            self._record(torch.add, into, both[..., below], out=into)
        if len(keys) > varied:
            plain, into = sums[:, :, varied - skip :], target[:, :, varied:, ..., s:]
            self._record(torch.add, plain[..., below], plain[..., here], out=into)
        return target


class NodalElasticStencil(NodalStencil):
    """-div (lame tr eps + 2 G eps) on corner elements; moduli are lame and G."""

    def _scaled(self, moduli: list[Tensor]) -> list[Tensor]:
        lame, shear = moduli
        dim, degree = len(self._shape), self._degree
        fields = []
        for p in range(min(degree, dim - 1)):
            fields += [self._weight(p + 1) * lame, self._weight(p + 1) * shear]
        if degree == dim:
            fields.append(self._weight(dim) * (lame + (dim + 1) * shear))
        return fields

    def _law(self, fields: list[Tensor], amplitudes: dict[Axes, Tensor]) -> None:
        """Dilatation: m(c, P + c) of all c outside P share lame; shear: m(k, Q - k) of k in Q."""
        axes = range(len(self._shape))
        for p in range(min(self._degree, len(axes) - 1)):
            lame, shear = fields[2 * p : 2 * p + 2]
            for common in combinations(axes, p):
                rest = [c for c in axes if c not in common]
                self._couple(
                    [amplitudes[tuple(sorted((*common, c)))][:, :, c] for c in rest],
                    lame,
                    shear,
                    2.0 + p,
                )
            for group in combinations(axes, p + 2):
                self._couple(
                    [amplitudes[tuple(a for a in group if a != k)][:, :, k] for k in group],
                    shear,
                    shear,
                    float(p),
                )
        if self._degree == len(axes):
            whole = amplitudes[tuple(axes)]
            self._record(torch.mul, whole, fields[-1].unsqueeze(2), out=whole)

    def _couple(self, members: list[Tensor], shared: Tensor, own: Tensor, share: float) -> None:
        """Record member = shared * sum of members + share * own * member."""
        total = self._scratch[..., : members[0].shape[-1]]
        self._record(torch.add, members[0], members[1], out=total)
        for member in members[2:]:
            self._record(torch.add, total, member, out=total)
        if share == 0.0:
            for member in members:
                self._record(torch.mul, total, shared, out=member)
            return
        self._record(torch.mul, total, shared, out=total)
        for member in members:
            self._record(torch.addcmul, total, member, own, value=share, out=member)


class NodalConductionStencil(NodalStencil):
    """-div (k grad T) on corner elements; moduli are k, or k along each axis."""

    def _scaled(self, moduli: list[Tensor]) -> list[Tensor]:
        if len(moduli) == 1:
            return [n * self._weight(n) * moduli[0] for n in range(1, self._degree + 1)]
        along = torch.stack(moduli)
        return [self._weight(len(key)) * along[list(key)].sum(0) for key in self._levels[-1]]

    def _law(self, fields: list[Tensor], amplitudes: dict[Axes, Tensor]) -> None:
        for place, (key, amplitude) in enumerate(amplitudes.items()):
            field = fields[len(key) - 1 if len(self._moduli) == 1 else place]
            self._record(torch.mul, amplitude, field.unsqueeze(2), out=amplitude)
