"""Few numbers that describe a structure: principal components of its two-point correlations."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from microstructures import CheckpointError, DataError
from physics.statistics.correlation import check_max_lag, periodic_flags
from physics.statistics.phase_correlations import phase_correlations
from physics.statistics.principal_components import PrincipalComponents
from physics.statistics.tensor_folder import open_tensors, publish_tensors

KIND = "correlation-basis"
# Entries of the maps of lags of all phase pairs that are held at once.
CHUNK_ENTRIES = 2**24
# Variance of correlations that are alike.
ROUND_OFF = 1e-20


@dataclass(frozen=True)
class CorrelationBasis:
    """Principal components of the maps S2_pq(r) of an ensemble of structures.

    The descriptor of a structure is z = D^T (S - mean S), S the correlations of the phase pairs
    1 <= p <= q (those with phase 0 follow) at all lags of at most `max_lag` voxels along each axis
    (Fullwood, Niezgoda, Adams and Kalidindi 2010, doi:10.1016/j.pmatsci.2009.08.002; Niezgoda,
    Kanjarla and Kalidindi 2013, doi:10.1186/2193-9772-2-3). It does not change when a periodic
    structure is shifted, and not when it is inverted through a point: S2 alone does not tell all
    structures apart. Lags count voxels: structures must share their voxel size.

    Made by `fit` or `load`.

    Args:
        n_phases: Number of labels.
        max_lag: Longest lag in voxels along each axis.
        periodic: One flag per axis.
        components: Mean map and directions D.
        variance: Variance along each direction, `(k,)`, falling.
        total_variance: Sum of the variances along all directions.
    """

    n_phases: int
    max_lag: int
    periodic: tuple[bool, ...]
    components: PrincipalComponents
    variance: Float64[Tensor, " k"]
    total_variance: float

    @classmethod
    def fit(
        cls,
        phases: Shaped[Tensor, "batch *dims"],
        *,
        n_components: int,
        max_lag: int | None = None,
        n_phases: int | None = None,
        periodic: bool | Sequence[bool] = True,
    ) -> "CorrelationBasis":
        """Learn the directions in which an ensemble's correlations vary most.

        The sign of each direction is fixed, so that the same structures give the same numbers.
        Fewer than `n_components` come out where the structures span fewer directions.

        Args:
            phases: Labels or indicators `(batch, *space)`, or float fractions
                `(batch, phase, *space)`.
            n_components: Number of directions, below the number of structures.
            max_lag: Longest lag in voxels along each axis; a quarter of the shortest axis when
                left out.
            n_phases: Number of labels; the largest one present plus 1 when left out.
            periodic: One flag for all axes, or one per axis.

        Raises:
            DataError: Not 2-D or 3-D, one phase, structures whose correlations are all alike, or
                settings out of range.

        >>> basis = CorrelationBasis.fit(cells, n_components=5)  # doctest: +SKIP
        >>> basis.transform(cells).shape  # doctest: +SKIP
        torch.Size([200, 5])
        """
        shape, present = _space_and_phases(phases)
        if max_lag is None:
            max_lag = min(shape) // 4
        if not 1 <= n_components < len(phases):
            raise DataError(
                f"expected n_components from 1 to {len(phases) - 1}, one below the number of "
                f"structures, got {n_components}"
            )
        n_phases = present if n_phases is None else n_phases
        if n_phases < 2:
            raise DataError("expected structures of two or more phases, got one; pass n_phases")
        flags = periodic_flags(periodic, len(shape))
        vectors = _correlations(phases, n_phases, max_lag, flags).flatten(1)
        components, variance = PrincipalComponents.fit(vectors.detach(), most=n_components)
        if float(variance[0]) <= ROUND_OFF:
            raise DataError(
                f"expected structures of unlike S2, got {len(phases)} alike; widen the ensemble"
            )
        kept = variance[: components.directions.shape[1]]
        return cls(n_phases, max_lag, flags, components, kept, float(variance.sum()))

    @property
    def explained_variance_ratio(self) -> Float64[Tensor, " k"]:
        """Share of the ensemble's variance along each direction."""
        return self.variance / self.total_variance

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The phase pairs of the maps, in order."""
        return _pairs(self.n_phases)

    def transform(self, phases: Shaped[Tensor, "batch *dims"]) -> Float64[Tensor, "batch k"]:
        """Return the descriptor of structures of any shape that holds the lags.

        Differentiable in soft fractions.

        Args:
            phases: Labels or indicators `(batch, *space)`, or float fractions
                `(batch, phase, *space)`.

        Raises:
            DataError: Other phases or fewer dimensions than in the fit, or too small.
        """
        shape, present = _space_and_phases(phases)
        if len(shape) != len(self.periodic) or present > self.n_phases:
            raise DataError(
                f"expected structures of {len(self.periodic)} axes and at most {self.n_phases} "
                f"phases, as in the fit, got {len(shape)} and {present}"
            )
        maps = _correlations(phases, self.n_phases, self.max_lag, self.periodic)
        return self.components.project(maps.flatten(1))[0]

    def inverse_transform(
        self, descriptor: Float[Tensor, "batch k"]
    ) -> Float64[Tensor, "batch pair *lag"]:
        """Return the correlations that have this descriptor and nothing beside it.

        Shape `(batch, pair, *lag)` with 2 max_lag + 1 lags along each axis, zero lag at index 0
        (`lag_vectors`). They need not be realizable (`check_realizable`).

        Raises:
            DataError: Not one number per direction.
        """
        k = len(self.variance)
        if descriptor.shape[1] != k:
            raise DataError(f"expected descriptors of {k} numbers, got {descriptor.shape[1]}")
        vectors = self.components.expand(descriptor.to(torch.float64))
        lags = (2 * self.max_lag + 1,) * len(self.periodic)
        return vectors.unflatten(1, (len(self.pairs), *lags))

    def save(self, folder: str | Path) -> Path:
        """Write the basis as a folder that `load` reads."""
        about = {
            "n_phases": self.n_phases,
            "max_lag": self.max_lag,
            "periodic": list(self.periodic),
            "total_variance": self.total_variance,
        }
        tensors = {
            "mean": self.components.mean,
            "directions": self.components.directions,
            "variance": self.variance,
        }
        return publish_tensors(folder, tensors, kind=KIND, about=about)

    @classmethod
    def load(cls, folder: str | Path) -> "CorrelationBasis":
        """Read a basis that `save` wrote.

        Raises:
            CheckpointError: It is no basis, or incomplete, altered or damaged.
        """
        about, tensors = open_tensors(folder, kind=KIND)
        try:
            return cls(
                n_phases=int(about["n_phases"]),
                max_lag=int(about["max_lag"]),
                periodic=tuple(bool(flag) for flag in about["periodic"]),
                components=PrincipalComponents(tensors["mean"], tensors["directions"]),
                variance=tensors["variance"],
                total_variance=float(about["total_variance"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{folder} does not describe a correlation basis: {error}; fit it again"
            ) from error


def _space_and_phases(phases: Tensor) -> tuple[tuple[int, ...], int]:
    """Return the shape in space and the number of phases that these labels or fractions need."""
    soft = phases.is_floating_point()
    space = tuple(phases.shape[2 if soft else 1 :])
    if len(space) not in (2, 3) or 0 in phases.shape:
        raise DataError(
            "expected labels (batch, *space) or fractions (batch, phase, *space) with 2 or 3 space "
            f"axes, got {phases.dtype} of shape {tuple(phases.shape)}"
        )
    return space, phases.shape[1] if soft else int(phases.max()) + 1


def _pairs(n_phases: int) -> list[tuple[int, int]]:
    return [(p, q) for p in range(1, n_phases) for q in range(p, n_phases)]


def _correlations(
    phases: Tensor, n_phases: int, max_lag: int, flags: Sequence[bool]
) -> Float64[Tensor, "batch pair *lag"]:
    space, _ = _space_and_phases(phases)
    check_max_lag(
        max_lag, min((n - 1) // 2 if wrap else n - 1 for n, wrap in zip(space, flags, strict=True))
    )
    phases = phases.to(torch.float64) if phases.is_floating_point() else phases.to(torch.int64)
    samples = max(1, CHUNK_ENTRIES // (n_phases**2 * math.prod(space)))
    chunks = []
    for chunk in phases.split(samples):
        maps = phase_correlations(chunk, n_phases=n_phases, periodic=flags, dtype=torch.float64)
        rows, columns = zip(*_pairs(n_phases), strict=True)
        chunks.append(_near(maps[:, rows, columns], max_lag))
    return torch.cat(chunks)


def _near(maps: Tensor, max_lag: int) -> Tensor:
    """Return the lags of at most max_lag along each axis, still with zero lag at index 0."""
    steps = torch.arange(-max_lag, max_lag + 1).roll(-max_lag)
    for axis in range(2, maps.ndim):
        maps = maps.index_select(axis, steps % maps.shape[axis])
    return maps
