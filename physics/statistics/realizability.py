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
) -> RealizabilityReport:
    """Check necessary conditions on candidate two-point correlations of a phase.

    The candidate is a map over the lags of a periodic cell, zero lag at index 0
    (`isotropic_map` makes one from a radial curve). With phi = S2(0) and
    gamma(r) = phi - S2(r), half the probability that the indicator differs across r:

    - fraction: S2(0) is the given fraction, inside [0, 1];
    - lower and upper bound: max(0, 2 phi - 1) <= S2(r) <= phi;
    - symmetry: S2(r) = S2(-r);
    - spectrum: the spectral density of S2 - phi^2 is nowhere negative, in units where its sum
      over wave vectors is phi (1 - phi); at k = 0 it is the variance of the cell's fraction;
    - triangle: gamma(r + s) <= gamma(r) + gamma(s), for all r and for s along axes and plane
      diagonals at powers of two.

    They are necessary, not sufficient (Torquato 2002, section 2.2; Yeong and Torquato 1998,
    doi:10.1103/PhysRevE.57.495; Shepp 1963 for the triangle). The map of one real image meets
    them to round-off. A map estimated without periodicity need not have a positive spectrum on
    its lag grid: pass periodic maps.

    Args:
        correlation: S2 of one phase, `(batch, *lag)`.
        fraction: The phase's volume fraction, per candidate or for all; None takes S2(0).
        tolerance: How far a margin may be below zero; 1e-5 covers float32 maps.

    Raises:
        DataError: Not a batch of 2-D or 3-D maps, or not finite.
    """
    if correlation.ndim not in (3, 4) or not bool(correlation.isfinite().all()):
        raise DataError(
            "expected finite maps of lags (batch, *lag) with 2 or 3 lag axes, got shape "
            f"{tuple(correlation.shape)}; make a map from a curve with isotropic_map"
        )
    s2 = correlation.detach().to(torch.float64)
    flat = s2.flatten(1)
    phi = flat[:, 0]
    given = torch.as_tensor(phi if fraction is None else fraction).to(phi).expand_as(phi)
    inside = torch.minimum(given, 1 - given).clamp(max=0)
    conditions = (
        Condition("fraction", "S2(0) = phi, 0 <= phi <= 1", inside - (phi - given).abs()),
        Condition(
            "lower bound", "S2(r) >= max(0, 2 phi - 1)", flat.amin(1) - (2 * phi - 1).clamp(min=0)
        ),
        Condition("upper bound", "S2(r) <= phi", phi - flat.amax(1)),
        Condition("symmetry", "S2(r) = S2(-r)", -(s2 - _reversed(s2)).abs().flatten(1).amax(1)),
        Condition("spectrum", "spectral density >= 0", _spectrum(s2, phi).flatten(1).amin(1)),
        Condition("triangle", "gamma(r + s) <= gamma(r) + gamma(s)", _triangle(s2, phi)),
    )
    return RealizabilityReport(conditions, tolerance)


def _reversed(s2: Tensor) -> Tensor:
    axes = tuple(range(1, s2.ndim))
    return s2.flip(axes).roll([1] * len(axes), axes)


def _spectrum(s2: Tensor, phi: Tensor) -> Tensor:
    axes = tuple(range(1, s2.ndim))
    column = phi.view(-1, *[1] * len(axes))
    return torch.fft.fftn(s2 - column.square(), dim=axes, norm="forward").real


def _triangle(s2: Tensor, phi: Tensor) -> Tensor:
    gamma = phi.view(-1, *[1] * (s2.ndim - 1)) - s2
    worst = torch.zeros_like(phi)
    for shift in _shifts(s2.shape[1:]):
        ahead = gamma.roll([-s for s in shift], tuple(range(1, s2.ndim)))
        step = gamma[(slice(None), *shift)].view(-1, *[1] * (s2.ndim - 1))
        worst = torch.minimum(worst, (gamma + step - ahead).flatten(1).amin(1))
    return worst


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
