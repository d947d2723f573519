"""Two-point correlations of all phase pairs, and curves of a map of lags along directions."""

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from microstructures import DataError
from physics.statistics.correlation import as_indicators, periodic_flags
from physics.statistics.lag_maps import lag_maps, slabs, turn_lags


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
    if soft:
        return _pairs_of_fractions(list(phases.unbind(1)), wraps)
    n = _number_of_phases(phases, n_phases)
    lags = [k if wrap else 2 * k - 1 for k, wrap in zip(phases.shape[1:], wraps, strict=True)]
    maps = phases.new_empty(len(phases), n, n, *lags, dtype=dtype)
    for part in slabs(len(phases), math.prod(lags), maps):
        _fill_pairs_of_labels(maps[part], [phases[part] == p for p in range(n)], wraps)
    return maps


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


def _number_of_phases(phases: Tensor, n_phases: int | None) -> int:
    lowest, highest = int(phases.min()), int(phases.max())
    n = highest + 1 if n_phases is None else n_phases
    if lowest < 0 or highest >= n:
        raise DataError(f"expected labels from 0 to {n - 1}, got {lowest} to {highest}")
    return n


def _pairs_of_fractions(
    fractions: list[Tensor], wraps: Sequence[bool]
) -> Float[Tensor, "batch phase phase *lag"]:
    n, axes = len(fractions), list(range(1, fractions[0].ndim))
    pairs = list(itertools.combinations_with_replacement(range(n), 2))
    maps = dict(zip(pairs, lag_maps(fractions, pairs, wraps=wraps), strict=True))
    for p, q in itertools.combinations(range(n), 2):
        maps[q, p] = maps[p, q].flip(axes).roll([1] * len(axes), axes)
    return torch.stack([torch.stack([maps[p, q] for q in range(n)], 1) for p in range(n)], 1)


def _fill_pairs_of_labels(
    maps: Float[Tensor, "batch phase phase *lag"], indicators: list[Tensor], wraps: Sequence[bool]
) -> None:
    last = len(indicators) - 1
    pairs = list(itertools.combinations_with_replacement(range(last), 2))
    found = ()
    if last:
        found = lag_maps(indicators[:last], pairs, wraps=wraps, dtype=maps.dtype)
    for (p, q), correlation in zip(pairs, found, strict=True):
        maps[:, p, q] = correlation
        if p != q:
            turn_lags(correlation, maps[:, q, p])
    # What is not in another phase is in the last.
    maps[:, last, last] = 1
    for p in range(last):
        rest = maps[:, p, last]
        rest.copy_(_window_means(indicators[p].to(maps.dtype), wraps))
        maps[:, last, last] -= rest
        for q in range(last):
            rest -= maps[:, p, q]
        maps[:, last, last] -= turn_lags(rest, maps[:, last, p])


def _window_means(a: Tensor, wraps: Sequence[bool]) -> Float[Tensor, "batch *lag"]:
    """Return the mean of a(x) over the points x for which x + r exists, for every lag r.

    Periodic axes, along which it does not vary, have one entry.
    """
    for axis, wrap in reversed(list(enumerate(wraps, 1))):
        n = a.shape[axis]
        if wrap:
            a = a.mean(axis, keepdim=True)
            continue
        left = torch.arange(n, 0, -1).to(a).view(-1, *[1] * (a.ndim - 1 - axis))
        rising = a.cumsum(axis).flip(axis).div_(left)
        falling = a.flip(axis).cumsum(axis).div_(left.flip(0))
        a = torch.cat((rising, falling.narrow(axis, 0, n - 1)), axis)
    return a
