"""Two-point correlation: how often two points a lag apart lie in given phases."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Shaped
from torch import Tensor

from microstructures import DataError
from physics.statistics.lag_maps import lag_maps


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
    _check_rank(a)
    if b is not None and b.shape != a.shape:
        raise DataError(f"expected b in the shape of a, {tuple(a.shape)}, got {tuple(b.shape)}")
    wraps = periodic_flags(periodic, a.ndim - 1)
    if b is None:
        return lag_maps([a], [(0, 0)], wraps=wraps)[0]
    return lag_maps([a, b.to(a.device)], [(0, 1)], wraps=wraps)[0]


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
    ring, mean_radius, counts = (torch.from_numpy(x) for x in _rings(tuple(shape), max_lag))
    for axis in range(1, correlation.ndim):
        correlation = _folded(correlation, axis, max_lag + 1)
    values = rearrange(correlation, "batch ... -> batch (...)")
    sums = values.new_zeros(len(values), len(counts) + 1)
    means = sums.index_add(1, ring.to(values.device), values)[:, :-1] / counts.to(values)
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
    _check_rank(a)
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


def _check_rank(a: Tensor) -> None:
    if a.ndim not in (3, 4) or 0 in a.shape:
        raise DataError(
            f"expected indicators (batch, *space) with 2 or 3 space axes, got {tuple(a.shape)}"
        )


def _folded(lags: Tensor, axis: int, reach: int) -> Tensor:
    """Return the sums over both signs of the lags 0 to `reach` along an axis."""
    n = lags.shape[axis]
    folded = lags.narrow(axis, 0, min(reach, n // 2) + 1).clone()
    # Of an even number of lags the middle one is its own mirror image.
    negative = min(reach, (n - 1) // 2)
    if negative:
        folded.narrow(axis, 1, negative).add_(lags.narrow(axis, n - negative, negative).flip(axis))
    return folded


@lru_cache(maxsize=4)
def _rings(shape: tuple[int, ...], max_lag: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the ring of every folded lag, and each ring's mean radius and number of lags.

    Lags outside all rings have the number of rings for theirs.
    """
    counts, square = np.ones(()), np.zeros(())
    for n in shape:
        lags = np.arange(min(max_lag + 1, n // 2) + 1)
        signs = np.where((lags == 0) | (2 * lags == n), 1, 2)
        counts, square = counts[..., None] * signs, square[..., None] + lags**2
    radius, counts = np.sqrt(square).ravel(), counts.ravel()
    ring = (radius + 0.5).astype(np.int64)
    rings = min(max_lag + 1, int(ring.max())) + 1
    total = np.bincount(ring, counts)[:rings]
    return ring.clip(max=rings), np.bincount(ring, counts * radius)[:rings] / total, total
