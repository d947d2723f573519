"""How far a cell is from the cells that a surrogate was trained on."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from microstructures import DataError
from physics.statistics.correlation import radial_mean, two_point_correlation

LAGS = 8  # voxels up to which the two-point correlation is compared
QUANTILE = 0.95


class Familiarity(nn.Module):
    """Distance of cells from the training set, 1 at its own 95 % quantile.

    A cell is described by its contrast (log of the highest over the lowest shear modulus or
    conductivity), the lowest and highest log of bulk over shear modulus, the mean of its log on a
    scale from 0 (softest) to 1 (stiffest) - with two phases the fraction of the stiff one - and
    the normalised radial covariance of that field at 1 to 8 voxels (with two phases
    (S2 - f^2) / (f - f^2)), which together weigh as one entry. Each entry is standardised over
    the training set; the distance is the Euclidean one to the nearest training cell over the
    95 % quantile of that distance within the training set. A side of twice or half the trained
    length adds 1: the Fourier modes of another size mean other lengths.
    """

    known: Tensor
    mean: Tensor
    spread: Tensor
    scale: Tensor
    shape: Tensor

    def __init__(self, samples: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("known", torch.zeros(samples, 4 + LAGS))
        self.register_buffer("mean", torch.zeros(4 + LAGS))
        self.register_buffer("spread", torch.ones(4 + LAGS))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("shape", torch.tensor(shape, dtype=torch.float32))

    @classmethod
    def fit(
        cls, descriptors: Float[Tensor, "sample entry"], shape: tuple[int, ...]
    ) -> "Familiarity":
        """Return the distance from these training cells, given by `describe`.

        Raises:
            DataError: Fewer than two training cells.
        """
        if len(descriptors) < 2:
            raise DataError(f"expected at least two training cells, got {len(descriptors)}")
        familiarity = cls(len(descriptors), shape)
        weight = torch.tensor([1.0] * 4 + [math.sqrt(LAGS)] * LAGS)
        familiarity.mean.copy_(descriptors.mean(0))
        familiarity.spread.copy_(descriptors.std(0).clamp_min(1e-3) * weight)
        familiarity.known.copy_((descriptors - familiarity.mean) / familiarity.spread)
        gaps = torch.cdist(familiarity.known, familiarity.known).fill_diagonal_(torch.inf)
        familiarity.scale.copy_(gaps.amin(1).quantile(QUANTILE).clamp_min(1e-3))
        return familiarity

    def forward(self, moduli: Float[Tensor, "batch modulus *space"]) -> Float[Tensor, " batch"]:
        """Return the distance of cells, given by their local moduli (see `describe`)."""
        entries = (describe(moduli) - self.mean) / self.spread
        nearest = torch.cdist(entries, self.known).amin(1) / self.scale
        sides = torch.tensor(moduli.shape[2:]).to(self.shape)
        return nearest + (sides / self.shape).log2().abs().max()


def describe(
    moduli: Float[Tensor, "batch modulus *space"],
) -> Float[Tensor, "batch entry"]:
    """Return contrast, range of the moduli's ratio, stiff fraction and normalised covariance.

    The last modulus leads (shear modulus, conductivity); the ratio is the first over the last.

    Raises:
        DataError: A side is shorter than 16 voxels.
    """
    check_sides(moduli.shape[2:])
    logs = moduli.clamp_min(1e-6).log()
    leading, ratios = logs[:, -1], (logs[:, 0] - logs[:, -1]).flatten(1)
    low, high = leading.flatten(1).amin(1), leading.flatten(1).amax(1)
    wide = [1] * (moduli.ndim - 2)
    stiffness = (leading - low.view(-1, *wide)) / (high - low).clamp_min(1e-6).view(-1, *wide)
    fraction = stiffness.flatten(1).mean(1)
    centred = stiffness - fraction.view(-1, *wide)
    covariance = radial_mean(two_point_correlation(centred), max_lag=LAGS)
    entries = torch.stack([high - low, ratios.amin(1), ratios.amax(1), fraction], 1)
    return torch.cat([entries, covariance[:, 1:] / covariance[:, :1].clamp_min(1e-6)], 1).float()


def check_sides(shape: Sequence[int]) -> None:
    """Refuse cells that are too small to describe.

    Raises:
        DataError: A side is shorter than 16 voxels.
    """
    if min(shape) < 2 * LAGS:
        raise DataError(
            f"expected sides of at least {2 * LAGS} voxels to compare two-point correlations, "
            f"got {tuple(shape)}; tile the periodic cell"
        )
