"""Covariances of random fields, and the nearest ones that a periodic cell can have."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.interpolate import CubicSpline
from scipy.ndimage import map_coordinates
from torch import Tensor

from microstructures import DataError

# Alternating projections onto "no negative power" and "target at short lags".
PROJECTIONS = 20
# Share of negative power that is simply cut off.
NEGLIGIBLE = 3e-4


@dataclass(frozen=True)
class TabulatedCovariance:
    """Covariance of an isotropic unit-variance field over r / correlation length.

    A cubic spline through the entries (`distance` from 0, rising), flat at 0 as for every cut with
    a finite surface, zero beyond the last.
    """

    distance: tuple[float, ...]
    value: tuple[float, ...]


@dataclass(frozen=True)
class MappedCovariance:
    """Covariance of a unit-variance field of any anisotropy, as a map of lags.

    Cubic interpolation between the entries, zero beyond the map.

    Args:
        spacing: Step of the map in correlation lengths, the same along all axes.
        shape: Entries along each axis.
        value: The entries in C order, zero lag first and negative lags last, as
            `two_point_correlation` has them.
    """

    spacing: float
    shape: tuple[int, ...]
    value: tuple[float, ...]

    @classmethod
    def from_map(cls, values: Float[Tensor, "*lag"], *, spacing: float) -> "MappedCovariance":
        """Return the covariance with these entries."""
        flat = values.double().flatten().tolist()
        return cls(spacing, tuple(values.shape), tuple(flat))

    def at(self, lags: Float[Tensor, "axis *lag"]) -> Float[Tensor, "*lag"]:
        """Return the covariance at lags in correlation lengths."""
        values = np.fft.fftshift(np.reshape(self.value, self.shape))
        # The lag of half an even axis stands for both signs.
        values = np.pad(values, [(0, 1 - n % 2) for n in self.shape], mode="wrap")
        half = np.reshape([n // 2 for n in self.shape], (-1, *[1] * len(self.shape)))
        steps = lags.numpy() / self.spacing
        found = map_coordinates(values, steps + half, order=3, mode="nearest")
        inside = (np.abs(steps) <= half + 1e-9).all(0)
        return torch.from_numpy(np.where(inside, found, 0.0))


CovarianceName = Literal["gaussian", "exponential", "oscillating"]
Covariance = CovarianceName | TabulatedCovariance | MappedCovariance


def covariance_at(
    covariance: Covariance, lags: Float[Tensor, "axis *lag"]
) -> Float[Tensor, "*lag"]:
    """Return a covariance at lags given in correlation lengths.

    Raises:
        DataError: A map of lags of another dimension than the lags.
    """
    r = lags.square().sum(0).sqrt()
    match covariance:
        case "gaussian":
            return torch.exp(-r.square() / 2)
        case "exponential":
            return torch.exp(-r)
        case "oscillating":
            return torch.sinc(2 * r) * torch.exp(-r.square() / 8)
        case TabulatedCovariance(distance, value):
            ends = ((1, 0.0), (2, 0.0))
            spline = CubicSpline(distance, value, bc_type=ends)  # pyright: ignore[reportArgumentType]
            inside = r <= distance[-1]
            return torch.where(inside, torch.from_numpy(spline(r.clamp(max=distance[-1]))), 0.0)
        case MappedCovariance():
            if len(covariance.shape) != len(lags):
                raise DataError(
                    f"expected a cell with {len(covariance.shape)} axes as the map of its "
                    f"covariance has, got {len(lags)} axes"
                )
            return covariance.at(lags)


def realisable_covariance(
    target: Float[Tensor, "*lag"], *, kept: Bool[Tensor, "*lag"]
) -> Float[Tensor, "*lag"]:
    """Return a covariance without negative power, of variance 1, close to a target map of lags.

    Negative power (Wiener-Khinchin) is cut off; without it the variance is too large, so the
    target is put back at the lags that are to be kept and the others give way, by turns.
    """
    spectrum = torch.fft.fftn(target).real
    for _ in range(PROJECTIONS):
        if -spectrum.clamp(max=0).sum() <= NEGLIGIBLE * spectrum.clamp(min=0).sum():
            break
        allowed = torch.fft.ifftn(spectrum.clamp(min=0)).real
        spectrum = torch.fft.fftn(torch.where(kept, target, allowed)).real
    spectrum = spectrum.clamp(min=0)
    # The spectrum's mean is the variance.
    return torch.fft.ifftn(spectrum / spectrum.mean()).real


def decay_length(curve: Float[Tensor, " radius"]) -> float:
    """Return the lag in entries at which a covariance curve first falls to 1/e."""
    below = torch.nonzero(curve < math.exp(-1))
    if not len(below):
        return float(len(curve) - 1)
    k = int(below[0])
    drop = float(curve[k - 1] - curve[k])
    return k - 1 + (float(curve[k - 1]) - math.exp(-1)) / drop
