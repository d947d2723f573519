"""Maps of lags of pairs of fields by FFT, in slabs that stay in the cache, with exact gradients."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Shaped
from scipy.fft import next_fast_len
from torch import Tensor

CACHED_VOXELS = 2**18
"""Voxels of one field that a slab holds on a CPU."""

SLAB_VOXELS = 2**27
"""The same on other devices, where a slab only bounds the memory."""

WHOLE_VOXELS = 2**22
"""Voxels up to which periodic samples are transformed as a whole."""


def lag_maps(
    fields: Sequence[Shaped[Tensor, "batch *space"]],
    pairs: Sequence[tuple[int, int]],
    *,
    wraps: Sequence[bool],
    dtype: torch.dtype | None = None,
) -> tuple[Float[Tensor, "batch *lag"], ...]:
    """Return the mean of a(x) b(x + r) over all pairs of points that exist, per pair of fields.

    One forward transform per field and one inverse per pair. Lines of padding are not transformed,
    the inverse of a real power spectrum is taken for half of the lags (the rest follows from
    S(r) = S(-r)), and all but the last axis is done slab by slab. Lags lie as in
    `two_point_correlation`.

    Args:
        fields: Of one shape.
        pairs: Indices (of a, of b) into `fields`.
        wraps: One flag per axis, True where it is periodic.
        dtype: Precision; None for that of the first field, float32 where that is no float.
    """
    if dtype is None:
        dtype = fields[0].dtype if fields[0].is_floating_point() else torch.float32
    plan = _Plan(tuple(fields[0].shape[1:]), tuple(wraps), tuple(pairs), dtype)
    return _LagMaps.apply(plan, *fields)  # pyright: ignore[reportReturnType]


def turn_lags(
    lags: Float[Tensor, "batch *lag"], out: Float[Tensor, "batch *lag"]
) -> Float[Tensor, "batch *lag"]:
    """Write a map of lags at -r for r into `out`, not differentiably, and return that."""
    rows = lags.shape[1]
    _copy_turned(lags[:, :1], out[:, :1])
    for part in slabs(rows - 1, lags[:, 0].numel(), lags):
        rest = lags[:, 1 + part.start : 1 + part.stop]
        _copy_turned(rest, out[:, rows - part.stop : rows - part.start])
    return out


def slabs(length: int, voxels: int, like: Tensor) -> Iterator[slice]:
    """Yield runs of `length` things of so many voxels each, to be treated slab by slab."""
    step = max(1, (CACHED_VOXELS if like.device.type == "cpu" else SLAB_VOXELS) // voxels)
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


@dataclass(frozen=True)
class _Plan:
    """What is transformed: the cell, and the sizes that follow from it."""

    space: tuple[int, ...]
    wraps: tuple[bool, ...]
    pairs: tuple[tuple[int, int], ...]
    dtype: torch.dtype

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

    def rows(self, auto: bool) -> int:
        """Return the lags needed along the first axis: of one sign for an autocorrelation."""
        return self.lags[0] // 2 + 1 if auto else self.lags[0]

    def columns(self, spectrum: Tensor) -> list[tuple[int, ...]]:
        """Return the shapes that hold the lags along all axes but the last."""
        return [
            (len(spectrum), self.rows(i == j), *self.lags[1:-1], spectrum.shape[-1])
            for i, j in self.pairs
        ]

    def weights(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights along the first axis, and those along the others multiplied."""
        first, *rest = (self.weight(axis, like) for axis in self.axes)
        return first, math.prod(rest[1:], start=rest[0])

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
        shape = (len(first), *plan.lags)
        maps = tuple(first.new_empty(shape, dtype=plan.dtype) for _ in plan.pairs)
        for part in slabs(len(first), math.prod(plan.padded), first):
            # Torch converts bytes several times faster than booleans.
            some = [a[part].view(torch.int8) if a.dtype is torch.bool else a[part] for a in fields]
            some = [a.to(plan.dtype) for a in some]
            _correlate(plan, some, [m[part] for m in maps])
        return maps

    @staticmethod
    def backward(ctx, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        # With g the weighted gradient: da(x) = sum_r g(r) b(x + r), db(y) = sum_r g(r) a(y - r).
        plan, fields = ctx.plan, ctx.saved_tensors
        settings = {"s": plan.padded, "dim": plan.axes}
        spectra = [torch.fft.rfftn(a.to(plan.dtype), **settings) for a in fields]
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
            torch.fft.irfftn(t, **settings)[own].to(a.dtype) if needed and t is not None else None
            for a, t, needed in zip(fields, totals, ctx.needs_input_grad[1:], strict=True)
        )


def _correlate(plan: _Plan, fields: list[Tensor], maps: list[Tensor]) -> None:
    """Fill the maps of some samples."""
    # Axes turned round: the first of space, along which an inverse is halved, is to come last.
    turned = (0, *plan.axes[::-1])
    if all(plan.wraps) and fields[0].numel() <= WHOLE_VOXELS:
        spectra = [torch.fft.rfftn(a, dim=plan.axes, norm="forward") for a in fields]
        columns = _first_lags(plan, [s.permute(turned) for s in spectra])
    else:
        spectra = [torch.fft.rfft(a, n=plan.padded[-1], norm="forward") for a in fields]
        columns = [spectra[0].new_empty(shape) for shape in plan.columns(spectra[0])]
        voxels = len(fields[0]) * math.prod(plan.padded[:-1])
        for part in slabs(spectra[0].shape[-1], voxels, fields[0]):
            blocks = [s[..., part].permute(turned).contiguous() for s in spectra]
            settings = {"s": plan.padded[-2::-1], "dim": plan.axes[1:], "norm": "forward"}
            blocks = [torch.fft.fftn(block, **settings) for block in blocks]
            for column, found in zip(columns, _first_lags(plan, blocks), strict=True):
                column[..., part] = found
    for (i, j), column, found in zip(plan.pairs, columns, maps, strict=True):
        _last_lags(plan, column, found, mirrored=i == j)


def _first_lags(plan: _Plan, spectra: list[Tensor]) -> list[Tensor]:
    """Return the lags along all axes but the last of turned spectra, in the order of space."""
    settings = {"dim": plan.axes[1:], "norm": "forward"}
    turned = (0, *plan.axes[::-1])
    columns = []
    for i, j in plan.pairs:
        if i == j:
            power = spectra[i].real.square() + spectra[i].imag.square()
            found = torch.fft.ihfftn(power, **settings).permute(turned)[:, : plan.rows(i == j)]
        else:
            product = spectra[i].conj() * spectra[j]
            found = plan.crop(torch.fft.ifftn(product, **settings).permute(turned), 1)
        for axis in plan.axes[1:-1]:
            found = plan.crop(found, axis)
        columns.append(found)
    return columns


def _last_lags(plan: _Plan, columns: Tensor, found: Tensor, *, mirrored: bool) -> None:
    """Transform the last axis back, some rows at a time, weigh, and mirror what was left out."""
    rows, weights = plan.lags[0], None if all(plan.wraps) else plan.weights(found)
    for part in slabs(columns.shape[1], len(found) * math.prod(plan.padded[1:]), found):
        block = torch.fft.irfft(columns[:, part], n=plan.padded[-1], norm="forward")
        if weights is not None:
            block = plan.crop(block, len(plan.axes)).mul_(weights[1]).mul_(weights[0][part])
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
