"""Smooth functions of the process: sparse Gaussian-process regression with inducing points."""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float64
from torch import Tensor

from microstructures import ProcessSpace

JITTER = 1e-6
LEAST_NOISE = 1e-5


@dataclass(frozen=True)
class ProcessRegression:
    """Gaussian processes with a shared kernel, one per output, through shared inducing points.

    Variational sparse regression (Titsias 2009): squared-exponential kernel with one length per
    input; each output has its own signal and noise variance. Kept are the inducing points and
    two sufficient statistics, a few dozen kB whatever the number of samples.

    Args:
        points: Inducing points, `(m, q)`.
        lengths: Kernel length per input, `(q,)`.
        signal: Signal variance per output, `(k,)`.
        noise: Noise variance per output, `(k,)`.
        gram: A A^T with A = L^-1 K_mn and L L^T = K_mm, `(m, m)`.
        moment: A y, `(m, k)`.
    """

    points: Float64[Tensor, "m q"]
    lengths: Float64[Tensor, " q"]
    signal: Float64[Tensor, " k"]
    noise: Float64[Tensor, " k"]
    gram: Float64[Tensor, "m m"]
    moment: Float64[Tensor, "m k"]

    @classmethod
    def fit(
        cls, x: Float64[Tensor, "n q"], y: Float64[Tensor, "n k"], points: Float64[Tensor, "m q"]
    ) -> "ProcessRegression":
        """Maximise the variational bound, with a log-normal prior on the lengths.

        Args:
            x: Process points of the samples, in unit coordinates.
            y: Outputs of zero mean.
            points: Inducing points.
        """
        scale = y.square().mean(0).sqrt().clamp(min=1e-12)
        z, q, k = y / scale, x.shape[1], y.shape[1]
        logs = torch.cat([torch.zeros(q), torch.zeros(k), torch.full((k,), -2.0)])
        logs = logs.to(torch.float64).requires_grad_()
        optimizer = torch.optim.LBFGS([logs], max_iter=60, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            lengths, signal, noise = logs.exp().split([q, k, k])
            value = -_bound(x, z, points, lengths, signal, noise + LEAST_NOISE)
            value = value + logs[:q].square().sum() / 2 + (logs[q:] / 4).square().sum() / 2
            value.backward()
            return value

        optimizer.step(loss)
        lengths, signal, noise = logs.detach().exp().split([q, k, k])
        noise = (noise + LEAST_NOISE) * scale**2
        m = len(points)
        prior = cls(points, lengths, signal * scale**2, noise, y.new_zeros(m, m), y.new_zeros(m, k))
        return prior.on(x, y)

    def on(self, x: Float64[Tensor, "n q"], y: Float64[Tensor, "n k"]) -> "ProcessRegression":
        """Return the same processes, conditioned on these samples only."""
        a = self._whitened(x)
        return replace(self, gram=a @ a.T, moment=a @ y)

    def predict(
        self, x: Float64[Tensor, "n q"]
    ) -> tuple[Float64[Tensor, "n k"], Float64[Tensor, "n k"]]:
        """Return mean and variance of the expected outputs at process points (without noise)."""
        a = self._whitened(x)
        explained = torch.linalg.solve_triangular(self._precision, a, upper=False).square().sum(1)
        missing = (1 - a.square().sum(0)).clamp(min=0)
        return a.T @ self._weights, (self.signal.view(-1, 1) * (missing + explained)).T

    def mean(self, x: Float64[Tensor, "n q"]) -> Float64[Tensor, "n k"]:
        """Return the mean of `predict` alone."""
        return self._whitened(x).T @ self._weights

    def _whitened(self, x: Tensor) -> Tensor:
        kernel = _kernel(self.points, x, self.lengths)
        return torch.linalg.solve_triangular(self._factor, kernel, upper=False)

    @cached_property
    def _factor(self) -> Tensor:
        return _kernel_factor(self.points, self.lengths)

    @cached_property
    def _precision(self) -> Tensor:
        return _precision_factor(self.gram, self.signal / self.noise)

    @cached_property
    def _weights(self) -> Tensor:
        ratio = (self.signal / self.noise).view(-1, 1)
        moment = (ratio * self.moment.T).unsqueeze(-1)
        return torch.cholesky_solve(moment, self._precision).squeeze(-1).T


def process_inputs(space: ProcessSpace, units: Float64[Tensor, "n d"]) -> Float64[Tensor, "n q"]:
    """Return regression inputs from unit coordinates.

    A choice becomes one column per category, categories at mutual distance 1; unknown stays NaN.
    """
    columns = [units.new_zeros(len(units), 0)]
    for parameter, unit in zip(space, units.T, strict=True):
        if parameter.scale != "choice":
            columns.append(unit.unsqueeze(1))
            continue
        n = len(parameter.choices)
        category = (unit * n).floor().clamp(max=n - 1).unsqueeze(1)
        one_hot = (category == torch.arange(n)).to(unit) / math.sqrt(2)
        columns.append(torch.where(unit.isnan().unsqueeze(1), torch.nan, one_hot))
    return torch.cat(columns, 1)


def imputed(x: Float64[Tensor, "n q"]) -> Float64[Tensor, "n q"]:
    """Return x with unknown values replaced by the mean of the known ones."""
    means = x.nanmean(0).nan_to_num(0.5)
    return torch.where(x.isnan(), means, x)


def spread_points(x: Float64[Tensor, "n q"], *, most: int) -> Float64[Tensor, "m q"]:
    """Return the distinct rows of x when there are at most `most`, else as many cluster centres.

    The centres start from farthest-point sampling and move by ten steps of k-means.
    """
    distinct = torch.unique(x, dim=0)
    if len(distinct) <= most:
        return distinct
    chosen = [int(torch.cdist(x.mean(0, keepdim=True), x).argmin())]
    distance = torch.cdist(x, x[chosen]).squeeze(1)
    while len(chosen) < most:
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, torch.cdist(x, x[chosen[-1:]]).squeeze(1))
    points = x[chosen]
    for _ in range(10):
        member = torch.cdist(x, points).argmin(1)
        counts = torch.bincount(member, minlength=most).clamp(min=1).view(-1, 1)
        points = torch.zeros_like(points).index_add(0, member, x) / counts
    return points


def _kernel(a: Tensor, b: Tensor, lengths: Tensor) -> Tensor:
    difference = (a / lengths).unsqueeze(1) - (b / lengths).unsqueeze(0)
    return torch.exp(-difference.square().sum(-1) / 2)


def _kernel_factor(points: Tensor, lengths: Tensor) -> Tensor:
    nugget = JITTER * torch.eye(len(points), dtype=points.dtype)
    return torch.linalg.cholesky(_kernel(points, points, lengths) + nugget)


def _precision_factor(gram: Tensor, ratio: Tensor) -> Tensor:
    identity = torch.eye(len(gram), dtype=gram.dtype)
    return torch.linalg.cholesky(identity + ratio.view(-1, 1, 1) * gram)


def _bound(
    x: Tensor, y: Tensor, points: Tensor, lengths: Tensor, signal: Tensor, noise: Tensor
) -> Tensor:
    """Return the sum over outputs of Titsias' lower bound of the log marginal likelihood."""
    factor = _kernel_factor(points, lengths)
    a = torch.linalg.solve_triangular(factor, _kernel(points, x, lengths), upper=False)
    gram, moment, n = a @ a.T, a @ y, len(x)
    ratio = signal / noise
    precision = _precision_factor(gram, ratio)
    c = torch.linalg.solve_triangular(precision, moment.T.unsqueeze(-1), upper=False).squeeze(-1)
    log_determinant = precision.diagonal(dim1=1, dim2=2).log().sum(1)
    fit = (y.square().sum(0) - ratio * c.square().sum(1)) / noise
    unexplained = ratio * (n - gram.trace())
    return -(n * (math.tau * noise).log() + 2 * log_determinant + fit + unexplained).sum() / 2
