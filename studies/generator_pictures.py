"""Pictures of one track: cells side by side, calibration, ratios, curves, nearest images."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from generators.structure_statistics import normalised
from studies.exact_truth import ExactTrack
from studies.generator_figures import (
    calibration_figure,
    cells_figure,
    colours,
    curves_figure,
    memorisation_figure,
    ratio_figure,
)
from studies.generator_table import Column
from studies.measured_stage import measured_conditions
from studies.run_folder import RunFolder, load_stage

SHOWN_POINTS, SHOWN_CURVES = 6, 4


def track_pictures(
    track: ExactTrack, columns: Sequence[Column], run: RunFolder
) -> Mapping[str, str]:
    """Return the pictures of a simulated track by caption."""
    chosen = np.linspace(0, track.extent.points - 1, min(SHOWN_POINTS, track.extent.points))
    chosen = chosen.round().astype(int).tolist()
    titles = [_title(track.points[k], track) for k in chosen]
    truth = load_stage(run.path, f"{track.name}.truth")
    names = truth.facts["phase_names"]
    cells = {"simulated": _first_cells(truth.arrays["labels"], chosen, track)}
    drawn = [c for c in columns if "stage" in c.facts]
    for column in drawn:
        labels = load_stage(run.path, column.facts["stage"]).arrays["labels"]
        cells[column.name] = _first_cells(labels, chosen, track)
    near = _nearest(track, drawn, run)
    pictures = {
        "The first cell of several unseen process points.": cells_figure(
            cells, titles, n_phases=len(names)
        ),
        "Every error over the floor of real against real (1: a perfect generator).": ratio_figure(
            columns
        ),
        "Condition means, generated against real; lengths and surface in voxels.": (
            calibration_figure(columns)
        ),
        "Normalised two-point correlation of phase 1, mean of the cells.": curves_figure(
            _curves(track, drawn, chosen[:SHOWN_CURVES], run), titles[:SHOWN_CURVES], columns
        ),
    }
    found = next((c.memorisation for c in drawn if c.memorisation is not None), None)
    if near and found is not None:
        caption = "Correlation with the nearest training image, over all shifts and flips."
        pictures[caption] = memorisation_figure(near, found.threshold, colours(columns))
    return pictures


def _first_cells(labels: np.ndarray, chosen: Sequence[int], track: ExactTrack) -> list[np.ndarray]:
    each = len(labels) // track.extent.points
    return [labels[k * each] for k in chosen]


def _title(point: Mapping[str, Any], track: ExactTrack) -> str:
    units = {p.name: p.unit for p in track.space.parameters}
    return "\n".join(_line(name, value, units[name]) for name, value in point.items())


def _line(name: str, value: Any, unit: str) -> str:
    """Return "scan speed 616 mm/s" for ("scan_speed_mm_s", 616.0, "mm/s")."""
    words, plain = name.split("_"), re.sub(r"[^a-z0-9]", "", unit.lower())
    for k in range(1, len(words)):
        if "".join(words[k:]).lower() == plain:
            words = words[:k]
            break
    number = f"{value:.4g}" if isinstance(value, float) else str(value)
    shown = "" if unit == "-" else f" {unit.replace('um', 'µm')}"
    return f"{' '.join(words)} {number}{shown}"


def _curves(
    track: ExactTrack, drawn: Sequence[Column], chosen: Sequence[int], run: RunFolder
) -> dict[str, list[np.ndarray]]:
    def curves(stage: str) -> list[np.ndarray]:
        conditions = measured_conditions(load_stage(run.path, f"{stage}.measured").arrays)
        phase = min(1, conditions[0].statistics.n_phases - 1)
        return [normalised(conditions[k].statistics.s2.mean(0))[phase] for k in chosen]

    return {
        "real": curves(f"{track.name}.truth"),
        **{c.name: curves(c.facts["stage"]) for c in drawn},
    }


def _nearest(track: ExactTrack, drawn: Sequence[Column], run: RunFolder) -> dict[str, np.ndarray]:
    if track.training is None:
        return {}
    of = f"nearest-{track.training.digest[:8]}"
    stages = {c.name: f"{c.facts['stage']}.{of}" for c in drawn if c.is_model}
    stages = {"held-out real": f"{track.name}.truth.{of}", **stages}
    return {
        name: load_stage(run.path, stage).arrays["correlation"]
        for name, stage in stages.items()
        if run.has(stage)
    }
