"""The statistics of a labelled sample as one vector: S2 of phase pairs and lineal paths."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Integer
from torch import Tensor

from microstructures import DataError
from physics.statistics.correlation import radial_mean, two_point_correlation
from physics.statistics.morphology import lineal_path

CHUNK = 64


@dataclass(frozen=True)
class Curves:
    """Which curves are taken, and where each lies in the vector.

    First the radial means of S2_ij of the phases 1 <= i <= j (those with phase 0 follow, since
    the indicators sum to 1), then the lineal path of every phase along every axis, all at the
    same `lags`, which reach a quarter of the shortest axis.

    Args:
        n_phases: Number of labels.
        lags: Lags in voxels, from 0, rising.
        periodic: One flag per axis.
    """

    n_phases: int
    lags: tuple[int, ...]
    periodic: tuple[bool, ...]

    @classmethod
    def for_shape(
        cls, shape: Sequence[int], *, n_phases: int, periodic: Sequence[bool], most: int = 20
    ) -> "Curves":
        """Return the curves for samples of this shape, with at most about `most` lags each."""
        reach = max(min(shape) // 4, 1)
        lags = np.arange(reach + 1)
        if len(lags) > most:
            lags = np.unique(np.concatenate([[0], np.geomspace(1, reach, most - 1).round()]))
        return cls(n_phases, tuple(int(k) for k in lags), tuple(bool(p) for p in periodic))

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The phase pairs of the S2 curves, in order."""
        return [(i, j) for i in range(1, self.n_phases) for j in range(i, self.n_phases)]

    @property
    def size(self) -> int:
        """Length of the vector."""
        return len(self.lags) * (len(self.pairs) + self.n_phases * len(self.periodic))

    def correlation_columns(self, pair: tuple[int, int]) -> slice:
        """Return where the S2 curve of a pair lies in the vector.

        Raises:
            DataError: The pair is not among `pairs`.
        """
        pair = (min(pair), max(pair))
        if pair not in self.pairs:
            raise DataError(f"expected a phase pair among {self.pairs}, got {pair}")
        start = len(self.lags) * self.pairs.index(pair)
        return slice(start, start + len(self.lags))

    def measure(self, phases: Integer[Tensor, "batch *space"]) -> Float64[Tensor, "batch size"]:
        """Return the vector of each sample."""
        return torch.cat([self._measure(chunk) for chunk in phases.split(CHUNK)])

    def _measure(self, phases: Tensor) -> Tensor:
        reach, lags = self.lags[-1], list(self.lags)
        indicators = [(phases == i).to(torch.float32) for i in range(self.n_phases)]
        curves = []
        for i, j in self.pairs:
            other = None if i == j else indicators[j]
            correlation = two_point_correlation(indicators[i], other, periodic=self.periodic)
            curves.append(radial_mean(correlation, max_lag=reach)[:, lags])
        for a in indicators:
            path = lineal_path(a, max_lag=reach, periodic=self.periodic)
            curves.append(path[..., lags].flatten(1))
        return torch.cat(curves, 1).to(torch.float64)
