"""The correlation gate: does a sample look like real ones from the same process?"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, Integer
from torch import Tensor

from microstructures import CheckpointError, DataError, Microstructure, ProcessSpace
from microstructures.dataset import MicrostructureDataset
from microstructures.structure import ProcessValue
from physics.statistics.curves import Curves
from physics.statistics.expectation import Expectation
from physics.statistics.held_out import HeldOut, turns
from physics.statistics.principal_components import PrincipalComponents
from physics.statistics.process_regression import (
    ProcessRegression,
    imputed,
    process_inputs,
    spread_points,
)
from physics.statistics.tensor_folder import open_tensors, publish_tensors

KIND = "gate"
PASS_SHARE = 0.95
INDUCING_POINTS = 48
COMPONENTS = 16
FEWEST_SAMPLES = 40
# Above this number of parameters not every set of unknown ones gets a mark of its own.
MOST_PARAMETERS = 6

Process = Mapping[str, ProcessValue]
Samples = (
    Integer[Tensor, "batch *space"] | Integer[np.ndarray, "batch *space"] | Sequence[Microstructure]
)


@dataclass(frozen=True)
class CorrelationBand:
    """S2 expected of real samples at a process point, and where most of them lie.

    Each array has one entry per lag; `lower` to `upper` holds about 95 % of real samples at
    each lag (not all lags at once).
    """

    lag_um: np.ndarray
    expected: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


@dataclass(frozen=True)
class CorrelationGate:
    """Compares a sample's S2 and lineal paths with what is expected at its process point.

    A sample's curves (`Curves`), in principal components z, have the expectation m(x) at process
    x (a Gaussian process) and the covariance C(x) of real samples about it, which includes the
    uncertainty v(x) of m. The distance is

        d^2 = (z - m)^T (C + v + r^2 I)^-1 (z - m) + |remainder|^2 / (its local mean + r^2),

    where the remainder is what the components miss and r the resolution: a difference in all
    curves of that size would not count even if real samples scattered less. The score is d over
    its 95 % quantile for real samples held out by specimen, so a sample passes at score <= 1 and
    19 of 20 real ones do.

    Where process values are unknown, the process among the training ones that are like the known
    values and explains the sample best counts (`Expectation.distance`), and the quantile is the
    one that held-out samples have when the same values are withheld from them: 19 of 20 real
    samples pass whatever is unknown, if their processes are distributed like the training ones.
    With more than six parameters only single unknown values and all of them at once have a
    quantile of their own; else, and in gates saved without, the largest that the gate has is
    taken. `band` averages over the unknown values.

    Made by `fit` or `load`.
    """

    space: ProcessSpace
    curves: Curves
    shape: tuple[int, ...]
    voxel_size_um: float
    components: PrincipalComponents
    expectation: Expectation
    quantile: float
    unknown_quantiles: Mapping[frozenset[str], float]
    about: dict[str, Any]

    @classmethod
    def fit(
        cls,
        dataset: MicrostructureDataset,
        *,
        held_out: float = 0.25,
        seed: int = 0,
        resolution: float = 0.002,
    ) -> "CorrelationGate":
        """Learn expectation, scatter and the pass marks from real samples.

        Every specimen is held out once, in 1/held_out turns; the marks are taken over all
        held-out samples, the returned gate learns from all. Where each specimen has a process
        of its own, held-out samples lie at unseen process points and the marks allow for that.
        With one specimen only, samples take turns (`about["held_out_by"]` says which).

        Args:
            dataset: Samples with their process; at least 40.
            held_out: Share of the specimens held out in each turn, at most one half.
            seed: Draws the turns.
            resolution: Root mean square over all curves of a difference that does not count.

        Raises:
            DataError: Too few samples or phases, or settings out of range.

        >>> gate = CorrelationGate.fit(dataset)  # doctest: +SKIP
        >>> gate.score(cells, {"composition": 0.5, ...}) <= 1  # doctest: +SKIP
        """
        _check_fit(dataset, held_out, resolution)
        shape = tuple(dataset.phases.shape[1:])
        curves = Curves.for_shape(shape, n_phases=dataset.n_phases, periodic=dataset.periodic)
        vectors = curves.measure(dataset.phases)
        components, _ = PrincipalComponents.fit(
            vectors, most=max(1, min(COMPONENTS, len(vectors) // 10))
        )
        z, rest = components.project(vectors)
        x = imputed(process_inputs(dataset.space, dataset.process_units.to(torch.float64)))
        regression = ProcessRegression.fit(x, z, spread_points(x, most=INDUCING_POINTS))
        folds = turns(dataset.specimens, held_out, seed)
        held = HeldOut.learn(regression, x, z, rest, folds, floor=curves.size * resolution**2)
        marks = {
            names: _pass_mark(held.distance(_withheld(x, dataset.space, names), z, rest))
            for names in _withholdable(dataset.space.names)
        }
        return cls(
            space=dataset.space,
            curves=curves,
            shape=shape,
            voxel_size_um=dataset.voxel_size_um,
            components=components,
            expectation=held.overall,
            quantile=marks.pop(frozenset()),
            unknown_quantiles=marks,
            about=_origin(dataset),
        )

    def score(
        self, phases: Samples, process: Process | Sequence[Process] | None = None
    ) -> Float64[Tensor, " batch"]:
        """Return each sample's distance over the pass mark; it passes at 1 or less.

        Args:
            phases: Labels `(batch, *space)` or microstructures, of the fitted shape or larger
                (larger cells scatter less, so their scores come out lower).
            process: One process for all samples, or one for each; None takes the
                microstructures' own.

        Raises:
            DataError: Shape, voxel size, labels or process do not fit the gate.
        """
        labels = self._labels(phases)
        if process is None:
            if not all(isinstance(m, Microstructure) for m in phases):
                raise DataError("expected a process with plain labels, got none; pass process=")
            process = [m.process for m in phases if isinstance(m, Microstructure)]
        units = self._units([process] if isinstance(process, Mapping) else process)
        if len(units) not in (1, len(labels)):
            raise DataError(f"expected one process or {len(labels)}, got {len(units)}")
        z, rest = self.components.project(self.curves.measure(labels))
        distance = self.expectation.distance(process_inputs(self.space, units), z, rest)
        return distance / self._quantiles(units)

    def band(self, process: Process, *, pair: tuple[int, int] = (1, 1)) -> CorrelationBand:
        """Return the radial S2 expected of a phase pair at a process point, with its 95 % band.

        Raises:
            DataError: The process is outside the space, or the pair is not one of
                `curves.pairs`.
        """
        columns = self.curves.correlation_columns(pair)
        x = process_inputs(self.space, self._units([process]))
        mean, covariance, rest = self.expectation.at(x)
        basis = self.components.directions[columns]
        expected = self.components.expand(mean)[0, columns]
        missed = rest[0] / max(self.curves.size - basis.shape[1], 1)
        spread = torch.einsum("ci,ij,cj->c", basis, covariance[0], basis) + missed
        half = NormalDist().inv_cdf((1 + PASS_SHARE) / 2) * spread.sqrt()
        return CorrelationBand(
            lag_um=self.voxel_size_um * np.array(self.curves.lags),
            expected=expected.clamp(0, 1).numpy(),
            lower=(expected - half).clamp(0, 1).numpy(),
            upper=(expected + half).clamp(0, 1).numpy(),
        )

    def curve(
        self, phases: Samples, *, pair: tuple[int, int] = (1, 1)
    ) -> Float64[Tensor, "batch lag"]:
        """Return the samples' radial S2 of a phase pair at the lags of `band`."""
        columns = self.curves.correlation_columns(pair)
        return self.curves.measure(self._labels(phases))[:, columns]

    def save(self, folder: str | Path) -> Path:
        """Write the gate as a folder (about 100 kB) that `load` reads."""
        config = {
            "space": self.space.to_json(),
            "n_phases": self.curves.n_phases,
            "lags": list(self.curves.lags),
            "periodic": list(self.curves.periodic),
            "shape": list(self.shape),
            "voxel_size_um": self.voxel_size_um,
            "bandwidth": self.expectation.scatter.bandwidth,
            "floor": self.expectation.floor,
            "quantile": self.quantile,
            "unknown_quantiles": [
                [sorted(names), mark] for names, mark in self.unknown_quantiles.items()
            ],
            "about": self.about,
        }
        tensors = {
            "centre": self.components.mean,
            "basis": self.components.directions,
            **self.expectation.tensors(),
        }
        return publish_tensors(folder, tensors, kind=KIND, about=config)

    @classmethod
    def load(cls, folder: str | Path) -> "CorrelationGate":
        """Read a gate that `save` wrote.

        Raises:
            CheckpointError: It is no gate, or incomplete, altered or damaged.
        """
        config, tensors = open_tensors(folder, kind=KIND)
        try:
            return cls(
                space=ProcessSpace.from_json(config["space"]),
                curves=Curves(
                    int(config["n_phases"]), tuple(config["lags"]), tuple(config["periodic"])
                ),
                shape=tuple(config["shape"]),
                voxel_size_um=float(config["voxel_size_um"]),
                components=PrincipalComponents(tensors["centre"], tensors["basis"]),
                expectation=Expectation.from_tensors(
                    tensors, bandwidth=float(config["bandwidth"]), floor=float(config["floor"])
                ),
                quantile=float(config["quantile"]),
                unknown_quantiles={
                    frozenset(names): float(mark)
                    for names, mark in config.get("unknown_quantiles", [])
                },
                about=dict(config["about"]),
            )
        except (KeyError, TypeError, ValueError, IndexError, RuntimeError, DataError) as error:
            raise CheckpointError(
                f"{folder} does not describe a gate: {error}; fit it again"
            ) from error

    def _quantiles(self, units: Float64[Tensor, "n d"]) -> Float64[Tensor, " n"]:
        """Return the pass mark for the values that are unknown (NaN) in each row."""
        largest = max([self.quantile, *self.unknown_quantiles.values()])
        marks = {frozenset[str](): self.quantile, **self.unknown_quantiles}
        names = [
            frozenset(itertools.compress(self.space.names, row)) for row in units.isnan().tolist()
        ]
        return torch.tensor([marks.get(unknown, largest) for unknown in names]).to(units)

    def _units(self, processes: Sequence[Process]) -> Float64[Tensor, "n d"]:
        units = [self.space.to_unit(process) for process in processes]
        return torch.tensor(units, dtype=torch.float64).reshape(len(units), len(self.space))

    def _labels(self, phases: Samples) -> Integer[Tensor, "batch *space"]:
        if isinstance(phases, Tensor):
            labels = phases.cpu()
        elif isinstance(phases, np.ndarray):
            labels = torch.from_numpy(phases)
        else:
            if not phases or len({(m.shape, m.voxel_size_um) for m in phases}) != 1:
                raise DataError(
                    "expected one or more microstructures of one shape and voxel size, got "
                    f"{len(phases)}"
                )
            if not math.isclose(phases[0].voxel_size_um, self.voxel_size_um, rel_tol=1e-6):
                raise DataError(
                    f"expected voxels of {self.voxel_size_um:g} um as in the gate's samples, got "
                    f"{phases[0].voxel_size_um:g}; resample"
                )
            labels = torch.from_numpy(np.stack([m.phases for m in phases]))
        space = tuple(labels.shape[1:])
        if len(space) != len(self.shape) or any(
            n < m for n, m in zip(space, self.shape, strict=True)
        ):
            raise DataError(f"expected samples of shape {self.shape} or larger, got {space}")
        if len(labels) == 0 or labels.min() < 0 or labels.max() >= self.curves.n_phases:
            raise DataError(
                f"expected labels from 0 to {self.curves.n_phases - 1}, got "
                f"{labels.unique().tolist()[:10]}"
            )
        return labels


def _check_fit(dataset: MicrostructureDataset, held_out: float, resolution: float) -> None:
    if not 0 < held_out <= 0.5 or not resolution > 0:
        raise DataError(
            "expected held_out above 0 and at most 0.5 and resolution above 0, got "
            f"{held_out} and {resolution}"
        )
    if len(dataset) < FEWEST_SAMPLES or dataset.n_phases < 2:
        raise DataError(
            f"expected at least {FEWEST_SAMPLES} samples of two or more phases to fit a gate, "
            f"got {len(dataset)} of {dataset.n_phases}"
        )


def _origin(dataset: MicrostructureDataset) -> dict[str, Any]:
    specimens = len(set(dataset.specimens))
    return {
        "samples": len(dataset),
        "specimens": specimens,
        "held_out_by": "specimen" if specimens > 1 else "sample",
        "dataset": dataset.digest,
    }


def _withholdable(names: Sequence[str]) -> list[frozenset[str]]:
    """Return the sets of parameters that get a pass mark for being unknown, from none to all."""
    every = range(len(names) + 1)
    sizes = every if len(names) <= MOST_PARAMETERS else (0, 1, len(names))
    return [frozenset(chosen) for k in sizes for chosen in itertools.combinations(names, k)]


def _withheld(
    x: Float64[Tensor, "n q"], space: ProcessSpace, names: frozenset[str]
) -> Float64[Tensor, "n q"]:
    """Return regression inputs with the columns of these parameters made unknown."""
    unknown = torch.tensor([[torch.nan if name in names else 0.5 for name in space.names]])
    hidden: Bool[Tensor, "1 q"] = process_inputs(space, unknown.to(x)).isnan()
    return torch.where(hidden, torch.nan, x)


def _pass_mark(distance: Float64[Tensor, " n"]) -> float:
    """Return the distance that 95 % of unseen samples keep to (split-conformal rank)."""
    rank = min(math.ceil(PASS_SHARE * (len(distance) + 1)), len(distance))
    return float(distance.sort().values[rank - 1])
