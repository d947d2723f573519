"""The exact relation between the covariance of a Gaussian field and the S2 of its level cut."""

from statistics import NormalDist

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

# Points of the table that relates the covariance of a field to the S2 of its cut.
TABLE = 4001


def cut_correlation(covariance: Float[Tensor, "*lag"], *, fraction: float) -> Float[Tensor, "*lag"]:
    """Return S2 of the cut with this volume fraction of a field with this covariance.

    The cut is Y > t with P(Y > t) = fraction, and S2 the probability of two correlated normal
    numbers both above t: phi^2 + (1/2 pi) int_0^R exp(-t^2/(1 + s)) / sqrt(1 - s^2) ds (Berk
    1991, doi:10.1103/PhysRevA.44.5069), which is 1/4 + asin(R)/(2 pi) at t = 0.
    """
    angle, s2 = _cut_table(fraction)
    values = np.interp(np.arcsin(covariance.double().clamp(-1, 1).numpy()), angle, s2)
    return torch.from_numpy(np.asarray(values))


def field_covariance(s2: Float[Tensor, "*lag"], *, fraction: float) -> Float[Tensor, "*lag"]:
    """Return the field covariance whose cut has this S2, the inverse of `cut_correlation`.

    An S2 that no cut of this fraction can have, above the fraction or below max(0, 2 fraction -
    1), gives covariance 1 or -1.
    """
    angle, table = _cut_table(fraction)
    values = np.sin(np.interp(s2.double().numpy(), table, angle))
    return torch.from_numpy(np.asarray(values))


def _cut_table(fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Return asin(R) from -pi/2 to pi/2 and S2 there, by the trapezoid rule in asin(s)."""
    level = NormalDist().inv_cdf(1 - fraction)
    angle = np.linspace(-np.pi / 2, np.pi / 2, TABLE)
    slope = np.exp(-(level**2) / np.maximum(1 + np.sin(angle), 1e-12)) / (2 * np.pi)
    step = angle[1] - angle[0]
    s2 = np.concatenate([[0.0], np.cumsum((slope[1:] + slope[:-1]) * step / 2)])
    return angle, s2 - s2[TABLE // 2] + fraction**2
