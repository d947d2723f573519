"""MicroBench M7 and M8: is the scatter of generated samples that of real ones?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from generators.microbench_calibration import Descriptors

BAND = (0.05, 0.95)


@dataclass(frozen=True)
class Spread:
    """Scatter of one descriptor within conditions.

    Args:
        name: The descriptor.
        coverage: Share of real values inside the generated 5 to 95 % band, mean over the
            conditions at which real samples scatter; 0.90 is wanted.
        ratio: Generated over real standard deviation, geometric mean over those conditions.

    Both are None where real samples scatter at no condition.
    """

    name: str
    coverage: float | None
    ratio: float | None


def spreads(real: Sequence[Descriptors], made: Sequence[Descriptors]) -> list[Spread]:
    """Return coverage and spread of every descriptor."""
    found = []
    for name in real[0]:
        pairs = [(r[name], m[name]) for r, m in zip(real, made, strict=True)]
        pairs = [(r, m) for r, m in pairs if scatters(r)]
        coverage = float(np.mean([band_coverage(r, m) for r, m in pairs])) if pairs else None
        found.append(Spread(name, coverage, spread_ratio(pairs)))
    return found


def band_coverage(real: Float[np.ndarray, " n"], made: Float[np.ndarray, " m"]) -> float:
    """Return the share of real values inside the 5 to 95 % band of generated ones.

    The band's ends are the sample quantiles at p (m + 1), for which the expected share is 0.90
    whatever the number of samples, from 19 on.
    """
    low, high = np.quantile(made, BAND, method="weibull")
    slack = 1e-9 * max(abs(low), abs(high), 1e-12)
    return float(((real >= low - slack) & (real <= high + slack)).mean())


def spread_ratio(
    pairs: Sequence[tuple[Float[np.ndarray, " n"], Float[np.ndarray, " m"]]],
) -> float | None:
    """Return the geometric mean of sd(made)/sd(real) over (real, made) with scatter in both.

    None where no real values scatter; 0 where generated ones scatter at none of them.
    """
    pairs = [(r, m) for r, m in pairs if scatters(r)]
    logs = [np.log(m.std(ddof=1) / r.std(ddof=1)) for r, m in pairs if scatters(m)]
    if not pairs:
        return None
    return float(np.exp(np.mean(logs))) if logs else 0.0


def scatters(values: Float[np.ndarray, " n"]) -> bool:
    """Say whether values differ by more than rounding."""
    return len(values) > 1 and float(values.std(ddof=1)) > 1e-9 * max(abs(float(values.mean())), 1)


def worst_coverage(found: Sequence[Spread]) -> Spread | None:
    """Return the descriptor whose coverage is farthest from 0.90, None where none scatters."""
    known = [s for s in found if s.coverage is not None]
    wanted = BAND[1] - BAND[0]
    return max(known, key=lambda s: abs((s.coverage or 0) - wanted)) if known else None


def worst_ratio(found: Sequence[Spread]) -> Spread | None:
    """Return the descriptor whose spread is farthest from 1, None where none scatters."""
    known = [s for s in found if s.ratio is not None]
    return max(known, key=lambda s: abs(np.log(max(s.ratio or 0, 1e-12)))) if known else None
