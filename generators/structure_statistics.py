"""Statistics of single structures, from which ensembles are compared."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from microstructures import DataError, Microstructure
from physics.statistics import (
    euler_density,
    lineal_path,
    radial_mean,
    specific_surface,
    two_point_correlation,
)

CHUNK_VOXELS = 2**18
DECAY = float(np.exp(-1))

Samples = Integer[Tensor, "..."] | Integer[np.ndarray, "..."] | Sequence[Microstructure]


@dataclass(frozen=True)
class StructureStatistics:
    """What each sample of an ensemble measures, in voxel units.

    Args:
        s2: Radial two-point correlation at lags 0, 1, ..., `(sample, phase, lag)`; lag 0 is the
            volume fraction.
        lineal_path: Lineal path of all axes in a row, `(sample, phase, axis * lag)`.
        surface: Specific surface.
        euler: Euler density.
    """

    s2: Float[np.ndarray, "sample phase lag"]
    lineal_path: Float[np.ndarray, "sample phase segment"]
    surface: Float[np.ndarray, "sample phase"]
    euler: Float[np.ndarray, "sample phase"]

    def __len__(self) -> int:
        return len(self.s2)

    @property
    def n_phases(self) -> int:
        """Number of phases."""
        return self.s2.shape[1]

    @property
    def max_lag(self) -> int:
        """Longest lag in voxels."""
        return self.s2.shape[2] - 1

    @property
    def fractions(self) -> Float[np.ndarray, "sample phase"]:
        """Volume fractions."""
        return self.s2[:, :, 0]

    def part(self, rows: slice | Sequence[int] | np.ndarray) -> "StructureStatistics":
        """Return the statistics of some samples."""
        return StructureStatistics(*(getattr(self, f.name)[rows] for f in fields(self)))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all arrays by name, as `StructureStatistics(**arrays)` takes them."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def measure_structures(
    samples: Samples, *, n_phases: int, periodic: bool | Sequence[bool] = True
) -> StructureStatistics:
    """Measure every sample, lags to a quarter of the shortest side."""
    labels = as_labels(samples)
    chunk = max(1, CHUNK_VOXELS // labels[0].numel())
    parts = [_measure(part, n_phases, periodic) for part in labels.split(chunk)]
    return StructureStatistics(*(np.concatenate(p) for p in zip(*parts, strict=True)))


def correlation_lengths(s2: Float[np.ndarray, "*batch lag"]) -> Float[np.ndarray, "*batch"]:
    """Return the lag in voxels at which chi = (S2 - phi^2)/(phi (1 - phi)) first falls to 1/e.

    Linear between whole lags; the longest lag where chi does not fall so far, 0 for a phase that
    is absent or alone.
    """
    values = normalised(s2)
    below = values < DECAY
    last = values.shape[-1] - 1
    k = np.where(below.any(-1), below.argmax(-1), last + 1)
    inside = np.clip(k, 1, last)
    upper = np.take_along_axis(values, inside[..., None] - 1, -1)[..., 0]
    lower = np.take_along_axis(values, inside[..., None], -1)[..., 0]
    share = (upper - DECAY) / np.where(upper > lower, upper - lower, 1.0)
    return np.where(k == 0, 0.0, np.where(k > last, float(last), inside - 1 + share))


def normalised(s2: Float[np.ndarray, "*batch lag"]) -> Float[np.ndarray, "*batch lag"]:
    """Return chi = (S2 - phi^2)/(phi (1 - phi)), 0 for a phase that is absent or alone."""
    phi = s2[..., :1]
    return (s2 - phi**2) / np.maximum(phi * (1 - phi), 1e-12)


def as_labels(samples: Samples) -> Integer[Tensor, "batch *space"]:
    """Return labels as one tensor.

    Raises:
        DataError: Microstructures of more than one shape, or none.
    """
    if isinstance(samples, Tensor):
        return samples.cpu()
    if isinstance(samples, np.ndarray):
        return torch.from_numpy(samples)
    shapes = {m.shape for m in samples}
    if len(shapes) != 1:
        raise DataError(f"expected microstructures of one shape, got {sorted(shapes) or 'none'}")
    return torch.from_numpy(np.stack([m.phases for m in samples]))


def _measure(labels: Tensor, phases: int, wrap: bool | Sequence[bool]) -> list[np.ndarray]:
    reach = max(min(labels.shape[1:]) // 4, 1)
    indicators = torch.stack([labels == i for i in range(phases)], 1).float().flatten(0, 1)
    found = [
        radial_mean(two_point_correlation(indicators, periodic=wrap), max_lag=reach),
        lineal_path(indicators, max_lag=reach, periodic=wrap).flatten(1),
        specific_surface(indicators, periodic=wrap),
        euler_density(indicators, periodic=wrap),
    ]
    return [v.view(len(labels), phases, *v.shape[1:]).double().numpy() for v in found]
