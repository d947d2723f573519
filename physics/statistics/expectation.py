"""What is expected of real samples at a process point, some of whose values may be unknown."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from einops import rearrange
from jaxtyping import Float64
from torch import Tensor

from physics.statistics.local_covariance import LocalCovariance
from physics.statistics.process_regression import ProcessRegression

# Each sample with unknown values is held against all candidates: a few samples at a time.
CHUNK = 64

Moments = tuple[Float64[Tensor, "*n k"], Float64[Tensor, "*n k k"], Float64[Tensor, "*n"]]


@dataclass(frozen=True)
class Expectation:
    """Mean m(x), covariance C(x) and remainder of samples' components at a process point x.

    Where values of x are unknown (NaN) the candidates are the scatter's points c_j with x's known
    values put in, each with the weight w_j = exp(-|x - c_j|^2 / 2h^2) of the known values' distance
    relative to the nearest.

    Args:
        regression: The mean and the uncertainty of the mean.
        scatter: The covariance about the mean, and the mean squared remainder.
        floor: Variance f that is added to every component and to the remainder in `distance`.
    """

    regression: ProcessRegression
    scatter: LocalCovariance
    floor: float

    def at(self, x: Float64[Tensor, "n q"]) -> Moments:
        """Return mean, covariance and mean squared remainder at process points.

        With unknown values they are those of the mixture of candidates, each weighted by w_j and
        by the number of training samples near it.
        """
        order, parts = [], []
        for rows in _few_alike(x, len(x)):
            order.append(rows)
            parts.append(self._mixture(x[rows]))
        back = torch.cat(order).argsort()
        mean, covariance, rest = (torch.cat(part)[back] for part in zip(*parts, strict=True))
        return mean, covariance, rest

    def distance(
        self,
        x: Float64[Tensor, "n q"],
        z: Float64[Tensor, "m k"],
        rest: Float64[Tensor, " m"],
    ) -> Float64[Tensor, " m"]:
        """Return d = sqrt((z - m)^T (C + f I)^-1 (z - m) + rest / (mean rest + f)).

        With unknown values, the least over the candidates of d^2 - 2 log w_j: the process that
        explains the sample best counts. C then also holds how far the mean moves in half the
        spacing of the points along each unknown value, since processes lie between them too.

        Args:
            x: One process point for all samples, or one for each.
            z: Components of each sample.
            rest: Squared remainder of each sample.
        """
        distance = torch.empty_like(rest)
        for rows in _few_alike(x, len(z)):
            here = x if len(x) == 1 else x[rows]
            distance[rows] = self._nearest(here, z[rows], rest[rows])
        return distance

    def tensors(self) -> dict[str, Tensor]:
        """Return all that `from_tensors` needs beside bandwidth and floor."""
        rows, columns = torch.tril_indices(*self.scatter.sums.shape[1:])
        return {
            "points": self.regression.points,
            "lengths": self.regression.lengths,
            "signal": self.regression.signal,
            "noise": self.regression.noise,
            "gram": self.regression.gram,
            "moment": self.regression.moment,
            "sums": self.scatter.sums[:, rows, columns],
            "rest_sums": self.scatter.rest_sums,
            "counts": self.scatter.counts,
        }

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], *, bandwidth: float, floor: float
    ) -> "Expectation":
        """Return the expectation whose `tensors` these are."""
        points, lengths = tensors["points"], tensors["lengths"]
        k = len(tensors["signal"])
        rows, columns = torch.tril_indices(k, k)
        sums = points.new_zeros(len(points), k, k)
        sums[:, rows, columns] = tensors["sums"]
        sums[:, columns, rows] = tensors["sums"]
        names = ("signal", "noise", "gram", "moment")
        regression = ProcessRegression(points, lengths, *(tensors[name] for name in names))
        rest = (tensors["rest_sums"], tensors["counts"], bandwidth)
        return cls(regression, LocalCovariance(points, lengths, sums, *rest), floor)

    def _mixture(self, x: Tensor) -> Moments:
        candidates, log_weight, crowd = self._candidates(x)
        weight = torch.softmax(log_weight + crowd.log(), 1)
        mean, covariance, rest = self._at_known(candidates)
        centre = torch.einsum("nm,nmk->nk", weight, mean)
        apart = mean - centre.unsqueeze(1)
        within = torch.einsum("nm,nmij->nij", weight, covariance)
        between = torch.einsum("nm,nmi,nmj->nij", weight, apart, apart)
        return centre, within + between, torch.einsum("nm,nm->n", weight, rest)

    def _nearest(self, x: Tensor, z: Tensor, rest: Tensor) -> Tensor:
        candidates, log_weight, _ = self._candidates(x)
        mean, covariance, scale = self._at_known(candidates)
        covariance = covariance + self._between(x, candidates)
        covariance = covariance + self.floor * torch.eye(z.shape[1], dtype=z.dtype)
        factor = torch.linalg.cholesky(covariance)
        residual = (z.unsqueeze(1) - mean).unsqueeze(-1)
        white = torch.linalg.solve_triangular(factor, residual, upper=False)
        squared = white.square().sum((2, 3)) + rest.unsqueeze(1) / (scale + self.floor)
        return (squared - 2 * log_weight).amin(1).sqrt()

    def _candidates(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return candidates `(n, m, q)`, log w_j `(n, m)` and the samples near each.

        Rows of x all have unknown values, or none has: then x is the only candidate.
        """
        if not x.isnan().any():
            one = x.new_ones(len(x), 1)
            return x.unsqueeze(1), one.log(), one
        points, lengths = self.scatter.points, self.scatter.lengths * self.scatter.bandwidth
        candidates = torch.where(x.isnan().unsqueeze(1), points, x.unsqueeze(1))
        squared = ((candidates - points) / lengths).square().sum(2)
        return candidates, (squared.amin(1, keepdim=True) - squared) / 2, self.scatter.counts

    def _between(self, x: Tensor, candidates: Tensor) -> Tensor:
        """Return the covariance of the mean's changes within half the spacing of the points."""
        half = torch.diag(self._spacing / 2)
        total = torch.zeros((), dtype=x.dtype)
        for axis in torch.nonzero(x.isnan().any(0)).flatten().tolist():
            ahead, behind = (
                self.regression.mean(rearrange(c, "n m q -> (n m) q"))
                for c in (candidates + half[axis], candidates - half[axis])
            )
            change = ((ahead - behind) / 2).unflatten(0, candidates.shape[:2])
            change = change * x[:, axis].isnan().view(-1, 1, 1)
            total = total + change.unsqueeze(3) * change.unsqueeze(2)
        return total

    @cached_property
    def _spacing(self) -> Tensor:
        """Typical distance between neighbouring points along each input."""
        scaled = self.scatter.points / self.scatter.lengths
        if len(scaled) == 1:
            return torch.zeros_like(self.scatter.lengths)
        apart = torch.cdist(scaled, scaled).fill_diagonal_(torch.inf)
        return apart.amin(1).square().mean().sqrt() * self.scatter.lengths

    def _at_known(self, x: Tensor) -> Moments:
        rows = rearrange(x, "n m q -> (n m) q")
        mean, uncertainty = self.regression.predict(rows)
        covariance, rest = self.scatter.at(rows)
        covariance = covariance + torch.diag_embed(uncertainty)
        mean, covariance, rest = (
            part.unflatten(0, x.shape[:2]) for part in (mean, covariance, rest)
        )
        return mean, covariance, rest


def _few_alike(x: Tensor, n: int) -> Iterator[Tensor]:
    """Yield the indices of n samples, those with unknown values apart, a few at a time."""
    unknown = x.isnan().any(1).expand(n)
    for alike in (~unknown, unknown):
        yield from (rows for rows in torch.nonzero(alike).squeeze(1).split(CHUNK) if len(rows))
