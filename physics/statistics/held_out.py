"""Distances of samples from expectations that were learnt without them, in turns."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from microstructures.seeds import derive_seed
from physics.statistics.expectation import Expectation
from physics.statistics.local_covariance import LocalCovariance
from physics.statistics.process_regression import ProcessRegression

BANDWIDTHS = (0.15, 0.25, 0.4, 0.7, 1.2, 5.0)


@dataclass(frozen=True)
class HeldOut:
    """An expectation learnt from all samples, and one per turn learnt without that turn's.

    Args:
        folds: Turn in which each sample is held out.
        without: The expectation learnt without each turn's samples.
        overall: The expectation learnt from all.
    """

    folds: Int64[Tensor, " n"]
    without: Mapping[int, Expectation]
    overall: Expectation

    @classmethod
    def learn(
        cls,
        regression: ProcessRegression,
        x: Float64[Tensor, "n q"],
        z: Float64[Tensor, "n k"],
        rest: Float64[Tensor, " n"],
        folds: Int64[Tensor, " n"],
        *,
        floor: float,
    ) -> "HeldOut":
        """Learn means, then the scatter of held-out residuals about them.

        Args:
            regression: Smooth means with their kernel; conditioned anew in each turn.
            x: Process point of each sample.
            z: Components of each sample.
            rest: Squared remainder of each sample.
            folds: Turn in which each sample is held out.
            floor: Variance of a difference that does not count.
        """
        turns = sorted({int(fold) for fold in folds})
        means = {t: regression.on(x[folds != t], z[folds != t]) for t in turns}
        residual, uncertainty = _held_out_residuals(means, x, z, folds)

        def scatter(chosen: Tensor) -> LocalCovariance:
            points, lengths = regression.points, regression.lengths
            parts = x[chosen], residual[chosen], rest[chosen]
            return LocalCovariance.gather(*parts, points=points, lengths=lengths)

        scatters = {t: scatter(folds != t) for t in turns}
        bandwidth = _likeliest_bandwidth(scatters, x, residual, folds, uncertainty + floor)
        without = {
            t: Expectation(means[t], replace(scatters[t], bandwidth=bandwidth), floor)
            for t in turns
        }
        everything = replace(scatter(folds >= 0), bandwidth=bandwidth)
        return cls(folds, without, Expectation(regression, everything, floor))

    def distance(
        self,
        x: Float64[Tensor, "n q"],
        z: Float64[Tensor, "n k"],
        rest: Float64[Tensor, " n"],
    ) -> Float64[Tensor, " n"]:
        """Return each sample's distance from the expectation learnt without it.

        Args:
            x: Process point of each sample, NaN where a value is withheld.
            z: Components of each sample.
            rest: Squared remainder of each sample.
        """
        distance = torch.empty_like(rest)
        for turn, expectation in self.without.items():
            inside = self.folds == turn
            distance[inside] = expectation.distance(x[inside], z[inside], rest[inside])
        return distance


def turns(names: Sequence[str], share: float, seed: int) -> Int64[Tensor, " n"]:
    """Return the turn in which each sample is held out, equal names together."""
    if len(set(names)) == 1:
        names = [str(k) for k in range(len(names))]
    counts = Counter(names)
    n_folds = min(round(1 / share), len(counts))
    sizes, fold_of = [0] * n_folds, {}
    shuffled = sorted(counts, key=lambda name: derive_seed("gate", seed, name))
    for name in sorted(shuffled, key=lambda name: -counts[name]):
        fold = sizes.index(min(sizes))
        fold_of[name] = fold
        sizes[fold] += counts[name]
    return torch.tensor([fold_of[name] for name in names])


def _held_out_residuals(
    means: Mapping[int, ProcessRegression], x: Tensor, z: Tensor, folds: Tensor
) -> tuple[Tensor, Tensor]:
    """Return residuals, and variances of the mean, from means learnt without each one's turn."""
    residual, uncertainty = torch.empty_like(z), torch.empty_like(z)
    for turn, regression in means.items():
        inside = folds == turn
        mean, uncertainty[inside] = regression.predict(x[inside])
        residual[inside] = z[inside] - mean
    return residual, uncertainty


def _likeliest_bandwidth(
    scatters: Mapping[int, LocalCovariance],
    x: Tensor,
    residual: Tensor,
    folds: Tensor,
    variance: Tensor,
) -> float:
    """Return the bandwidth under which the held-out residuals are likeliest.

    `variance` is added to the diagonal of each sample's covariance.
    """

    def likelihood(bandwidth: float) -> float:
        covariance = torch.diag_embed(variance)
        for turn, scatter in scatters.items():
            inside = folds == turn
            covariance[inside] += replace(scatter, bandwidth=bandwidth).at(x[inside])[0]
        normal = torch.distributions.MultivariateNormal(
            torch.zeros_like(residual), covariance, validate_args=False
        )
        return float(normal.log_prob(residual).sum())

    return max(BANDWIDTHS, key=likelihood)
