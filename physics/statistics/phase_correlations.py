"""Two-point correlations of all phase pairs, and curves of a map of lags along directions."""

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from microstructures import DataError
from physics.statistics.correlation import as_indicators, periodic_flags
from physics.statistics.lag_maps import lag_maps


def phase_correlations(
    phases: Shaped[Tensor, "batch *dims"],
    *,
    n_phases: int | None = None,
    periodic: bool | Sequence[bool] = True,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "batch phase phase *lag"]:
    """Return S_pq(r), the probability that x lies in phase p and x + r in q, for all pairs.

    Lags lie as in `two_point_correlation`. Labels take one transform per phase but the last:
    S_qp(r) = S_pq(-r), and sum_q S_pq(r) is the fraction of p among the points x of the pairs.
    Soft fractions, in which the map is differentiable, need not sum to 1 and take one per phase.

    Args:
        phases: Integer labels `(batch, *space)`, or float fractions `(batch, phase, *space)`.
        n_phases: Number of labels; None for the largest one present plus 1.
        periodic: One flag for all axes, or one per axis.
        dtype: Precision for labels; fractions keep their own.

    Raises:
        DataError: Not 2-D or 3-D, or labels outside 0 ... n_phases - 1.

    >>> stripes = torch.tensor([[[1, 0], [1, 0]]])
    >>> phase_correlations(stripes)[0, 0, 1]
    tensor([[0.0000, 0.5000],
            [0.0000, 0.5000]])
    """
    soft = phases.is_floating_point() and phases.ndim > 1
    wraps = periodic_flags(periodic, as_indicators(phases[:, 0] if soft else phases).ndim - 1)
    if soft and n_phases not in (None, phases.shape[1]):
        raise DataError(f"expected fractions of {n_phases} phases, got {phases.shape[1]}")
    indicators = list(phases.unbind(1)) if soft else _indicators(phases, n_phases, dtype)
    own = indicators if soft else indicators[:-1]
    pairs = list(itertools.combinations_with_replacement(range(len(own)), 2))
    maps = dict(zip(pairs, lag_maps(own, pairs, wraps=wraps), strict=True)) if own else {}
    for p, q in pairs:
        if p < q:
            maps[q, p] = _turned(maps[p, q])
    if not soft:
        last = len(own)
        for p in range(last + 1):
            maps[p, last] = _window_means(indicators[p], wraps)
            for q in range(last):
                maps[p, last] -= maps[p, q]
            maps[last, p] = _turned(maps[p, last])
    n = len(indicators)
    rows = [torch.stack([maps[p, q] for q in range(n)], 1) for p in range(n)]
    return torch.stack(rows, 1)


def directional_correlation(
    correlation: Float[Tensor, "batch *lag"],
    *,
    max_lag: int,
    directions: Sequence[Sequence[int]] | None = None,
) -> Float[Tensor, "batch direction step"]:
    """Return a map of lags at r = 0, v, 2 v, ..., max_lag v for lattice directions v.

    Nothing is interpolated: step k along v is k |v| voxels long.

    Args:
        correlation: A map with zero lag at index 0, `(batch, *lag)`.
        max_lag: Number of steps.
        directions: Whole-numbered vectors; None for the axes. `lattice_directions` gives them
            together with the diagonals.

    Returns:
        Shape `(batch, direction, max_lag + 1)`.

    Raises:
        DataError: A direction is no vector of the space, or the steps leave the map.
    """
    lags = correlation.shape[1:]
    chosen = lattice_directions(len(lags))[: len(lags)] if directions is None else directions
    curves = []
    for v in chosen:
        if len(v) != len(lags) or not any(v):
            raise DataError(f"expected directions of {len(lags)} numbers, not all 0, got {v}")
        if max_lag < 0 or any(max_lag * abs(k) > n // 2 for k, n in zip(v, lags, strict=True)):
            raise DataError(
                f"expected max_lag steps of {tuple(v)} inside half a map of {tuple(lags)} lags, "
                f"got {max_lag}"
            )
        steps = torch.arange(max_lag + 1)
        at = tuple((steps * k) % n for k, n in zip(v, lags, strict=True))
        curves.append(correlation[(slice(None), *at)])
    return torch.stack(curves, 1)


def lattice_directions(ndim: int) -> list[tuple[int, ...]]:
    """Return the directions to the nearest voxels up to sign: axes, plane, space diagonals.

    4 in 2-D, 13 in 3-D.
    """
    vectors = itertools.product((0, 1, -1), repeat=ndim)
    halved = [v for v in vectors if next((k for k in v if k), 0) > 0]
    return sorted(halved, key=lambda v: (sum(map(abs, v)), [-k for k in v]))


def _indicators(phases: Tensor, n_phases: int | None, dtype: torch.dtype) -> list[Tensor]:
    lowest, highest = int(phases.min()), int(phases.max())
    n = highest + 1 if n_phases is None else n_phases
    if lowest < 0 or highest >= n:
        raise DataError(f"expected labels from 0 to {n - 1}, got {lowest} to {highest}")
    return [(phases == p).to(dtype) for p in range(n)]


def _turned(correlation: Tensor) -> Tensor:
    """Return the map of lags at -r."""
    axes = list(range(1, correlation.ndim))
    return correlation.flip(axes).roll([1] * len(axes), axes)


def _window_means(a: Tensor, wraps: Sequence[bool]) -> Float[Tensor, "batch *lag"]:
    """Return the mean of a(x) over the points x for which x + r exists, for every lag r."""
    lags = [n if wrap else 2 * n - 1 for n, wrap in zip(a.shape[1:], wraps, strict=True)]
    for axis, (n, wrap) in enumerate(zip(a.shape[1:], wraps, strict=True), 1):
        if wrap:
            a = a.mean(axis, keepdim=True)
            continue
        left = torch.arange(n, 0, -1).to(a).view(-1, *[1] * (a.ndim - 1 - axis))
        rising = a.cumsum(axis).flip(axis) / left
        falling = a.flip(axis).cumsum(axis) / left.flip(0)
        a = torch.cat((rising, falling.narrow(axis, 0, n - 1)), axis)
    return a.expand(-1, *lags).contiguous()
