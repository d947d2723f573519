"""What every sample measures, phase by phase: amounts, chords, surfaces, particles, with units."""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from microstructures import Microstructure
from microstructures.publishing import publish_text
from physics import specific_surface
from physics.statistics import (
    GrainStatistics,
    euler_density,
    grain_statistics,
    label_clusters,
    mean_chord_length,
)

CHUNK_VOXELS = 2**20
LEAST_VOXELS = 8  # of a particle whose shape is measured
AXES = ("x", "y", "z")

Row = dict[str, float | int | str]


def measure_samples(structures: Sequence[Microstructure]) -> Iterator[Row]:
    """Yield one row per sample and phase: numbers by name, the unit in the name.

    Particles are the connected parts of a phase (joined by faces, across periodic faces too):
    grains, laths, precipitates, or one network. Those cut by a rim that is not periodic are
    counted but not measured, and the others have weights that make up for it
    (`physics.statistics.grain_statistics`); shape and direction are of particles of at least 8
    voxels that do not wind around the cell. `elongation` of directions is 0 for any direction
    alike and 1 for one direction only, along the unit vector `main_axis`. A number that is not
    defined, for want of a phase or of whole particles, is NaN.
    """
    first = structures[0]
    chunk = max(1, CHUNK_VOXELS // first.phases.size)
    for start in range(0, len(structures), chunk):
        labels = torch.stack(
            [torch.from_numpy(s.phases) for s in structures[start : start + chunk]]
        )
        columns = [
            _measured(labels == phase, first.periodic, first.voxel_size_um)
            for phase in range(first.n_phases)
        ]
        for k in range(len(labels)):
            for phase, rows in zip(first.phase_names, columns, strict=True):
                yield {"sample": start + k, "phase": phase, **rows[k]}


def measure_names(dim: int) -> list[str]:
    """Return the names of the numbers that a sample measures."""
    sample = torch.zeros(1, *[4] * dim, dtype=torch.bool)
    return list(_measured(sample, (True,) * dim, 1.0)[0])


def publish_measurements(path: Path, rows: Iterable[Mapping[str, object]]) -> Path:
    """Write rows as CSV; NaN and None are empty cells."""
    rows, stream = list(rows), io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return publish_text(path, stream.getvalue())


def _cell(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else ""
    return "" if value is None else value


def _measured(
    inside: Tensor, periodic: Sequence[bool], voxel_size_um: float
) -> list[dict[str, float | int]]:
    """Return the numbers of each sample of one phase."""
    dim, indicator = len(periodic), inside.float()
    chords = mean_chord_length(indicator, periodic=periodic).double() * voxel_size_um
    surface = specific_surface(indicator, periodic=periodic).double() / voxel_size_um
    euler = euler_density(indicator, periodic=periodic).double() / voxel_size_um**dim
    particles = _particles(inside, periodic, voxel_size_um)
    rows = []
    for k, sample in enumerate(inside):
        present = bool(sample.any())
        row: dict[str, float | int] = {"volume_fraction": float(indicator[k].mean())}
        for axis, name in zip(range(dim), AXES, strict=False):
            length = float(chords[k, axis])
            finite = present and math.isfinite(length)
            row[f"mean_chord_{name}_um"] = length if finite else math.nan
        row["specific_surface_per_um"] = float(surface[k])
        row[f"euler_density_per_um{dim}"] = float(euler[k])
        rows.append({**row, **_particle_means(particles, k, dim)})
    return rows


def _particles(
    inside: Tensor, periodic: Sequence[bool], voxel_size_um: float
) -> GrainStatistics | None:
    labels = label_clusters(inside, periodic=periodic)
    if not bool((labels > 0).any()):
        return None
    return grain_statistics(labels, periodic=periodic, voxel_size_um=voxel_size_um, background=0)


def _particle_means(found: GrainStatistics | None, sample: int, dim: int) -> dict[str, float | int]:
    own = np.zeros(0, bool) if found is None else found.sample == sample
    row: dict[str, float | int] = {
        "particles": int(own.sum()),
        "cut_particles": 0 if found is None else int((own & found.cut).sum()),
        "mean_equivalent_diameter_um": math.nan,
        "sd_equivalent_diameter_um": math.nan,
        "mean_aspect_ratio": math.nan,
        "elongation": math.nan,
        **{f"main_axis_{name}": math.nan for name in AXES[:dim]},
    }
    if found is None:
        return row
    whole = own & (found.weight > 0)
    if whole.any():
        weight, size = found.weight[whole], found.equivalent_diameter_um[whole]
        mean = float(np.average(size, weights=weight))
        row["mean_equivalent_diameter_um"] = mean
        row["sd_equivalent_diameter_um"] = float(
            math.sqrt(np.average((size - mean) ** 2, weights=weight))
        )
    shaped = whole & (found.voxels >= LEAST_VOXELS) & np.isfinite(found.aspect_ratio)
    if shaped.any():
        weight, axes = found.weight[shaped], found.major_axis[shaped]
        row["mean_aspect_ratio"] = float(np.average(found.aspect_ratio[shaped], weights=weight))
        tensor = np.einsum("g,gi,gj->ij", weight, axes, axes) / weight.sum()
        values, vectors = np.linalg.eigh(tensor)
        row["elongation"] = float((dim * values[-1] - 1) / (dim - 1))
        main = vectors[:, -1] * np.sign(vectors[np.abs(vectors[:, -1]).argmax(), -1])
        row |= {f"main_axis_{name}": float(v) for name, v in zip(AXES, main, strict=False)}
    return row
