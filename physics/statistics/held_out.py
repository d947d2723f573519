"""Residuals and covariances of samples that are held out in turns."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from microstructures.seeds import derive_seed
from physics.statistics.local_covariance import LocalCovariance
from physics.statistics.process_regression import ProcessRegression

BANDWIDTHS = (0.15, 0.25, 0.4, 0.7, 1.2, 5.0)


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


def held_out_residuals(
    regression: ProcessRegression,
    x: Float64[Tensor, "n q"],
    z: Float64[Tensor, "n k"],
    folds: Int64[Tensor, " n"],
) -> tuple[Float64[Tensor, "n k"], Float64[Tensor, "n k"]]:
    """Return residuals, and variances of the mean, from means learnt without each one's fold."""
    residual, uncertainty = torch.empty_like(z), torch.empty_like(z)
    for fold in folds.unique():
        inside = folds == fold
        mean, uncertainty[inside] = regression.on(x[~inside], z[~inside]).predict(x[inside])
        residual[inside] = z[inside] - mean
    return residual, uncertainty


def held_out_covariances(
    x: Float64[Tensor, "n q"],
    residual: Float64[Tensor, "n k"],
    rest: Float64[Tensor, " n"],
    folds: Int64[Tensor, " n"],
    *,
    points: Float64[Tensor, "m q"],
    lengths: Float64[Tensor, " q"],
    floor: Float64[Tensor, "n k"],
    bandwidths: Sequence[float] = BANDWIDTHS,
) -> tuple[Float64[Tensor, "n k k"], Float64[Tensor, " n"], float]:
    """Return each sample's covariance and remainder learnt without its fold, and the bandwidth.

    The bandwidth is the one under which the held-out residuals are likeliest.

    Args:
        x: Process point of each sample.
        residual: Residual of each sample from a mean learnt without its fold.
        rest: Squared remainder of each sample.
        folds: Fold of each sample.
        points: Process points around which residuals are summed.
        lengths: Length scale of each input.
        floor: Variance to add to the diagonal for each sample.
        bandwidths: Candidates.
    """
    without = {
        int(fold): LocalCovariance.gather(
            x[folds != fold],
            residual[folds != fold],
            rest[folds != fold],
            points=points,
            lengths=lengths,
        )
        for fold in folds.unique()
    }
    best, found = -torch.inf, None
    for bandwidth in bandwidths:
        covariance = torch.diag_embed(floor)
        remainder = torch.empty_like(rest)
        for fold, local in without.items():
            inside = folds == fold
            local_covariance, remainder[inside] = replace(local, bandwidth=bandwidth).at(x[inside])
            covariance[inside] += local_covariance
        likelihood = float(
            torch.distributions.MultivariateNormal(
                torch.zeros_like(residual), covariance, validate_args=False
            )
            .log_prob(residual)
            .sum()
        )
        if likelihood > best:
            best, found = likelihood, (covariance, remainder, bandwidth)
    assert found is not None
    return found
