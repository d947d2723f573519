"""MicroBench M11: are conditions that training left out as good as those it saw?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from generators.microbench_conditions import Measured, TrueCondition
from generators.microbench_ensembles import EnsembleScore, Floors, ensemble_scores

FEWEST = 2


@dataclass(frozen=True)
class HeldOut:
    """Errors over their floors at held-out conditions, against those at seen ones.

    Args:
        conditions: Held-out conditions.
        worst: The metric that loses most.
        ratio: Its error over floor at held-out conditions, over that at seen ones.
        median: The same, median over metrics.
    """

    conditions: int
    worst: str
    ratio: float
    median: float


def held_out_ratio(
    truth: Sequence[TrueCondition],
    made: Sequence[Measured],
    floors: Floors,
    inside: Bool[np.ndarray, " condition"],
    *,
    seed: int,
) -> HeldOut | None:
    """Compare held-out with seen conditions; None with fewer than two on a side."""
    if min(inside.sum(), (~inside).sum()) < FEWEST:
        return None
    sides = []
    for chosen in (inside, ~inside):
        rows = np.flatnonzero(chosen).tolist()
        parts = [truth[k] for k in rows], [made[k] for k in rows]
        sides.append(ensemble_scores(*parts, floors.part(rows), seed=seed))
    return against_seen(*sides, conditions=int(inside.sum()))


def against_seen(
    held_out: Sequence[EnsembleScore], seen: Sequence[EnsembleScore], *, conditions: int
) -> HeldOut | None:
    """Compare scores of held-out conditions with those of seen ones; None without floors."""
    usual = {s.name: s.ratio for s in seen if s.ratio}
    ratios = {s.name: s.ratio / usual[s.name] for s in held_out if s.ratio and s.name in usual}
    if not ratios:
        return None
    worst = max(ratios, key=lambda name: ratios[name])
    return HeldOut(conditions, worst, ratios[worst], float(np.median(list(ratios.values()))))


def inside_ranges(
    points: Sequence[Mapping[str, Any]], ranges: Mapping[str, Sequence[float]]
) -> Bool[np.ndarray, " point"]:
    """Return which process points lie inside all ranges, name to (low, high); unknown is out."""

    def inside(value: Any, low: float, high: float) -> bool:
        return value is not None and low <= value <= high

    return np.array(
        [
            all(inside(point.get(name), low, high) for name, (low, high) in ranges.items())
            for point in points
        ],
        dtype=bool,
    )
