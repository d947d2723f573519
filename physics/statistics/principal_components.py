"""Principal components of vectors: the directions in which samples differ most."""

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

# Directions of a smaller share of the leading standard deviation are round-off.
NEGLIGIBLE = 1e-6


@dataclass(frozen=True)
class PrincipalComponents:
    """Vectors v = mean + D z + remainder, with orthonormal directions D of falling variance.

    The first among the (all but) largest entries of each direction is positive, so that the same
    samples give the same directions whatever the linear-algebra library.

    Args:
        mean: Mean of the vectors, `(size,)`.
        directions: D, `(size, k)`.
    """

    mean: Float64[Tensor, " size"]
    directions: Float64[Tensor, "size k"]

    @classmethod
    def fit(
        cls, vectors: Float64[Tensor, "n size"], *, most: int
    ) -> tuple["PrincipalComponents", Float64[Tensor, " rank"]]:
        """Return at most `most` components, and the variances along all directions.

        Fewer when the samples span fewer directions. Takes the singular values of the centred
        vectors, or, where these are longer than many, the eigenvalues of their Gram matrix.
        """
        mean = vectors.mean(0)
        squares, directions = _singular(vectors - mean, most)
        variance = squares / max(len(vectors) - 1, 1)
        return cls(mean, _with_signs(directions).T.contiguous()), variance

    def project(
        self, vectors: Float64[Tensor, "n size"]
    ) -> tuple[Float64[Tensor, "n k"], Float64[Tensor, " n"]]:
        """Return the components z and the squared norm of what they miss."""
        apart = vectors - self.mean
        z = apart @ self.directions
        return z, (apart.square().sum(1) - z.square().sum(1)).clamp(min=0)

    def expand(self, z: Float64[Tensor, "n k"]) -> Float64[Tensor, "n size"]:
        """Return the vectors that have these components and no remainder."""
        return self.mean + z @ self.directions.T


def _singular(apart: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return all squared singular values above round-off, falling, and leading directions."""
    n, size = apart.shape
    if size <= n:
        _, spread, rows = torch.linalg.svd(apart, full_matrices=False)
        rank = _rank(spread)
        return spread[:rank].square(), rows[: min(most, rank)]
    squares, weights = (part.flip(-1) for part in torch.linalg.eigh(apart @ apart.T))
    rank = _rank(squares.clamp(min=0).sqrt())
    # The QR step takes out what round-off left between directions of unlike variance.
    directions, _ = torch.linalg.qr(apart.T @ weights[:, : min(most, rank)])
    return squares[:rank], directions.T


def _rank(spread: Tensor) -> int:
    return max(int((spread > NEGLIGIBLE * spread[0]).sum()), 1)


def _with_signs(rows: Tensor) -> Tensor:
    size = rows.abs()
    largest = size >= (1 - NEGLIGIBLE) * size.amax(1, keepdim=True)
    first = largest.to(torch.uint8).argmax(1, keepdim=True)
    return rows * torch.where(rows.gather(1, first) < 0, -1.0, 1.0)
