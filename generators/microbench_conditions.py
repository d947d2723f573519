"""What MicroBench compares: measured samples of one process point, real and made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from generators.structure_statistics import (
    Samples,
    StructureStatistics,
    as_labels,
    correlation_lengths,
    measure_structures,
)
from physics import IsotropicElastic, effective_conductivity, effective_stiffness

CONTRAST, POISSON = 10.0, 0.3
SOLVER_TOLERANCE = 1e-3
# The solver holds several fields per load case: this keeps a batch of any size below a gigabyte.
SOLVED_VOXELS = 2**19


@dataclass(frozen=True)
class Measured:
    """Samples of one condition, measured.

    Args:
        statistics: Of every sample.
        properties: Effective properties of the first samples by name, `(solved,)` each.
        distance: Mean share of voxels in which two of the samples differ.
    """

    statistics: StructureStatistics
    properties: Mapping[str, Float[np.ndarray, " solved"]] = field(default_factory=dict)
    distance: float = 0.0

    def descriptors(self, names: Sequence[str] = ()) -> dict[str, Float[np.ndarray, " sample"]]:
        """Return fraction, correlation length of S2 and specific surface of every sample.

        Of phase 1 where there are two, else of every phase but the first, named by `names`.
        """
        s = self.statistics
        lengths = correlation_lengths(s.s2)
        found = {}
        for phase in range(min(1, s.n_phases - 1), s.n_phases):
            of = f" of {names[phase] if names else f'phase {phase}'}" if s.n_phases > 2 else ""
            found[f"fraction{of}"] = s.fractions[:, phase]
            found[f"length{of}"] = lengths[:, phase]
            found[f"surface{of}"] = s.surface[:, phase]
        return found


@dataclass(frozen=True)
class TrueCondition:
    """Real samples of one process point.

    The first `compared` samples are what generated ones are held against; all of them give the
    floor, and the rest stands as a perfect generator, real against real.

    Args:
        process: The process point.
        real: All samples.
        compared: How many of them are the reference.
        groups: Source of every sample where several share one, as crops of a map do.
    """

    process: Mapping[str, Any]
    real: Measured
    compared: int
    groups: tuple[str, ...] | None = None

    @property
    def reference(self) -> Measured:
        """The samples that generated ones are held against."""
        return self._part(slice(None, self.compared))

    @property
    def others(self) -> Measured:
        """The other real samples."""
        return self._part(slice(self.compared, None))

    def _part(self, rows: slice) -> Measured:
        n = len(self.real.statistics)
        cut = [None if k is None else (lambda m, k=k: k * m // n) for k in (rows.start, rows.stop)]

        def of_properties(values: np.ndarray) -> np.ndarray:
            start, stop = (None if c is None else c(len(values)) for c in cut)
            return values[start:stop]

        properties = {name: of_properties(v) for name, v in self.real.properties.items()}
        return Measured(self.real.statistics.part(rows), properties, self.real.distance)


def measure_condition(
    samples: Samples,
    *,
    n_phases: int,
    periodic: bool | Sequence[bool] = True,
    solved: Sequence[int] = (),
) -> Measured:
    """Measure the samples of one condition; effective properties of those at `solved`."""
    labels = as_labels(samples)
    statistics = measure_structures(labels, n_phases=n_phases, periodic=periodic)
    properties = effective_properties(labels[list(solved)], n_phases) if len(solved) else {}
    return Measured(statistics, properties, mean_distance(labels, n_phases))


def effective_properties(labels: Tensor, n_phases: int) -> dict[str, Float[np.ndarray, " batch"]]:
    """Return C11 and conductivity along direction 1 by the solver, in units of phase 0's.

    Phases get Young's moduli and conductivities from 1 to 10 in equal ratios, Poisson's ratio
    0.3; cells repeat periodically whether they were made so or not.
    """
    values = np.geomspace(1.0, CONTRAST, n_phases).tolist() if n_phases > 1 else [1.0]
    phases = [IsotropicElastic(youngs_modulus_gpa=e, poisson_ratio=POISSON) for e in values]
    options: dict[str, Any] = {"tolerance": SOLVER_TOLERANCE, "dtype": torch.float32}
    found: dict[str, list[Tensor]] = {"c11": [], "conductivity": []}
    for part in labels.long().split(max(1, SOLVED_VOXELS // labels[0].numel())):
        found["c11"].append(effective_stiffness(part, phases, **options).value[:, 0, 0])
        found["conductivity"].append(effective_conductivity(part, values, **options).value[:, 0, 0])
    return {name: torch.cat(parts).double().numpy() for name, parts in found.items()}


def mean_distance(labels: Tensor, n_phases: int) -> float:
    """Return the mean share of voxels in which two different samples have different phases.

    From the shares p of each phase at each voxel: 1 - sum p^2, times n/(n - 1) since no sample is
    paired with itself.
    """
    n = len(labels)
    if n < 2:
        return 0.0
    alike = torch.zeros(labels.shape[1:], dtype=torch.float64)
    for phase in range(n_phases):
        alike += (labels == phase).double().mean(0) ** 2
    return float((1 - alike).mean()) * n / (n - 1)
