"""Necessary conditions that the two-point correlation of a two-phase structure must meet."""

import itertools
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from microstructures import DataError


@dataclass(frozen=True)
class Condition:
    """One necessary condition: it holds where `margin` is at least minus the tolerance.

    `margin` is in probability units, shape `(batch,)`; negative means broken by that much.
    """

    name: str
    statement: str
    margin: Tensor

    @property
    def worst(self) -> float:
        """The smallest margin of the batch."""
        return float(self.margin.min())


@dataclass(frozen=True)
class RealizabilityReport:
    """What `check_realizable` found, condition by condition."""

    conditions: tuple[Condition, ...]
    tolerance: float

    @property
    def holds(self) -> Bool[Tensor, " batch"]:
        """Whether each candidate of the batch meets every condition."""
        worst = torch.stack([c.margin for c in self.conditions]).amin(0)
        return worst >= -self.tolerance

    @property
    def ok(self) -> bool:
        """Whether all candidates meet every condition."""
        return bool(self.holds.all())

    @property
    def broken(self) -> tuple[Condition, ...]:
        """The conditions that some candidate breaks."""
        return tuple(c for c in self.conditions if c.worst < -self.tolerance)

    def __str__(self) -> str:
        rows = [
            f"{'broken' if c in self.broken else 'holds':7}{c.name:20}{c.worst:+.2e}  {c.statement}"
            for c in self.conditions
        ]
        return "\n".join(rows)


def check_realizable(
    correlation: Float[Tensor, "batch *lag"],
    fraction: Float[Tensor, " batch"] | float | None = None,
    *,
    tolerance: float = 1e-5,
    fraction_variance: Float[Tensor, " batch"] | float | None = None,
) -> RealizabilityReport:
    """Check necessary conditions on candidate two-point correlations of a phase.

    The candidate is a map over the lags of a periodic cell, zero lag at index 0
    (`isotropic_map` makes one from a radial curve). With phi = S2(0), gamma(r) = phi - S2(r),
    half the probability that the indicator differs across r, and the spectral density chi(k) of
    S2 - phi^2 in units where its sum over wave vectors is phi (1 - phi):

    - fraction: S2(0) is the given fraction, inside [0, 1];
    - lower and upper bound: max(0, 2 phi - 1) <= S2(r) <= phi, which is also that the
      correlations with and of the other phase, phi - S2 and 1 - 2 phi + S2, are probabilities;
    - symmetry: S2(r) = S2(-r);
    - spectrum: chi(k) >= 0 for all k;
    - fraction variance: chi(0), the mean of S2 - phi^2 over all lags, is the variance of the
      cell's volume fraction: the given one, else any up to phi (1 - phi);
    - far limit: S2 tends to phi^2 or, with long-range order, oscillates about no less: its mean
      over all lags is <phi_cell^2> >= phi^2. A limit above phi^2 is a cell whose fraction varies,
      which `fraction_variance` confirms or denies;
    - slope: |S2(r + e) - S2(r)| <= S2(0) - S2(e) for a step e of one voxel along an axis: S2 falls
      from the origin, nowhere steeper than there, where its slope is -s/4 (3-D) or -s/pi (2-D)
      for the specific surface s;
    - triangle: gamma(r + s) <= gamma(r) + gamma(s), that is S2(r) + S2(s) - S2(r + s) <= phi;
    - three points: S2(r) + S2(s) + S2(r + s) >= 3 phi - 1.

    The last two are tried for all r and for s along axes and diagonals at powers of two; with the
    bounds they are all that probabilities at three points must meet. The conditions are
    necessary, not sufficient (Torquato 2002, section 2.2; Yeong and Torquato 1998,
    doi:10.1103/PhysRevE.57.495; Torquato 2006, doi:10.1021/ie058082t; Shepp 1963 for the
    triangle). The map of one real image meets them to round-off, at a fraction variance of 0. A
    map estimated without periodicity need not have a positive spectrum on its lag grid: pass
    periodic maps.

    Args:
        correlation: S2 of one phase, `(batch, *lag)`.
        fraction: The phase's volume fraction, per candidate or for all; None takes S2(0).
        tolerance: How far a margin may be below zero; 1e-5 covers float32 maps.
        fraction_variance: Variance of the volume fraction over the cells that the candidate
            stands for, per candidate or for all; None leaves it open.

    Raises:
        DataError: Not a batch of 2-D or 3-D maps, or not finite, or the variance is negative.

    >>> debye = 0.09 + 0.21 * torch.exp(-torch.arange(33, dtype=torch.float64) / 4)
    >>> report = check_realizable(isotropic_map(debye[None], shape=(64, 64)), tolerance=1e-4)
    >>> report.ok
    True
    """
    if correlation.ndim not in (3, 4) or not bool(correlation.isfinite().all()):
        raise DataError(
            "expected finite maps of lags (batch, *lag) with 2 or 3 lag axes, got shape "
            f"{tuple(correlation.shape)}; make a map from a curve with isotropic_map"
        )
    s2 = correlation.detach().to(torch.float64)
    phi = s2.flatten(1)[:, 0]
    conditions = (
        *_pointwise(s2, phi, fraction),
        *_spectral(s2, phi, fraction_variance),
        *_at_three_points(s2, phi),
    )
    return RealizabilityReport(conditions, tolerance)


def _pointwise(s2: Tensor, phi: Tensor, fraction: Tensor | float | None) -> tuple[Condition, ...]:
    flat = s2.flatten(1)
    given = _per_candidate(phi if fraction is None else fraction, phi)
    inside = torch.minimum(given, 1 - given).clamp(max=0)
    least = (2 * phi - 1).clamp(min=0)
    skew = (s2 - _reversed(s2)).abs().flatten(1).amax(1)
    return (
        Condition("fraction", "S2(0) = phi, 0 <= phi <= 1", inside - (phi - given).abs()),
        Condition("lower bound", "S2(r) >= max(0, 2 phi - 1)", flat.amin(1) - least),
        Condition("upper bound", "S2(r) <= phi", phi - flat.amax(1)),
        Condition("symmetry", "S2(r) = S2(-r)", -skew),
    )


def _spectral(
    s2: Tensor, phi: Tensor, fraction_variance: Tensor | float | None
) -> tuple[Condition, ...]:
    excess = s2.flatten(1).mean(1) - phi.square()
    if fraction_variance is None:
        statement, margin = "chi(0) <= phi (1 - phi)", phi * (1 - phi) - excess
    else:
        variance = _per_candidate(fraction_variance, phi)
        if not bool((variance >= 0).all()):
            raise DataError(
                "expected a fraction_variance of 0 or more, got "
                f"{float(variance.min()):g}; it is the variance of the cell's volume fraction"
            )
        statement, margin = "chi(0) = variance of phi", -(excess - variance).abs()
    return (
        Condition("spectrum", "chi(k) >= 0", _spectrum(s2, phi).flatten(1).amin(1)),
        Condition("fraction variance", statement, margin),
        Condition("far limit", "mean over lags of S2 >= phi^2", excess),
    )


def _at_three_points(s2: Tensor, phi: Tensor) -> tuple[Condition, ...]:
    axes = tuple(range(1, s2.ndim))
    slope, triangle, three = (torch.full_like(phi, torch.inf) for _ in range(3))
    for shift in _shifts(s2.shape[1:]):
        ahead = s2.roll([-s for s in shift], axes)
        step = s2[(slice(None), *shift)]
        fall = (ahead - s2).flatten(1)
        triangle = torch.minimum(triangle, fall.amin(1) + phi - step)
        three = torch.minimum(three, (s2 + ahead).flatten(1).amin(1) + step + 1 - 3 * phi)
        if sum(shift) == 1:
            slope = torch.minimum(slope, phi - step - fall.abs().amax(1))
    return (
        Condition("slope", "|S2(r + e) - S2(r)| <= S2(0) - S2(e)", slope),
        Condition("triangle", "gamma(r + s) <= gamma(r) + gamma(s)", triangle),
        Condition("three points", "S2(r) + S2(s) + S2(r + s) >= 3 phi - 1", three),
    )


def _per_candidate(value: Tensor | float, phi: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=phi.dtype, device=phi.device).expand_as(phi)


def _reversed(s2: Tensor) -> Tensor:
    axes = tuple(range(1, s2.ndim))
    return s2.flip(axes).roll([1] * len(axes), axes)


def _spectrum(s2: Tensor, phi: Tensor) -> Tensor:
    axes = tuple(range(1, s2.ndim))
    column = phi.view(-1, *[1] * len(axes))
    return torch.fft.fftn(s2 - column.square(), dim=axes, norm="forward").real


def _shifts(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    directions = [d for d in itertools.product((-1, 0, 1), repeat=len(shape)) if any(d)]
    # Opposite directions give the same condition.
    directions = [d for d in directions if next(x for x in d if x) > 0]
    lengths = [2**p for p in range(max(min(shape) // 2, 1).bit_length())]
    return [
        tuple(k * length % n for k, n in zip(d, shape, strict=True))
        for d in directions
        for length in lengths
    ]
