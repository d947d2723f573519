"""Two-point correlation: how often two points a lag apart lie in given phases."""

import math
from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float, Shaped
from scipy.fft import next_fast_len
from torch import Tensor

from microstructures import DataError

CACHED_VOXELS = 2**19


def two_point_correlation(
    a: Shaped[Tensor, "batch *space"],
    b: Shaped[Tensor, "..."] | None = None,
    *,
    periodic: bool | Sequence[bool] = True,
) -> Float[Tensor, "batch *lag"]:
    """Return the probability that a(x) and b(x + r) both hold, for every lag r.

    S_ab(r) = <a(x) b(x + r)>, by FFT (Torquato 2002, section 2.2). Differentiable in soft
    indicators. Lags are wrapped as FFT frequencies are: lag 0 at index 0, negative lags at the
    end (`lag_vectors` gives them). A periodic axis of n voxels has n lags; an axis that is not
    periodic has the 2n - 1 lags with |r| < n, each divided by its true number of pairs.

    Args:
        a: Indicators, `(batch, *space)`; bool and integers are taken as float32.
        b: Second indicators of the same shape; None for the autocorrelation of a.
        periodic: One flag for all axes, or one per axis.

    Raises:
        DataError: Not 2-D or 3-D, or a and b differ in shape.

    >>> stripes = torch.tensor([[[1, 0], [1, 0]]])
    >>> two_point_correlation(stripes)[0]
    tensor([[0.5000, 0.0000],
            [0.5000, 0.0000]])
    """
    a = as_indicators(a)
    if b is not None and b.shape != a.shape:
        raise DataError(f"expected b in the shape of a, {tuple(a.shape)}, got {tuple(b.shape)}")
    b = a if b is None else as_indicators(b).to(a)
    wraps = periodic_flags(periodic, a.ndim - 1)
    padded = [
        n if wrap else int(next_fast_len(2 * n - 1, real=True) or 0)
        for n, wrap in zip(a.shape[1:], wraps, strict=True)
    ]
    # A few samples at a time, so that transforms stay in the processor's cache.
    samples = max(1, CACHED_VOXELS // math.prod(padded))
    chunks = zip(a.split(samples), b.split(samples), strict=True)
    maps = [_correlate(x, x if b is a else y, padded, wraps) for x, y in chunks]
    return maps[0] if len(maps) == 1 else torch.cat(maps)


def lag_vectors(shape: Sequence[int]) -> Float[Tensor, "axis *lag"]:
    """Return the lag in voxels that each entry of a map of lags of this shape stands for."""
    lags = [torch.fft.fftfreq(n, d=1 / n) for n in shape]
    return torch.stack(torch.meshgrid(*lags, indexing="ij"))


def radial_mean(
    correlation: Float[Tensor, "batch *lag"], *, max_lag: int
) -> Float[Tensor, "batch radius"]:
    """Return the mean over directions of a map of lags at |r| = 0, 1, ..., max_lag voxels.

    Lags are averaged in rings k - 1/2 <= |r| < k + 1/2. Since the mean radius of a ring is not k
    (1.21 for k = 1 in 2-D), the ring means are interpolated linearly to the whole radii.

    Args:
        correlation: A map with zero lag at index 0, `(batch, *lag)`.
        max_lag: At most half the map's shortest axis, so that every ring is whole.

    Returns:
        Shape `(batch, max_lag + 1)`.

    Raises:
        DataError: max_lag is negative or beyond half the map.
    """
    shape = correlation.shape[1:]
    check_max_lag(max_lag, min(shape) // 2)
    radius = lag_vectors(shape).to(torch.float64).square().sum(0).sqrt().flatten()
    ring = (radius + 0.5).long()
    # Only the lags inside the last ring, ring by ring: a fast gather.
    inside = torch.nonzero(ring <= max_lag + 1).squeeze(1)
    inside = inside[torch.argsort(ring[inside], stable=True)]
    ring, radius = ring[inside], radius[inside]
    counts = torch.bincount(ring)
    mean_radius = radius.new_zeros(len(counts)).index_add(0, ring, radius) / counts
    values = rearrange(correlation, "batch ... -> batch (...)")[:, inside.to(correlation.device)]
    means = values.new_zeros(len(values), len(counts))
    means = means.index_add(1, ring.to(values.device), values) / counts.to(values)
    wanted = torch.arange(max_lag + 1, dtype=torch.float64)
    above = torch.searchsorted(mean_radius, wanted).clamp(max=len(counts) - 1)
    below = (above - 1).clamp(min=0)
    step = (mean_radius[above] - mean_radius[below]).clamp(min=1e-12)
    share = ((wanted - mean_radius[below]) / step).clamp(0, 1).to(values)
    return means[:, below] * (1 - share) + means[:, above] * share


def isotropic_map(
    curve: Float[Tensor, "batch radius"], *, shape: Sequence[int]
) -> Float[Tensor, "batch *lag"]:
    """Return the map of lags of a periodic cell whose value depends on |r| alone.

    Linear interpolation of the curve at the shortest periodic image of each lag; beyond the last
    entry the curve's last value holds.
    """
    radius = lag_vectors(shape).square().sum(0).sqrt().to(curve)
    last = curve.shape[1] - 1
    below = radius.long().clamp(max=max(last - 1, 0))
    weight = (radius - below).clamp(max=1.0)
    above = (below + 1).clamp(max=last)
    return curve[:, below] * (1 - weight) + curve[:, above] * weight


def as_indicators(a: Shaped[Tensor, "batch *space"]) -> Float[Tensor, "batch *space"]:
    """Return indicators as floats, checked to be a batch of 2-D or 3-D fields."""
    if a.ndim not in (3, 4) or 0 in a.shape:
        raise DataError(
            f"expected indicators (batch, *space) with 2 or 3 space axes, got {tuple(a.shape)}"
        )
    return a if a.is_floating_point() else a.to(torch.float32)


def periodic_flags(periodic: bool | Sequence[bool], ndim: int) -> tuple[bool, ...]:
    """Return one flag per axis.

    Raises:
        DataError: The number of flags is neither one nor one per axis.
    """
    flags = (periodic,) if isinstance(periodic, bool) else tuple(bool(p) for p in periodic)
    flags = flags * ndim if len(flags) == 1 else flags
    if len(flags) != ndim:
        raise DataError(f"expected one periodic flag, or one per each of {ndim} axes, got {flags}")
    return flags


def check_max_lag(max_lag: int, largest: int) -> None:
    """Raise DataError unless 0 <= max_lag <= largest."""
    if not 0 <= max_lag <= largest:
        raise DataError(
            f"expected max_lag from 0 to {largest} voxels for this shape, got {max_lag}"
        )


def _correlate(a: Tensor, b: Tensor, padded: Sequence[int], wraps: Sequence[bool]) -> Tensor:
    space, axes = a.shape[1:], tuple(range(1, a.ndim))
    spectrum = torch.fft.rfftn(a, s=padded, dim=axes, norm="forward")
    if b is a:
        product = spectrum.real.square() + spectrum.imag.square()
    else:
        product = spectrum.conj() * torch.fft.rfftn(b, s=padded, dim=axes, norm="forward")
    correlation = torch.fft.irfftn(product, s=padded, dim=axes, norm="forward")
    if all(wraps):
        return correlation
    weight = torch.ones((), dtype=torch.float64)
    for axis, n, size, wrap in zip(axes, space, padded, wraps, strict=True):
        pairs = torch.full((n,), size)
        if not wrap:
            ends = correlation.narrow(axis, 0, n), correlation.narrow(axis, size - n + 1, n - 1)
            correlation = torch.cat(ends, axis)
            pairs = n - torch.cat([torch.arange(n), torch.arange(n - 1, 0, -1)])
        weight = weight.unsqueeze(-1) * (size / pairs.to(torch.float64))
    return correlation * weight.to(correlation)
