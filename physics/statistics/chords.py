"""Chords: the segments that a phase cuts out of lines along the axes."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float64, Int64, Shaped
from torch import Tensor

from microstructures import DataError
from physics.statistics.clusters import is_inside
from physics.statistics.correlation import as_indicators, periodic_flags


def chord_counts(
    a: Shaped[Tensor, "batch *space"],
    *,
    max_length: int,
    periodic: bool | Sequence[bool] = True,
) -> Int64[Tensor, "batch axis length"]:
    """Return the number of whole chords of each length in voxels, along each axis.

    Chords cut off by a face that is not periodic do not count, nor do lines without an end: a
    periodic line wholly in the phase. Arguments, shape and errors as for
    `chord_length_distribution`.
    """
    counts = _all_counts(a, max_length, periodic)
    return torch.stack([_cut(found, max_length) for found in counts], 1)


def chord_length_distribution(
    a: Shaped[Tensor, "batch *space"],
    *,
    max_length: int,
    periodic: bool | Sequence[bool] = True,
) -> Float64[Tensor, "batch axis length"]:
    """Return the share of chords that are z voxels long, for z = 0, 1, ..., max_length.

    p_i(z) of Torquato and Lu 1993 (doi:10.1103/PhysRevE.47.2950), by number: the shares of all
    lengths add up to 1. On voxels the density of chords is the second difference of the lineal
    path, N_i p_i(z) = L_i(z - 1) - 2 L_i(z) + L_i(z + 1) with N_i that of all chords, which also
    gives gradients. Along an axis that is not periodic only whole chords count, each in inverse
    proportion to the n - 1 - z places at which one so long fits with both its ends into the cell,
    lest long ones be too few (Miles 1974); chords longer than n - 2 cannot be seen.

    Args:
        a: Indicators, `(batch, *space)`; soft ones are cut at 1/2.
        max_length: Longest chord in voxels, at most the longest axis.
        periodic: One flag for all axes, or one per axis.

    Returns:
        Shape `(batch, axis, max_length + 1)`; 0 where there are no chords.

    Raises:
        DataError: Not 2-D or 3-D, or max_length does not fit the shape.

    >>> lines = torch.tensor([[[1, 0, 1, 1, 0], [0, 0, 0, 0, 1]]])
    >>> chord_length_distribution(lines, max_length=2)[0, 1]
    tensor([0.0000, 0.6667, 0.3333], dtype=torch.float64)
    """
    flags = periodic_flags(periodic, a.ndim - 1)
    shares = []
    for found, wrap in zip(_all_counts(a, max_length, periodic), flags, strict=True):
        n = found.shape[1] - 1
        places = torch.full((n + 1,), n) if wrap else (n - 1 - torch.arange(n + 1)).clamp(min=1)
        weighted = found / places.to(a.device, torch.float64)
        whole = weighted.sum(1, keepdim=True)
        shares.append(_cut(weighted / torch.where(whole > 0, whole, 1.0), max_length))
    return torch.stack(shares, 1)


def mean_chord_length(
    a: Shaped[Tensor, "batch *space"], *, periodic: bool | Sequence[bool] = True
) -> Float[Tensor, "batch axis"]:
    """Return the mean length of a phase's chords along each axis, in voxels.

    The fraction over the number of chords per unit length of line, which is half that of the
    phase's faces across the axis (Underwood 1970): 2 phi / <|a(x + e_i) - a(x)|>. Chords cut off by
    a face of the cell bias nothing. The mean over isotropic axes is 4 phi / s in 3-D, pi phi / s
    in 2-D, s the surface per volume. Infinite
    where the phase fills the cell, nan where it is absent. Differentiable in soft indicators.

    Args:
        a: Indicators, `(batch, *space)`; bool and integers are taken as float32.
        periodic: One flag for all axes, or one per axis.

    Raises:
        DataError: Not 2-D or 3-D.
    """
    a = as_indicators(a)
    axes = tuple(range(1, a.ndim))
    means = []
    for axis, wrap in zip(axes, periodic_flags(periodic, len(axes)), strict=True):
        step = a.roll(-1, axis) - a if wrap else a.diff(dim=axis)
        means.append(2 * a.mean(axes) / step.abs().mean(axes))
    return torch.stack(means, 1)


def _all_counts(
    a: Tensor, max_length: int, periodic: bool | Sequence[bool]
) -> list[Int64[Tensor, "batch length"]]:
    """Return, per axis of n voxels, the numbers of whole chords 0 to n voxels long."""
    inside = is_inside(a)
    longest = max(a.shape[1:])
    if not 0 <= max_length <= longest:
        raise DataError(f"expected max_length from 0 to {longest} voxels, got {max_length}")
    counts = []
    for axis, wrap in enumerate(periodic_flags(periodic, a.ndim - 1), 1):
        lines = inside.movedim(axis, -1).flatten(1, -2)
        bins = len(a), lines.shape[2] + 1
        sample, lengths = _chords(lines, wrap)
        found = torch.bincount(sample * bins[1] + lengths, minlength=bins[0] * bins[1])
        counts.append(found.view(bins))
    return counts


def _cut(by_length: Tensor, max_length: int) -> Tensor:
    """Return the entries for lengths 0 to max_length; none are longer than the axis."""
    return F.pad(by_length, (0, max_length + 1 - by_length.shape[1]))


def _chords(
    lines: Bool[Tensor, "batch line n"], wrap: bool
) -> tuple[Int64[Tensor, " chord"], Int64[Tensor, " chord"]]:
    """Return the sample and the length of every whole chord."""
    _, per_sample, n = lines.shape
    before, after = lines.roll(1, -1), lines.roll(-1, -1)
    if not wrap:
        before[..., 0] = after[..., -1] = False
    first = (lines & ~before).flatten().nonzero()[:, 0]
    last = (lines & ~after).flatten().nonzero()[:, 0]
    line = first // n
    # A chord ends where the next run of its line does, or, past the face, where the first does.
    end = torch.searchsorted(last, first)
    past = (end == len(last)) | (last[end.clamp(max=len(last) - 1)] // n != line)
    end = last[torch.where(past, torch.searchsorted(last, line * n), end)]
    lengths = (end - first) % n + 1
    whole = torch.full_like(past, True) if wrap else (first % n > 0) & (end % n < n - 1)
    return line[whole] // per_sample, lengths[whole]
