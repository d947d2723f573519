"""Errors between ensemble means, and their splits and resamples."""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Int

from generators.structure_statistics import StructureStatistics, normalised

SPLITS = 200
RESAMPLES = 400
CONFIDENCE = 0.95

MEANING = {
    "fraction": "mean abs difference of the mean phase fractions",
    "s2": "mean abs difference of S2 over mean S2, lags to L/4",
    "chi": "the same of (S2 - phi^2)/(phi (1 - phi))",
    "lineal path": "the same of the lineal path, all axes",
    "surface": "abs difference of the mean specific surface, relative",
    "euler": "abs difference of the mean Euler density, relative",
}

Weights = Float[np.ndarray, "draw sample"]


def ensemble_errors(
    generated: StructureStatistics,
    real: StructureStatistics,
    generated_weights: Float[np.ndarray, "draw made"],
    real_weights: Float[np.ndarray, "draw real"],
    *,
    scatter: tuple[Float[np.ndarray, " phase"], Float[np.ndarray, " phase"]] | None = None,
) -> Float[np.ndarray, "draw metric"]:
    """Return the errors of MEANING between weighted means, averaged over the real phases.

    Args:
        generated: Generated samples.
        real: Real samples.
        generated_weights: One row of sample weights per draw.
        real_weights: The same.
        scatter: Least scale of surface and Euler density: errors are relative to the larger of
            it and the real mean's magnitude. None takes the real samples' standard deviation.
    """
    present = real.fractions.mean(0) > 0

    def means(name: str) -> tuple[np.ndarray, np.ndarray]:
        sides = ((generated, generated_weights), (real, real_weights))
        return tuple(_means(getattr(s, name)[:, present], w) for s, w in sides)  # pyright: ignore

    made, true = means("s2")
    columns = [abs(made - true)[:, :, 0].mean(1), relative_error(made, true)]
    columns.append(relative_error(normalised(made), normalised(true)))
    columns.append(relative_error(*means("lineal_path")))
    for k, name in enumerate(("surface", "euler")):
        made, true = means(name)
        least = getattr(real, name).std(0) if scatter is None else scatter[k]
        scale = np.maximum(np.maximum(abs(true), least[present]), 1e-300)
        columns.append((abs(made - true) / scale).mean(1))
    return np.stack(columns, 1)


def relative_error(
    generated: Float[np.ndarray, "draw phase lag"], real: Float[np.ndarray, "draw phase lag"]
) -> Float[np.ndarray, " draw"]:
    """Return the mean abs difference over lags in units of the mean magnitude, phases averaged.

    NaN where a real curve is zero: a phase that is alone or absent has no correlation to miss.
    """
    scale = abs(real).mean(2)
    scale = np.where(scale > 0, scale, np.nan)
    return (abs(generated - real).mean(2) / scale).mean(1)


def all_samples(n: int) -> Weights:
    """Return the one row of weights that takes every sample once."""
    return np.ones((1, n))


def resamples(n: int, generator: np.random.Generator, *, draws: int = RESAMPLES) -> Weights:
    """Return how often each of n samples is drawn in bootstrap resamples."""
    return generator.multinomial(n, np.full(n, 1 / n), draws).astype(np.float64)


def random_splits(
    sources: Int[np.ndarray, " sample"], generator: np.random.Generator, *, size: int | None = None
) -> tuple[Weights, Weights, str]:
    """Return 0/1 weights of two disjoint parts of the samples, and in words what they are.

    Args:
        sources: Number of each sample's source; samples of one source stay together.
        generator: Draws 200 splits.
        size: Sources on each side; None for half of them, or one against the others where
            several samples share fewer than four sources.
    """
    n_sources = int(sources.max()) + 1
    grouped = n_sources < len(sources)
    few = grouped and n_sources < 4
    order = np.stack([generator.permutation(n_sources) for _ in range(SPLITS)])
    size = 1 if few else size or n_sources // 2
    parts = order[:, :size], order[:, size:] if few else order[:, size : 2 * size]
    left, right = ((part[:, :, None] == sources).any(1).astype(np.float64) for part in parts)
    return left, right, "one source against the others" if few else "halves by source"


def source_numbers(groups: Sequence[str] | None, n: int) -> Int[np.ndarray, " sample"]:
    """Return the number of each sample's source; each its own where no groups are given."""
    return np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]


def corrected_interval(resampled: Float[np.ndarray, " draw"], error: float) -> tuple[float, float]:
    """Return Efron's bias-corrected percentile interval, stretched to hold the error itself."""
    normal, n = NormalDist(), len(resampled)
    share = min(max(float((resampled < error).mean()), 0.5 / n), 1 - 0.5 / n)
    bias, z = normal.inv_cdf(share), normal.inv_cdf((1 + CONFIDENCE) / 2)
    low, high = np.quantile(resampled, [normal.cdf(2 * bias - z), normal.cdf(2 * bias + z)])
    return min(float(low), error), max(float(high), error)


def _means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.einsum("wn,n...->w...", weights, values) / weights.sum(1).reshape(
        -1, *[1] * (values.ndim - 1)
    )
