"""Generated against real structures of one condition, beside real against real."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from jaxtyping import Integer
from scipy.stats import ks_2samp
from torch import Tensor

from microstructures import DataError, Microstructure
from microstructures.seeds import derive_seed
from physics.statistics import (
    euler_density,
    lineal_path,
    radial_mean,
    specific_surface,
    two_point_correlation,
)

SPLITS = 200
RESAMPLES = 400
CONFIDENCE = 0.95
CHUNK = 64

Samples = Integer[Tensor, "..."] | Integer[np.ndarray, "..."] | Sequence[Microstructure]

MEANING = {
    "fraction": "mean abs difference of the mean phase fractions",
    "s2": "mean abs difference of S2 over mean S2, lags to L/4",
    "chi": "the same of (S2 - phi^2)/(phi (1 - phi))",
    "lineal path": "the same of the lineal path, all axes",
    "surface": "abs difference of the mean specific surface, relative",
    "euler": "abs difference of the mean Euler density, relative",
}


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
    first = real[0] if isinstance(real, Sequence) and len(real) else None
    if periodic is None:
        periodic = first.periodic if isinstance(first, Microstructure) else True
    real_labels, generated_labels = _labels(real), _labels(generated)
    n_real, n_generated = len(real_labels), len(generated_labels)
    if n_real < 4 or n_generated < 2 or real_labels.shape[1:] != generated_labels.shape[1:]:
        raise DataError(
            "expected at least 4 real and 2 generated samples of one shape, got "
            f"{tuple(real_labels.shape)} and {tuple(generated_labels.shape)}"
        )
    if groups is not None and len(groups) != n_real:
        raise DataError(f"expected a group for each of {n_real} real samples, got {len(groups)}")
    n_phases = 1 + int(max(real_labels.max(), generated_labels.max()))
    statistics = _Statistics(n_phases, tuple(real_labels.shape[1:]), periodic)
    real_values, generated_values = statistics(real_labels), statistics(generated_labels)

    generator = np.random.default_rng(derive_seed("fidelity", seed))
    sources = np.arange(n_real) if groups is None else np.unique(groups, return_inverse=True)[1]
    n_sources = int(sources.max()) + 1
    error = statistics.errors(
        generated_values, real_values, np.ones((1, n_generated)), np.ones((1, n_real))
    )[0]
    drawn = _resample(n_generated, generator), _resample(n_sources, generator)[:, sources]
    resampled = statistics.errors(generated_values, real_values, *drawn)
    floor, floor_kind = None, "none, as there is one source"
    if n_sources > 1:
        left, right, floor_kind = _splits(sources, n_sources, generator)
        floor = np.sqrt((statistics.errors(real_values, real_values, left, right) ** 2).mean(0))
    if floor is not None and groups is None:
        floor *= math.sqrt((1 / n_generated + 1 / n_real) * (n_real // 2) / 2)
        floor_kind = "random halves of the real ones, scaled to these counts"
    p_values = {} if groups is not None else statistics.p_values(generated_values, real_values)
    return FidelityReport(
        metrics=tuple(
            _metric(
                name,
                float(error[k]),
                None if floor is None else float(floor[k]),
                resampled[:, k],
                p_values.get(name),
            )
            for k, name in enumerate(MEANING)
        ),
        n_real=n_real,
        n_generated=n_generated,
        n_groups=None if groups is None else n_sources,
        floor_kind=floor_kind,
        max_lag=statistics.max_lag,
        seed=seed,
    )


@dataclass(frozen=True)
class _Statistics:
    """Per-sample statistics as a dict of arrays `(batch, phase, ...)`, and errors between means."""

    n_phases: int
    shape: tuple[int, ...]
    periodic: bool | Sequence[bool]

    @property
    def max_lag(self) -> int:
        return max(min(self.shape) // 4, 1)

    def __call__(self, labels: Tensor) -> dict[str, np.ndarray]:
        chunks = [self._measure(chunk) for chunk in labels.split(CHUNK)]
        return {name: np.concatenate([c[name] for c in chunks]) for name in chunks[0]}

    def _measure(self, labels: Tensor) -> dict[str, np.ndarray]:
        b, p = len(labels), self.n_phases
        indicators = torch.stack([labels == i for i in range(p)], 1).to(torch.float32).flatten(0, 1)
        wrap, reach = self.periodic, self.max_lag
        values = {
            "s2": radial_mean(two_point_correlation(indicators, periodic=wrap), max_lag=reach),
            "lineal path": lineal_path(indicators, max_lag=reach, periodic=wrap).flatten(1),
            "surface": specific_surface(indicators, periodic=wrap).unsqueeze(1),
            "euler": euler_density(indicators, periodic=wrap).unsqueeze(1),
        }
        return {k: v.view(b, p, -1).to(torch.float64).numpy() for k, v in values.items()}

    def errors(
        self,
        generated: dict[str, np.ndarray],
        real: dict[str, np.ndarray],
        generated_weights: np.ndarray,
        real_weights: np.ndarray,
    ) -> np.ndarray:
        """Return the errors between weighted means, `(len(weights), metric)`."""
        present = real["s2"][:, :, 0].mean(0) > 0
        g = {k: _means(v[:, present], generated_weights) for k, v in generated.items()}
        r = {k: _means(v[:, present], real_weights) for k, v in real.items()}
        columns = [abs(g["s2"] - r["s2"])[:, :, 0].mean(1), _relative(g["s2"], r["s2"])]
        columns.append(_relative(_chi(g["s2"]), _chi(r["s2"])))
        columns.append(_relative(g["lineal path"], r["lineal path"]))
        for name in ("surface", "euler"):
            scatter = real[name][:, present].std(0)
            scale = np.maximum(np.maximum(abs(r[name]), scatter), 1e-300)
            columns.append((abs(g[name] - r[name]) / scale).mean((1, 2)))
        return np.stack(columns, 1)

    def p_values(
        self, generated: dict[str, np.ndarray], real: dict[str, np.ndarray]
    ) -> dict[str, float]:
        """Return the Bonferroni-corrected KS p-value over phases for scalar statistics."""
        return {
            name: min(
                1.0,
                self.n_phases
                * min(
                    float(ks_2samp(g, r, method="asymp").pvalue)  # pyright: ignore
                    for g, r in zip(generated[name][:, :, 0].T, real[name][:, :, 0].T, strict=True)
                ),
            )
            for name in ("surface", "euler")
        }


def _labels(samples: Samples) -> Integer[Tensor, "batch *space"]:
    if isinstance(samples, Tensor):
        return samples.cpu()
    if isinstance(samples, np.ndarray):
        return torch.from_numpy(samples)
    shapes = {m.shape for m in samples}
    if len(shapes) != 1:
        raise DataError(f"expected microstructures of one shape, got {sorted(shapes) or 'none'}")
    return torch.from_numpy(np.stack([m.phases for m in samples]))


def _metric(
    name: str, error: float, floor: float | None, resampled: np.ndarray, p_value: float | None
) -> FidelityMetric:
    if floor is None or not floor > 0:
        return FidelityMetric(name, error, floor, None, None, None, p_value)
    low, high = _interval(resampled, error)
    return FidelityMetric(name, error, floor, error / floor, low / floor, high / floor, p_value)


def _resample(n: int, generator: np.random.Generator) -> np.ndarray:
    return generator.multinomial(n, np.full(n, 1 / n), RESAMPLES)


def _splits(
    sources: np.ndarray, n_sources: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, str]:
    """Return 0/1 weights of two disjoint parts, `(split, sample)` each."""
    grouped = n_sources < len(sources)
    few = grouped and n_sources < 4
    order = np.stack([generator.permutation(n_sources) for _ in range(SPLITS)])
    size = 1 if few else n_sources // 2
    parts = order[:, :size], order[:, size:] if few else order[:, size : 2 * size]
    left, right = ((part[:, :, None] == sources).any(1).astype(np.float64) for part in parts)
    return left, right, "one source against the others" if few else "halves by source"


def _means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.einsum("wn,npk->wpk", weights, values) / weights.sum(1)[:, None, None]


def _relative(generated: np.ndarray, real: np.ndarray) -> np.ndarray:
    scale = np.maximum(abs(real).mean(2), 1e-300)
    return (abs(generated - real).mean(2) / scale).mean(1)


def _chi(s2: np.ndarray) -> np.ndarray:
    phi = s2[:, :, :1]
    return (s2 - phi**2) / np.maximum(phi * (1 - phi), 1e-12)


def _interval(resampled: np.ndarray, error: float) -> tuple[float, float]:
    """Return Efron's bias-corrected percentile interval, stretched to hold the error itself."""
    normal, n = NormalDist(), len(resampled)
    share = min(max(float((resampled < error).mean()), 0.5 / n), 1 - 0.5 / n)
    bias, z = normal.inv_cdf(share), normal.inv_cdf((1 + CONFIDENCE) / 2)
    low, high = np.quantile(resampled, [normal.cdf(2 * bias - z), normal.cdf(2 * bias + z)])
    return min(float(low), error), max(float(high), error)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
