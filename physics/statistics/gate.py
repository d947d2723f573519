"""The correlation gate: does a sample look like real ones from the same process?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Integer
from safetensors import SafetensorError
from safetensors.torch import load as tensors_of
from safetensors.torch import save as bytes_of
from torch import Tensor

from microstructures import CheckpointError, DataError, Microstructure, ProcessSpace
from microstructures.dataset import MicrostructureDataset
from microstructures.publishing import open_verified, publish_folder
from microstructures.structure import ProcessValue
from physics.statistics.curves import Curves
from physics.statistics.held_out import held_out_covariances, held_out_residuals, turns
from physics.statistics.local_covariance import LocalCovariance
from physics.statistics.process_regression import (
    ProcessRegression,
    imputed,
    process_inputs,
    spread_points,
)

KIND = "gate"
TENSORS = "gate.safetensors"
PASS_SHARE = 0.95
INDUCING_POINTS = 48
COMPONENTS = 16
FEWEST_SAMPLES = 40

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

    Unknown process values are averaged over the training processes that are like the known ones,
    which widens the band; it is then less sharp a test, and a real sample passes somewhat less
    often than 19 times of 20 (0.8 to 0.9 measured on spinodal cells).

    Made by `fit` or `load`.
    """

    space: ProcessSpace
    curves: Curves
    shape: tuple[int, ...]
    voxel_size_um: float
    centre: Float64[Tensor, " size"]
    basis: Float64[Tensor, "size k"]
    regression: ProcessRegression
    scatter: LocalCovariance
    floor: float
    quantile: float
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
        """Learn expectation, scatter and the pass mark from real samples.

        Every specimen is held out once, in 1/held_out turns; the mark is taken over all
        held-out samples, the returned gate learns from all. Where each specimen has a process
        of its own, held-out samples lie at unseen process points and the mark allows for that.
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
        shape = tuple(dataset.phases.shape[1:])
        curves = Curves.for_shape(shape, n_phases=dataset.n_phases, periodic=dataset.periodic)
        vectors = curves.measure(dataset.phases)
        centre = vectors.mean(0)
        basis = _principal_basis(vectors - centre)
        z, rest = _project(vectors - centre, basis)
        x = imputed(process_inputs(dataset.space, dataset.process_units.to(torch.float64)))
        points = spread_points(x, most=INDUCING_POINTS)
        regression = ProcessRegression.fit(x, z, points)
        folds = turns(dataset.specimens, held_out, seed)
        residual, uncertainty = held_out_residuals(regression, x, z, folds)
        floor = curves.size * resolution**2
        covariance, remainder, bandwidth = held_out_covariances(
            x,
            residual,
            rest,
            folds,
            points=points,
            lengths=regression.lengths,
            floor=uncertainty + floor,
        )
        distance = _distance(residual, covariance, rest, remainder + floor)
        rank = min(math.ceil(PASS_SHARE * (len(x) + 1)), len(x))
        return cls(
            space=dataset.space,
            curves=curves,
            shape=shape,
            voxel_size_um=dataset.voxel_size_um,
            centre=centre,
            basis=basis,
            regression=regression,
            scatter=LocalCovariance.gather(
                x, residual, rest, points=points, lengths=regression.lengths, bandwidth=bandwidth
            ),
            floor=floor,
            quantile=float(distance.sort().values[rank - 1]),
            about={
                "samples": len(x),
                "specimens": len(set(dataset.specimens)),
                "held_out_by": "specimen" if len(set(dataset.specimens)) > 1 else "sample",
                "dataset": dataset.digest,
            },
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
        mean, covariance, rest_scale = (
            value.expand(len(labels), *value.shape[1:]) for value in self._expected(units)
        )
        z, rest = _project(self.curves.measure(labels) - self.centre, self.basis)
        wide = covariance + self.floor * torch.eye(z.shape[1], dtype=z.dtype)
        return _distance(z - mean, wide, rest, rest_scale + self.floor) / self.quantile

    def band(self, process: Process, *, pair: tuple[int, int] = (1, 1)) -> CorrelationBand:
        """Return the radial S2 expected of a phase pair at a process point, with its 95 % band.

        Raises:
            DataError: The process is outside the space, or the pair is not one of
                `curves.pairs`.
        """
        columns = self.curves.correlation_columns(pair)
        mean, covariance, rest = self._expected(self._units([process]))
        basis = self.basis[columns]
        expected = self.centre[columns] + basis @ mean[0]
        missed = rest[0] / max(len(self.centre) - basis.shape[1], 1)
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
            "bandwidth": self.scatter.bandwidth,
            "floor": self.floor,
            "quantile": self.quantile,
            "about": self.about,
        }
        rows, columns = torch.tril_indices(*[self.basis.shape[1]] * 2)
        tensors = {
            "centre": self.centre,
            "basis": self.basis,
            "points": self.regression.points,
            "lengths": self.regression.lengths,
            "signal": self.regression.signal,
            "noise": self.regression.noise,
            "gram": self.regression.gram,
            "moment": self.regression.moment,
            "sums": self.scatter.sums[:, rows, columns],
            "rest_sums": self.scatter.rest_sums,
            "counts": self.scatter.counts,
        }
        content = bytes_of({k: t.contiguous() for k, t in tensors.items()})
        return publish_folder(
            folder,
            lambda partial: _write_bytes(partial / TENSORS, content),
            kind=KIND,
            about=config,
        )

    @classmethod
    def load(cls, folder: str | Path) -> "CorrelationGate":
        """Read a gate that `save` wrote.

        Raises:
            CheckpointError: It is no gate, or incomplete, altered or damaged.
        """
        folder = Path(folder)
        config = open_verified(folder, kind=KIND)
        try:
            tensors = tensors_of((folder / TENSORS).read_bytes())
            return cls._from_parts(config, tensors)
        except (KeyError, TypeError, ValueError, IndexError, DataError, SafetensorError) as error:
            raise CheckpointError(
                f"{folder} does not describe a gate: {error}; fit it again"
            ) from error

    @classmethod
    def _from_parts(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> "CorrelationGate":
        points, lengths, basis = tensors["points"], tensors["lengths"], tensors["basis"]
        k = basis.shape[1]
        rows, columns = torch.tril_indices(k, k)
        sums = points.new_zeros(len(points), k, k)
        sums[:, rows, columns] = tensors["sums"]
        sums[:, columns, rows] = tensors["sums"]
        names = ("signal", "noise", "gram", "moment")
        return cls(
            space=ProcessSpace.from_json(config["space"]),
            curves=Curves(
                int(config["n_phases"]), tuple(config["lags"]), tuple(config["periodic"])
            ),
            shape=tuple(config["shape"]),
            voxel_size_um=float(config["voxel_size_um"]),
            centre=tensors["centre"],
            basis=basis,
            regression=ProcessRegression(points, lengths, *(tensors[name] for name in names)),
            scatter=LocalCovariance(
                points=points,
                lengths=lengths,
                sums=sums,
                rest_sums=tensors["rest_sums"],
                counts=tensors["counts"],
                bandwidth=float(config["bandwidth"]),
            ),
            floor=float(config["floor"]),
            quantile=float(config["quantile"]),
            about=dict(config["about"]),
        )

    def _expected(
        self, units: Float64[Tensor, "n d"]
    ) -> tuple[Float64[Tensor, "n k"], Float64[Tensor, "n k k"], Float64[Tensor, " n"]]:
        """Return mean, covariance and mean squared remainder of real samples' components."""
        rows = [self._mixture(row) for row in process_inputs(self.space, units)]
        mean, covariance, rest = (torch.stack(part) for part in zip(*rows, strict=True))
        return mean, covariance, rest

    def _mixture(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        known = ~x.isnan()
        if known.all():
            candidates, weight = x.unsqueeze(0), x.new_ones(1)
        else:
            candidates = torch.where(known, x, self.scatter.points)
            near = (x - self.scatter.points) / self.scatter.lengths / self.scatter.bandwidth
            near = near.square()[:, known].sum(1)
            weight = self.scatter.counts * torch.exp(-(near - near.min()) / 2)
            weight = weight / weight.sum()
        mean, uncertainty = self.regression.predict(candidates)
        covariance, rest = self.scatter.at(candidates)
        centre = weight @ mean
        apart = mean - centre
        covariance = covariance + torch.diag_embed(uncertainty)
        covariance = covariance + apart.unsqueeze(2) * apart.unsqueeze(1)
        return centre, torch.einsum("n,nij->ij", weight, covariance), weight @ rest

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


def _principal_basis(vectors: Tensor) -> Tensor:
    """Return the leading principal directions, fewer than the samples can tell apart."""
    _, spread, directions = torch.linalg.svd(vectors, full_matrices=False)
    rank = int((spread > 1e-9 * spread[0]).sum())
    return directions[: max(1, min(COMPONENTS, rank, len(vectors) // 10))].T.contiguous()


def _project(vectors: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Return components and the squared norm of what they miss."""
    z = vectors @ basis
    return z, (vectors.square().sum(1) - z.square().sum(1)).clamp(min=0)


def _distance(residual: Tensor, covariance: Tensor, rest: Tensor, rest_scale: Tensor) -> Tensor:
    factor = torch.linalg.cholesky(covariance)
    white = torch.linalg.solve_triangular(factor, residual.unsqueeze(-1), upper=False)
    return (white.square().sum((1, 2)) + rest / rest_scale).sqrt()


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)
