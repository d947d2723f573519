"""Scatter of residuals that changes from process point to process point."""

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor


@dataclass(frozen=True)
class LocalCovariance:
    """Kernel-weighted covariance of residuals around each process point.

    C(x) = (sum_m w_m(x) S_m + k C) / (sum_m w_m(x) n_m + k), where S_m sums the outer products of
    the residuals nearest to point m, w_m = exp(-|x - c_m|^2 / 2h^2) relative to the nearest
    point, and C is the overall covariance, which counts as k samples. Coarse structures in a
    finite cell scatter more than fine ones; one covariance for all would be too wide or too
    narrow.

    Args:
        points: Process points c_m, `(m, q)`.
        lengths: Length scale of each input, `(q,)`.
        sums: S_m, `(m, k, k)`.
        rest_sums: Sum of the squared remainder outside the k components, `(m,)`.
        counts: n_m, `(m,)`.
        bandwidth: h in units of the lengths.
    """

    points: Float64[Tensor, "m q"]
    lengths: Float64[Tensor, " q"]
    sums: Float64[Tensor, "m k k"]
    rest_sums: Float64[Tensor, " m"]
    counts: Float64[Tensor, " m"]
    bandwidth: float = 1.0

    @classmethod
    def gather(
        cls,
        x: Float64[Tensor, "n q"],
        residual: Float64[Tensor, "n k"],
        rest: Float64[Tensor, " n"],
        *,
        points: Float64[Tensor, "m q"],
        lengths: Float64[Tensor, " q"],
        bandwidth: float = 1.0,
    ) -> "LocalCovariance":
        """Sum the residuals of samples at process points x over their nearest points."""
        nearest = torch.cdist(x, points).argmin(1)
        outer = residual.unsqueeze(2) * residual.unsqueeze(1)
        m, k = len(points), residual.shape[1]
        return cls(
            points=points,
            lengths=lengths,
            sums=residual.new_zeros(m, k, k).index_add(0, nearest, outer),
            rest_sums=residual.new_zeros(m).index_add(0, nearest, rest),
            counts=torch.bincount(nearest, minlength=m).to(residual),
            bandwidth=bandwidth,
        )

    def at(
        self, x: Float64[Tensor, "n q"]
    ) -> tuple[Float64[Tensor, "n k k"], Float64[Tensor, " n"]]:
        """Return the covariance and the mean squared remainder at process points."""
        weight = self.weights(x)
        prior, n = float(self.sums.shape[1]), self.counts.sum()
        total = weight @ self.counts + prior
        sums = torch.einsum("nm,mij->nij", weight, self.sums) + prior * self.sums.sum(0) / n
        rest = weight @ self.rest_sums + prior * self.rest_sums.sum() / n
        return sums / total.view(-1, 1, 1), rest / total

    def weights(self, x: Float64[Tensor, "n q"]) -> Float64[Tensor, "n m"]:
        """Return the kernel between x and the points, 1 at the nearest."""
        squared = torch.cdist(x / self.lengths, self.points / self.lengths).square()
        squared = squared - squared.amin(1, keepdim=True)
        return torch.exp(-squared / (2 * self.bandwidth**2))
