"""Generated against real structures of one condition, beside real against real."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import ks_2samp
from torch import Tensor

from generators.ensemble_errors import (
    MEANING,
    all_samples,
    corrected_interval,
    ensemble_errors,
    random_splits,
    resamples,
    source_numbers,
)
from generators.structure_statistics import (
    Samples,
    StructureStatistics,
    as_labels,
    measure_structures,
)
from microstructures import DataError, Microstructure
from microstructures.seeds import derive_seed


@dataclass(frozen=True)
class FidelityMetric:
    """One row: how far generated is from real, and how far real is from real.

    Args:
        name: A key of `MEANING`.
        error: Generated against real; averaged over phases.
        floor: Real against real, RMS over splits; None when there is no second source.
        ratio: error / floor; None without a floor above zero.
        low: Lower end of the 95 % bootstrap interval of the ratio.
        high: Upper end.
        p_value: Kolmogorov-Smirnov test over samples, smallest over phases times their number;
            for surface and Euler density of ungrouped samples.
    """

    name: str
    error: float
    floor: float | None
    ratio: float | None
    low: float | None
    high: float | None
    p_value: float | None


@dataclass(frozen=True)
class FidelityReport:
    """What `compare` found; prints as a table."""

    metrics: tuple[FidelityMetric, ...]
    n_real: int
    n_generated: int
    n_groups: int | None
    floor_kind: str
    max_lag: int
    seed: int

    def __getitem__(self, name: str) -> FidelityMetric:
        return {metric.name: metric for metric in self.metrics}[name]

    def table(self) -> list[tuple[str, ...]]:
        """Return a heading and one row per metric, as text."""
        rows: list[tuple[str, ...]] = [
            ("metric", "error", "floor", "error/floor", "95 % interval", "KS p")
        ]
        for m in self.metrics:
            interval = "-" if m.low is None else f"{_number(m.low)} to {_number(m.high)}"
            values = (m.error, m.floor, m.ratio)
            rows.append((m.name, *map(_number, values), interval, _number(m.p_value)))
        return rows

    def __str__(self) -> str:
        rows = self.table()
        widths = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
        lines = ["  ".join(t.ljust(w) for t, w in zip(row, widths, strict=True)) for row in rows]
        return "\n".join([*(line.rstrip() for line in lines), self.counts])

    @property
    def counts(self) -> str:
        """How many samples were compared and what the floor is, in words."""
        sources = "" if self.n_groups is None else f" from {self.n_groups} sources"
        return (
            f"{self.n_generated} generated against {self.n_real} real{sources}; "
            f"floor: {self.floor_kind}; lags to {self.max_lag} voxels"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data, with the meaning of each metric."""
        return {**asdict(self), "counts": self.counts, "meaning": MEANING}


def compare(
    real: Samples,
    generated: Samples,
    *,
    groups: Sequence[str] | None = None,
    periodic: bool | Sequence[bool] | None = None,
    seed: int = 0,
) -> FidelityReport:
    """Compare generated with real structures of the same condition, metric by metric.

    Errors are those of MICROBENCH (M1-M4) between ensemble means, averaged over the phases that
    the real samples hold. The floor is the same error between disjoint parts of the real
    samples, RMS over 200 random splits:

    - without `groups`, halves; scaled by sqrt((1/n_generated + 1/n_real) / (2/n_half)) to the
      counts that the error has, so that a perfect generator has ratio 1;
    - with `groups` (the source map of each real crop), halves by map, or one map against the
      others below four maps; not scaled, since maps differ more than crops within a map.

    The interval is a bias-corrected bootstrap over real samples (or maps) and generated ones.

    Args:
        real: Labels `(batch, *space)` or microstructures; at least four.
        generated: The same, of the same shape; at least two.
        groups: One source name per real sample.
        periodic: One flag, or one per axis; None takes the microstructures' own (True for
            plain labels).
        seed: Draws splits and resamples.

    Raises:
        DataError: Too few samples, shapes that differ, or a group missing.

    >>> report = compare(real_cells, model.sample(process, n=64))  # doctest: +SKIP
    >>> report["s2"].ratio  # doctest: +SKIP
    """
    made, true, sources = _measured(real, generated, groups, periodic)
    n_real, n_generated, n_sources = len(true), len(made), int(sources.max()) + 1
    draw = np.random.default_rng(derive_seed("fidelity", seed))
    error = ensemble_errors(made, true, all_samples(n_generated), all_samples(n_real))[0]
    drawn = resamples(n_generated, draw), resamples(n_sources, draw)[:, sources]
    resampled = ensemble_errors(made, true, *drawn)
    floor, floor_kind = None, "none, as there is one source"
    if n_sources > 1:
        left, right, floor_kind = random_splits(sources, draw)
        floor = np.sqrt((ensemble_errors(true, true, left, right) ** 2).mean(0))
    if floor is not None and groups is None:
        floor *= math.sqrt((1 / n_generated + 1 / n_real) * (n_real // 2) / 2)
        floor_kind = "random halves of the real ones, scaled to these counts"
    p_values = {} if groups is not None else _p_values(made, true)
    floors = [None] * len(MEANING) if floor is None else floor.tolist()
    return FidelityReport(
        metrics=tuple(
            _metric(name, float(error[k]), floors[k], resampled[:, k], p_values.get(name))
            for k, name in enumerate(MEANING)
        ),
        n_real=n_real,
        n_generated=n_generated,
        n_groups=None if groups is None else n_sources,
        floor_kind=floor_kind,
        max_lag=true.max_lag,
        seed=seed,
    )


def _measured(
    real: Samples,
    generated: Samples,
    groups: Sequence[str] | None,
    periodic: bool | Sequence[bool] | None,
) -> tuple[StructureStatistics, StructureStatistics, np.ndarray]:
    """Return the statistics of generated and real samples, and the real ones' sources."""
    if periodic is None:
        first = real[0] if isinstance(real, Sequence) and len(real) else None
        periodic = first.periodic if isinstance(first, Microstructure) else True
    true, made = as_labels(real), as_labels(generated)
    if len(true) < 4 or len(made) < 2 or true.shape[1:] != made.shape[1:]:
        raise DataError(
            "expected at least 4 real and 2 generated samples of one shape, got "
            f"{tuple(true.shape)} and {tuple(made.shape)}"
        )
    if groups is not None and len(groups) != len(true):
        raise DataError(f"expected a group for each of {len(true)} real samples, got {len(groups)}")
    n_phases = 1 + int(max(true.max(), made.max()))

    def measured(labels: Tensor) -> StructureStatistics:
        return measure_structures(labels, n_phases=n_phases, periodic=periodic)

    return measured(made), measured(true), source_numbers(groups, len(true))


def _p_values(generated: StructureStatistics, real: StructureStatistics) -> dict[str, float]:
    """Return the Bonferroni-corrected KS p-value over phases of surface and Euler density."""
    return {
        name: min(
            1.0,
            real.n_phases
            * min(
                float(ks_2samp(g, r, method="asymp").pvalue)  # pyright: ignore
                for g, r in zip(getattr(generated, name).T, getattr(real, name).T, strict=True)
            ),
        )
        for name in ("surface", "euler")
    }


def _metric(
    name: str, error: float, floor: float | None, resampled: np.ndarray, p_value: float | None
) -> FidelityMetric:
    if floor is None or not floor > 0:
        return FidelityMetric(name, error, floor, None, None, None, p_value)
    low, high = corrected_interval(resampled, error)
    return FidelityMetric(name, error, floor, error / floor, low / floor, high / floor, p_value)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
