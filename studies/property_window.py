"""A measured value over the process window: its mean, its noise, and where it extrapolates."""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from generators.generator import ConditionalGenerator
from microstructures import DataError, Parameter, ProcessSpace
from microstructures.publishing import folder_digest
from microstructures.seeds import derive_seed
from studies.figures import INK, TARGET, axis_label, drawing, plain_log_ticks, publish_pictures
from studies.models import load_generator
from studies.process_window import window_axes
from studies.progress import progress_bar
from studies.run_folder import Stage, find_folder, open_run
from studies.settings import Settings, Shape, resolve_settings, setting
from studies.structure_measurements import measure_names, measure_samples, publish_measurements

TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of unit coordinates
SPARSE = 0.1  # training density below which a point counts as extrapolated


class PropertyWindowSettings(Settings):
    """Which measured value is mapped over the process window, and how finely."""

    model: str
    measure: str = setting("volume_fraction", "Number of the table of measurements")
    phase: str | None = setting(None, "Phase that it is of; null: the last one")
    where: dict[str, float | str] = setting({}, "Parameters that stay, name to value")
    points: int = setting(7, "Points along each axis", ge=2, le=50)
    samples: int = setting(16, "Structures per point", ge=2, le=10_000)
    shape: Shape = (64, 64)
    seed: int = setting(0, "Seed of the structures", ge=0)


def run_property_window(values: Mapping[str, Any], out: Path) -> Path:
    """Map a measured value over the first and last number among the process parameters.

    The others stay where `where` says, or are unknown to the generator. Writes `window.csv` (all
    measured values at every point: mean, standard error over the structures, how many of them
    have the value, training density) and `window.png` (mean, standard error and training density
    of the one asked for). Returns the picture's path.

    Raises:
        DataError: No such measure, phase or parameter, or no parameter is a number.
    """
    settings = resolve_settings(PropertyWindowSettings, None, values)
    generator = load_generator(settings.model)
    axes = _axes(generator.space, settings.where)
    phase = _checked(settings, generator)
    folder = find_folder(Path(settings.model), "model")
    inputs = {"model_sha256": folder_digest(folder)} if folder.is_dir() else {}
    with open_run(out, settings, verb="report --map", inputs=inputs) as run:
        with progress_bar("map window", settings.points) as advance:
            rows = []
            for k in range(settings.points):
                work = partial(_measured_line, generator, settings, axes, k)
                rows += run.stage(f"line-{k:02d}", work).facts["rows"]
                advance(k + 1)
        publish_measurements(run.path / "window.csv", rows)
        chosen = [row for row in rows if row["phase"] == phase]
        figure = window_figure(chosen, axes, settings, generator, phase)
        publish_pictures({"window": figure}, run.path)
        print(_verdict(chosen, settings, phase))
        return run.path / "window.png"


def _axes(space: ProcessSpace, where: Mapping[str, Any]) -> list[Parameter]:
    space.to_unit(where)
    free = [p for p in space if p.scale != "choice" and p.name not in where]
    if not free:
        raise DataError(
            "expected a process parameter that is a number to map over, found none that "
            "--where leaves free"
        )
    two = window_axes(space) if not where else None
    return list(two) if two else list(dict.fromkeys((free[0], free[-1])))


def _checked(settings: PropertyWindowSettings, generator: ConditionalGenerator) -> str:
    """Return the phase, after checking it, the measure and the shape."""
    names = measure_names(len(settings.shape))
    if settings.measure not in names:
        raise DataError(f"expected a measure of {', '.join(names)}, got {settings.measure!r}")
    phases = generator.phase_names
    phase = phases[-1] if settings.phase is None else settings.phase
    if phase not in phases:
        raise DataError(f"expected a phase of {', '.join(phases)}, got {phase!r}")
    return phase


def _measured_line(
    generator: ConditionalGenerator,
    settings: PropertyWindowSettings,
    axes: list[Parameter],
    line: int,
) -> Stage:
    """Return the rows of all points at one place along the first axis."""
    each = settings.points ** (len(axes) - 1)
    points = range(line * each, (line + 1) * each)
    return Stage({"rows": [r for k in points for r in _measured(generator, settings, axes, k)]})


def _measured(
    generator: ConditionalGenerator,
    settings: PropertyWindowSettings,
    axes: list[Parameter],
    k: int,
) -> list[dict[str, Any]]:
    """Return means and standard errors of every measure at point k, a row per phase."""
    places = np.unravel_index(k, [settings.points] * len(axes))
    units = [int(place) / (settings.points - 1) for place in places]
    own = {axis.name: axis.from_unit(u) for axis, u in zip(axes, units, strict=True)}
    process = {**settings.where, **own}
    structures = generator.sample(
        process,
        n=settings.samples,
        shape=settings.shape,
        seed=derive_seed(settings.seed, "property window", k),
    )
    density = float(generator.density(process)[0])
    found = list(measure_samples(structures))
    rows = []
    for phase in generator.phase_names:
        values = [row for row in found if row["phase"] == phase]
        row: dict[str, Any] = {**own, "phase": phase}
        row["training_density"] = density if math.isfinite(density) else None
        for name in measure_names(len(settings.shape)):
            row |= _mean_row(name, np.array([float(v[name]) for v in values]))
        rows.append(row)
    return rows


def _mean_row(name: str, values: np.ndarray) -> dict[str, Any]:
    values = values[np.isfinite(values)]
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else None
    return {
        name: float(values.mean()) if len(values) else None,
        f"{name} standard error": None if error is None else float(error),
        f"{name} structures": len(values),
    }


def window_figure(
    rows: list[dict[str, Any]],
    axes: list[Parameter],
    settings: PropertyWindowSettings,
    generator: ConditionalGenerator,
    phase: str,
) -> str:
    """Return the mean with its standard error and the training density as a PNG data URI."""
    mean, error, density = (
        np.array([np.nan if row[name] is None else row[name] for row in rows])
        for name in (settings.measure, f"{settings.measure} standard error", "training_density")
    )
    name = f"{phase}: {settings.measure.replace('_', ' ')}"
    if len(axes) == 1:
        return _curve(mean, error, density, axes[0], settings.points, name)
    return _maps(mean, error, density, axes, settings.points, name, _known(generator, axes))


def _curve(
    mean: np.ndarray,
    error: np.ndarray,
    density: np.ndarray,
    axis: Parameter,
    points: int,
    name: str,
) -> str:
    x = np.array([axis.from_unit(u) for u in np.linspace(0, 1, points)], dtype=float)
    with drawing(1, 2, width=4.2, height=4.4) as made:
        top, below = made.axes[:, 0]
        top.errorbar(x, mean, 2 * error, fmt=".-", color=INK, capsize=2)
        top.set_ylabel(f"{name}\n(mean, 2 standard errors)", fontsize=7)
        below.plot(x, density, color=INK)
        below.axhline(SPARSE, color=TARGET, linewidth=0.8)
        below.set_ylim(0, 1.05)
        below.set_ylabel("training density (-)")
        below.set_xlabel(axis_label(axis.name, axis.unit))
        for part in (top, below):
            if axis.scale == "log":
                part.set_xscale("log")
                plain_log_ticks(part.xaxis)
        return made.data_uri()


def _maps(
    mean: np.ndarray,
    error: np.ndarray,
    density: np.ndarray,
    axes: list[Parameter],
    points: int,
    name: str,
    known: np.ndarray,
) -> str:
    # In unit coordinates all cells of the map are alike, whatever the scale of its axes.
    x = y = np.linspace(0, 1, points)
    panels = ((mean, f"{name}, mean"), (error, "standard error"))
    grid = density.reshape(points, points)
    with drawing(2, width=8.2, height=3.4) as made:
        for axis, (values, title) in zip(made.axes[0], panels, strict=True):
            image = axis.pcolormesh(x, y, values.reshape(points, points).T, cmap="viridis")
            made.figure.colorbar(image, ax=axis)
            axis.set_title(title, fontsize=8)
            if np.nanmin(grid) < SPARSE < np.nanmax(grid):
                levels = [-1.0, SPARSE]
                axis.contourf(x, y, grid.T, levels, colors="none", hatches=["xx"])
                axis.contour(x, y, grid.T, [SPARSE], colors=TARGET, linewidths=0.9)
            elif np.nanmax(grid) <= SPARSE:
                axis.set_title(f"{title} (all extrapolated)", fontsize=8)
            axis.plot(*known, ".", color="white", markeredgecolor=INK, markersize=6)
            for side, parameter in zip("xy", axes, strict=True):
                labels = [f"{parameter.from_unit(u):.4g}" for u in TICKS]
                label = axis_label(parameter.name, parameter.unit)
                axis.set(**{f"{side}ticks": TICKS, f"{side}ticklabels": labels})
                axis.set(**{f"{side}label": label})
        made.figure.suptitle(
            f"points: training data; hatched: training density below {SPARSE:g}", fontsize=7
        )
        return made.data_uri()


def _known(generator: ConditionalGenerator, axes: list[Parameter]) -> np.ndarray:
    """Return unit coordinates of training samples on two axes, whatever their other parameters."""
    if generator.training_density is None:
        return np.zeros((2, 0))
    names = generator.space.names
    points = generator.training_density.points[:, [names.index(a.name) for a in axes]]
    return torch.unique(points[~points.isnan().any(1)], dim=0).T.numpy()


def _verdict(rows: list[dict[str, Any]], settings: PropertyWindowSettings, phase: str) -> str:
    means = [row[settings.measure] for row in rows if row[settings.measure] is not None]
    errors = [row[f"{settings.measure} standard error"] for row in rows]
    errors = [e for e in errors if e is not None]
    sparse = sum((row["training_density"] or 0) < SPARSE for row in rows)
    if not means or not errors:
        return f"{phase}: no structure has a {settings.measure}"
    return (
        f"{phase}: {settings.measure} from {min(means):.4g} to {max(means):.4g} over the window, "
        f"median standard error {float(np.median(errors)):.2g} ({settings.samples} structures a "
        f"point); {sparse} of {len(rows)} points have a training density below {SPARSE:g}"
    )
