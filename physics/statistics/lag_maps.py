"""Maps of lags of pairs of fields by FFT, in slabs that stay in the cache, with exact gradients."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from scipy.fft import next_fast_len
from torch import Tensor

CACHED_VOXELS = 2**18
"""Voxels of one field that a slab holds on a CPU."""

SLAB_VOXELS = 2**27
"""The same on other devices, where a slab only bounds the memory."""


def lag_maps(
    fields: Sequence[Float[Tensor, "batch *space"]],
    pairs: Sequence[tuple[int, int]],
    *,
    wraps: Sequence[bool],
) -> tuple[Float[Tensor, "batch *lag"], ...]:
    """Return the mean of a(x) b(x + r) over all pairs of points that exist, per pair of fields.

    One forward transform per field and one inverse per pair. Lines of padding are not transformed,
    the inverse of a real power spectrum is taken for half of the lags (the rest follows from
    S(r) = S(-r)), and all but the last axis is done slab by slab. Lags lie as in
    `two_point_correlation`.

    Args:
        fields: Floats of one shape and dtype.
        pairs: Indices (of a, of b) into `fields`.
        wraps: One flag per axis, True where it is periodic.
    """
    plan = _Plan(tuple(fields[0].shape[1:]), tuple(wraps), tuple(pairs))
    return _LagMaps.apply(plan, *fields)  # pyright: ignore[reportReturnType]


@dataclass(frozen=True)
class _Plan:
    """What is transformed: the cell, and the sizes that follow from it."""

    space: tuple[int, ...]
    wraps: tuple[bool, ...]
    pairs: tuple[tuple[int, int], ...]

    @cached_property
    def padded(self) -> list[int]:
        """Lengths of the transforms."""
        return [
            n if wrap else int(next_fast_len(2 * n - 1, real=True) or 0)
            for n, wrap in zip(self.space, self.wraps, strict=True)
        ]

    @cached_property
    def lags(self) -> list[int]:
        """Numbers of lags."""
        return [n if wrap else 2 * n - 1 for n, wrap in zip(self.space, self.wraps, strict=True)]

    @property
    def axes(self) -> tuple[int, ...]:
        """Space axes of a field."""
        return tuple(range(1, len(self.space) + 1))

    def weight(self, axis: int, like: Tensor) -> Tensor:
        """Return the factors along an axis from means over padded points to means over pairs."""
        n, size, lags = self.space[axis - 1], self.padded[axis - 1], self.lags[axis - 1]
        k = torch.arange(lags)
        pairs = torch.full((lags,), size) if lags == n else n - torch.minimum(k, lags - k)
        return (size / pairs.to(torch.float64)).to(like).view(-1, *[1] * (len(self.axes) - axis))

    def crop(self, field: Tensor, axis: int) -> Tensor:
        """Return the lags along an axis without the padding between their ends."""
        n, size = self.space[axis - 1], self.padded[axis - 1]
        if self.wraps[axis - 1]:
            return field
        return torch.cat((field.narrow(axis, 0, n), field.narrow(axis, size - n + 1, n - 1)), axis)

    def uncrop(self, field: Tensor, axis: int) -> Tensor:
        """Return the adjoint of `crop`: zeros between the ends."""
        n, size = self.space[axis - 1], self.padded[axis - 1]
        if self.wraps[axis - 1]:
            return field
        gap = field.new_zeros(*field.shape[:axis], size - 2 * n + 1, *field.shape[axis + 1 :])
        return torch.cat((field.narrow(axis, 0, n), gap, field.narrow(axis, n, n - 1)), axis)


class _LagMaps(torch.autograd.Function):
    @staticmethod
    def forward(ctx, plan: _Plan, *fields: Tensor) -> tuple[Tensor, ...]:
        ctx.plan = plan
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*fields)
        first = fields[0]
        maps = tuple(first.new_empty(len(first), *plan.lags) for _ in plan.pairs)
        for part in _slabs(len(first), math.prod(plan.padded), first):
            _correlate(plan, [a[part] for a in fields], [m[part] for m in maps])
        return maps

    @staticmethod
    def backward(ctx, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        # With g the weighted gradient: da(x) = sum_r g(r) b(x + r), db(y) = sum_r g(r) a(y - r).
        plan, fields = ctx.plan, ctx.saved_tensors
        spectra = [torch.fft.rfftn(a, s=plan.padded, dim=plan.axes) for a in fields]
        totals: list[Tensor | None] = [None] * len(fields)
        for (i, j), g in zip(plan.pairs, gradients, strict=True):
            if g is None:
                continue
            for axis in plan.axes:
                g = plan.uncrop(g * plan.weight(axis, g), axis)
            g = torch.fft.rfftn(g, dim=plan.axes) / math.prod(plan.padded)
            for k, term in ((i, g.conj() * spectra[j]), (j, g * spectra[i])):
                before = totals[k]
                totals[k] = term if before is None else before + term
        own = (slice(None), *[slice(n) for n in plan.space])
        return None, *(
            None if t is None else torch.fft.irfftn(t, s=plan.padded, dim=plan.axes)[own]
            for t in totals
        )


def _correlate(plan: _Plan, fields: list[Tensor], maps: list[Tensor]) -> None:
    """Fill the maps of some samples."""
    spectra = [torch.fft.rfft(a, n=plan.padded[-1], norm="forward") for a in fields]
    batch, lines = len(fields[0]), spectra[0].shape[-1]
    # An autocorrelation needs the lags of one sign along the first axis only.
    rows = [plan.lags[0] // 2 + 1 if i == j else plan.lags[0] for i, j in plan.pairs]
    columns = [spectra[0].new_empty(batch, n, *plan.lags[1:-1], lines) for n in rows]
    for part in _slabs(lines, batch * math.prod(plan.padded[:-1]), fields[0]):
        _first_lags(plan, [s[..., part] for s in spectra], [c[..., part] for c in columns])
    for (i, j), column, found in zip(plan.pairs, columns, maps, strict=True):
        _last_lags(plan, column, found, mirrored=i == j)


def _first_lags(plan: _Plan, spectra: list[Tensor], columns: list[Tensor]) -> None:
    """Transform all axes but the last to and fro, for some frequencies of the last."""
    # Axes turned round, so that the first of space, whose transform is halved, is contiguous.
    turned = (0, *plan.axes[::-1])
    settings = {"dim": plan.axes[1:], "norm": "forward"}
    spectra = [
        torch.fft.fftn(s.permute(turned).contiguous(), s=plan.padded[-2::-1], **settings)
        for s in spectra
    ]
    for (i, j), column in zip(plan.pairs, columns, strict=True):
        if i == j:
            power = spectra[i].real.square() + spectra[i].imag.square()
            found = torch.fft.ihfftn(power, **settings).permute(turned)[:, : column.shape[1]]
        else:
            product = spectra[i].conj() * spectra[j]
            found = plan.crop(torch.fft.ifftn(product, **settings).permute(turned), 1)
        for axis in plan.axes[1:-1]:
            found = plan.crop(found, axis)
        column.copy_(found)


def _last_lags(plan: _Plan, columns: Tensor, found: Tensor, *, mirrored: bool) -> None:
    """Transform the last axis back, some rows at a time, weigh, and mirror what was left out."""
    rows = plan.lags[0]
    first, *rest = (plan.weight(axis, found) for axis in plan.axes)
    plane = math.prod(rest[1:], start=rest[0])
    for part in _slabs(columns.shape[1], len(found) * math.prod(plan.padded[1:]), found):
        block = torch.fft.irfft(columns[:, part], n=plan.padded[-1], norm="forward")
        if not all(plan.wraps):
            block = plan.crop(block, len(plan.axes)).mul_(plane).mul_(first[part])
        found[:, part] = block
        # Row k of lags is row -k turned round; row 0 and, of an even number, the middle are whole.
        low, high = max(part.start, 1), min(part.stop, (rows + 1) // 2)
        if mirrored and low < high:
            block = block[:, low - part.start : high - part.start]
            _copy_turned(block, found[:, rows - high + 1 : rows - low + 1])


def _copy_turned(block: Tensor, out: Tensor) -> None:
    """Copy rows of lags in turn, with the sign of the lags along the other axes turned too."""
    block = block.flip(tuple(range(1, block.ndim)))
    ends = ((slice(0, 1), slice(-1, None)), (slice(1, None), slice(0, -1)))
    for chosen in itertools.product(ends, repeat=block.ndim - 2):
        there, here = zip(*chosen, strict=True)
        out[(..., *there)] = block[(..., *here)]


def _slabs(length: int, voxels: int, like: Tensor) -> Iterator[slice]:
    """Yield runs of `length` things of so many voxels each."""
    step = max(1, (CACHED_VOXELS if like.device.type == "cpu" else SLAB_VOXELS) // voxels)
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))
