"""MicroBench M1 to M5: errors of ensemble means over many conditions, beside real against real."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import ks_2samp

from generators.ensemble_errors import (
    CONFIDENCE,
    MEANING,
    all_samples,
    ensemble_errors,
    random_splits,
    source_numbers,
)
from generators.microbench_conditions import Measured, TrueCondition
from microstructures.seeds import derive_seed

RESAMPLED_CONDITIONS = 2000
SIGNIFICANT = 0.05
NO_FLOOR, LEAST_FLOOR = 1e-12, 1e-3
TESTED = ("surface", "euler")


@dataclass(frozen=True)
class EnsembleScore:
    """One metric over all conditions.

    Args:
        name: A key of `MEANING`, or a property's name.
        error: Mean over conditions of the error of the ensemble mean; conditions at which it is
            not defined (chi of a phase that is alone) do not count, NaN where none is left.
        floor: The same of real against real: mean over conditions of the RMS over 200 splits;
            0 where no condition has one.
        ratio: RMS of the errors over RMS of the floors; None where the floor is 0.
        low: Lower end of the 95 % interval of the ratio, conditions resampled.
        high: Upper end.
        ks_distance: Mean Kolmogorov-Smirnov distance of the samples, for scalars.
        ks_passed: Share of conditions with p > 0.05.
    """

    name: str
    error: float
    floor: float
    ratio: float | None
    low: float | None
    high: float | None
    ks_distance: float | None = None
    ks_passed: float | None = None


@dataclass(frozen=True)
class FractionScore:
    """M1: mean generated fraction minus mean real fraction per condition, worst phase."""

    bias: float
    rmse: float
    floor: float | None


@dataclass(frozen=True)
class Floors:
    """Real against real at every condition, each metric's RMS over 200 random splits."""

    metrics: tuple[str, ...]
    rms: Float[np.ndarray, "condition metric"]
    scatter: tuple[Float[np.ndarray, " phase"], Float[np.ndarray, " phase"]]

    @classmethod
    def of(cls, truth: Sequence[TrueCondition], *, made: int, seed: int) -> "Floors":
        """Split the real samples of every condition at random.

        Both sides have `made` samples where there are twice as many; else halves, scaled to a
        comparison of `made` samples with the reference (not scaled for grouped samples).
        """
        scatter = condition_scatter(truth)
        metrics = (*MEANING, *truth[0].real.properties)
        rows = []
        for k, condition in enumerate(truth):
            draw = np.random.default_rng(derive_seed("microbench floor", seed, k))
            n = len(condition.real.statistics)
            sources = source_numbers(condition.groups, n)
            if int(sources.max()) == 0:  # one source: there is no real against real
                rows.append(np.full(len(metrics), np.nan))
                continue
            size = made if condition.groups is None and n >= 2 * made else None
            left, right, _ = random_splits(sources, draw, size=size)
            real = condition.real
            errors = _errors(real, real, left, right, scatter, draw)
            scale = 1.0
            if condition.groups is None and size is None:
                scale = math.sqrt((1 / made + 1 / condition.compared) * (n // 2) / 2)
            rows.append(scale * np.sqrt((errors**2).mean(0)))
        return cls(metrics, np.stack(rows), scatter)

    @property
    def fraction(self) -> float | None:
        """RMS over conditions of the fraction's floor, None where no condition has one."""
        known = self.rms[np.isfinite(self.rms[:, 0]), 0]
        return float(np.sqrt((known**2).mean())) if len(known) else None

    def part(self, rows: Sequence[int]) -> "Floors":
        """Return the floors of some conditions, errors scaled as over all of them."""
        return Floors(self.metrics, self.rms[list(rows)], self.scatter)


def condition_scatter(
    truth: Sequence[TrueCondition],
) -> tuple[Float[np.ndarray, " phase"], Float[np.ndarray, " phase"]]:
    """Return the standard deviation over conditions of mean surface and Euler density."""
    return tuple(  # pyright: ignore
        np.stack([getattr(c.reference.statistics, name).mean(0) for c in truth]).std(0)
        for name in TESTED
    )


def fraction_score(
    truth: Sequence[TrueCondition], made: Sequence[Measured], floors: Floors
) -> FractionScore:
    """Return M1 of the phase that is worst off."""
    bias = np.stack(
        [
            m.statistics.fractions.mean(0) - c.reference.statistics.fractions.mean(0)
            for c, m in zip(truth, made, strict=True)
        ]
    )
    rmse = np.sqrt((bias**2).mean(0))
    worst = int(rmse.argmax())
    # Of two phases both have the same error: the second is the one that is named elsewhere.
    worst = 1 if bias.shape[1] == 2 else worst
    return FractionScore(float(bias[:, worst].mean()), float(rmse[worst]), floors.fraction)


def ensemble_scores(
    truth: Sequence[TrueCondition], made: Sequence[Measured], floors: Floors, *, seed: int
) -> list[EnsembleScore]:
    """Return M2 to M5: every metric over all conditions."""
    errors = np.stack(
        [
            _errors(
                m,
                c.reference,
                all_samples(len(m.statistics)),
                all_samples(c.compared),
                floors.scatter,
                None,
            )[0]
            for c, m in zip(truth, made, strict=True)
        ]
    )
    scores = []
    for k, name in enumerate(floors.metrics[: errors.shape[1]]):
        error, floor = errors[:, k], floors.rms[:, k]
        defined = np.isfinite(error)
        known = defined & np.isfinite(floor)
        draw = np.random.default_rng(derive_seed("microbench ratio", seed, name))
        scores.append(
            EnsembleScore(
                name,
                float(error[defined].mean()) if defined.any() else math.nan,
                float(floor[known].mean()) if known.any() else 0.0,
                *_ratio(error[known], floor[known], draw),
                *_tests(truth, made, name),
            )
        )
    return scores


def _errors(
    made: Measured,
    real: Measured,
    made_weights: np.ndarray,
    real_weights: np.ndarray,
    scatter: tuple[np.ndarray, np.ndarray],
    draw: np.random.Generator | None,
) -> Float[np.ndarray, "draw metric"]:
    """Return the errors of all metrics; with `draw` properties are split anew by it."""
    columns = ensemble_errors(
        made.statistics, real.statistics, made_weights, real_weights, scatter=scatter
    )
    extra = []
    for name in real.properties:
        if name not in made.properties:
            break
        g, r = made.properties[name], real.properties[name]
        if draw is None:
            error = np.array([abs(g.mean() - r.mean())])
        else:
            left, right, _ = random_splits(np.arange(len(r)), draw)
            error = abs(left @ r / left.sum(1) - right @ r / right.sum(1))
        extra.append(error / abs(r.mean()))
    return np.column_stack([columns, *extra])


def _ratio(
    error: np.ndarray, floor: np.ndarray, draw: np.random.Generator
) -> tuple[float, float, float] | tuple[None, None, None]:
    """Return RMS error over RMS floor with its interval, conditions resampled."""
    n = len(error)
    if n == 0 or not np.sqrt((floor**2).mean()) > NO_FLOOR:
        return None, None, None
    chosen = np.concatenate([np.arange(n)[None], draw.integers(0, n, (RESAMPLED_CONDITIONS, n))])
    errors, floors = (np.sqrt((v[chosen] ** 2).mean(1)) for v in (error, floor))
    # A resample of conditions at which real samples are all alike has no floor.
    ratios = (errors / np.maximum(floors, NO_FLOOR))[floors > LEAST_FLOOR * floors[0]]
    low, high = np.quantile(ratios, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(ratios[0]), float(low), float(high)


def _tests(
    truth: Sequence[TrueCondition], made: Sequence[Measured], name: str
) -> tuple[float | None, float | None]:
    """Return mean KS distance and the share of conditions with p > 0.05, of a scalar metric."""
    if name in TESTED:
        phase = min(1, truth[0].real.statistics.n_phases - 1)
        pairs = [
            (getattr(m.statistics, name)[:, phase], getattr(c.reference.statistics, name)[:, phase])
            for c, m in zip(truth, made, strict=True)
        ]
    elif name in truth[0].real.properties:
        pairs = [
            (m.properties[name], c.reference.properties[name])
            for c, m in zip(truth, made, strict=True)
        ]
    else:
        return None, None
    found = [ks_2samp(g, r, method="asymp") for g, r in pairs]
    distance = float(np.mean([f.statistic for f in found]))  # pyright: ignore
    passed = float(np.mean([f.pvalue > SIGNIFICANT for f in found]))  # pyright: ignore
    return distance, passed


def by_name(scores: Sequence[EnsembleScore]) -> Mapping[str, EnsembleScore]:
    """Return the scores by name."""
    return {score.name: score for score in scores}
