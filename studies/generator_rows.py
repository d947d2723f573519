"""Columns of a simulated track: real against real, the baselines and the models, scored."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch

from generators.microbench import MicroBenchScore, score_generator
from generators.microbench_baselines import nearest_training_images, random_field_cells
from generators.microbench_conditions import Measured
from generators.microbench_ensembles import ensemble_scores
from generators.microbench_held_out import (
    HeldOut,
    against_seen,
    held_out_ratio,
    inside_ranges,
)
from generators.microbench_memorisation import TrainingImages, memorisation
from generators.microbench_voxels import seam_ratio
from generators.structure_statistics import as_labels
from microstructures import Microstructure
from microstructures.seeds import derive_seed
from studies.exact_truth import (
    ExactTrack,
    TrackTruth,
    edge_track,
    measured_cells,
    track_truth,
)
from studies.generator_contenders import Contender, draw_samples, undecided
from studies.measured_stage import measured_conditions
from studies.progress import progress_bar
from studies.run_folder import RunFolder, Stage, load_stage
from studies.stopwatch import one_thread

REAL, FIELD, COPIES = "real against real", "Gaussian random field", "nearest training images"


def measure_track(
    track: ExactTrack, run: RunFolder, *, held_out: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    """Return one row per contender and baseline, and what the track compared."""
    truth = track_truth(track, run)
    others = [c.others for c in truth.conditions]
    real = {"seam": seam_ratio(truth.labels, truth.periodic), "cpu_seconds": truth.cpu_seconds}
    rows = [{"name": REAL, "role": "real", **real, **_scored(others, truth, track)}]
    for name, draw in _baselines(track, truth).items():
        stage = f"{track.name}.{name.replace(' ', '-')}"
        if name == COPIES and track.training is not None:
            stage += f"-{track.training.digest[:8]}"
        found = _drawn(stage, draw, track, truth, run)
        rows.append(
            {"name": name, "role": "baseline", **found, **_scored_stage(found, track, truth, run)}
        )
    for c in track.contenders:
        found = _drawn(
            f"{track.name}.{c.stage}", partial(_model_stage, c, track), track, truth, run
        )
        scored = _scored_stage(found, track, truth, run)
        left_out = _held_out(found, c, track, truth, run, held_out)
        rows.append({"name": c.name, "role": "model", **found, **scored, "held_out": left_out})
    return {
        "process": track.process,
        "shape": list(track.extent.shape),
        "points": track.extent.points,
        "cells": track.extent.cells,
        "solved": track.extent.solved,
        "simulation_cpu_seconds": truth.cpu_seconds,
        "periodic": list(truth.periodic),
        "training_images": None if track.training is None else len(track.training),
        "rows": rows,
    }


def _baselines(track: ExactTrack, truth: TrackTruth) -> dict[str, Any]:
    baselines: dict[str, Any] = {}
    if len(truth.phase_names) == 2:
        baselines[FIELD] = lambda: _field_stage(track, truth)
    if track.training is not None and track.training.shape == track.extent.shape:
        baselines[COPIES] = lambda: _copies_stage(track)
    return baselines


def _field_stage(track: ExactTrack, truth: TrackTruth) -> Stage:
    n, cells = track.extent.cells, []
    with one_thread():
        started = time.process_time()
        for k, labels in enumerate(truth.labels.split(2 * n)):
            real = [
                Microstructure(m, periodic=truth.periodic, phase_names=truth.phase_names)
                for m in labels[:n].numpy()
            ]
            seed = derive_seed(track.seed, "random field", k)
            cells.append(random_field_cells(real, n=n, shape=track.extent.shape, seed=seed))
        seconds = time.process_time() - started
    return Stage(
        {"cpu_seconds": seconds / (n * track.extent.points)}, {"labels": torch.cat(cells).numpy()}
    )


def _copies_stage(track: ExactTrack) -> Stage:
    training = track.training
    assert training is not None
    cells = [nearest_training_images(training, p, n=track.extent.cells) for p in track.points]
    return Stage({}, {"labels": torch.cat(cells).numpy()})


def _model_stage(contender: Contender, track: ExactTrack, *, extrapolate: bool = False) -> Stage:
    options: dict[str, Any] = {"shape": track.extent.shape, "seed": track.seed}
    n = track.extent.cells
    drawn = draw_samples(contender.model, track.points, n=n, extrapolate=extrapolate, **options)
    facts = {
        "flagged": drawn.flagged,
        "cpu_seconds": drawn.cpu_seconds,
        "peak_gb": drawn.peak_gb,
        "undecided": None if extrapolate else undecided(contender.model, track.points, **options),
        "parameters": contender.parameters,
        "training_time": contender.training_time,
    }
    return Stage(facts, {"labels": as_labels(drawn.labels).numpy()})


def _drawn(
    stage: str, draw: Callable[[], Stage], track: ExactTrack, truth: TrackTruth, run: RunFolder
) -> dict[str, Any]:
    """Draw and measure one column's samples; return what was noted while drawing."""
    drawn = run.stage(stage, draw)
    labels = torch.from_numpy(drawn.arrays["labels"])

    def measured() -> Stage:
        rows, names = range(track.extent.solved), truth.phase_names
        n, wrap = track.extent.cells, truth.periodic
        return measured_cells(labels, track, n=n, rows=rows, periodic=wrap, names=names)

    run.stage(f"{stage}.measured", measured)
    near = _nearest(stage, labels, truth, track, run)
    return {"stage": stage, **drawn.facts, **near, "seam": seam_ratio(labels, truth.periodic)}


def _scored_stage(
    found: Mapping[str, Any], track: ExactTrack, truth: TrackTruth, run: RunFolder
) -> dict[str, Any]:
    measured = load_stage(run.path, f"{found['stage']}.measured")
    return _scored(measured_conditions(measured.arrays), truth, track)


def _scored(made: Sequence[Measured], truth: TrackTruth, track: ExactTrack) -> dict[str, Any]:
    score: MicroBenchScore = score_generator(
        truth.conditions, made, truth.floors, phase_names=truth.phase_names, seed=track.seed
    )
    return {"score": score.to_json()}


def _held_out(
    found: Mapping[str, Any],
    contender: Contender,
    track: ExactTrack,
    truth: TrackTruth,
    run: RunFolder,
    ranges: Mapping[str, Sequence[float]],
) -> str:
    """Return M11 in words, empty where training left out nothing that can be simulated."""
    said = []
    if ranges:
        measured = load_stage(run.path, f"{found['stage']}.measured")
        made, inside = measured_conditions(measured.arrays), inside_ranges(track.points, ranges)
        ratio = held_out_ratio(truth.conditions, made, truth.floors, inside, seed=track.seed)
        too_few = f"inner: {int(inside.sum())} of {len(inside)} points held out, too few"
        said.append(too_few if ratio is None else f"inner: {_in_words(ratio)}")
    edge = edge_track(track)
    if edge is not None:
        said.append(_edge(contender, edge, found, truth, track, run))
    return "; ".join(said)


def _edge(
    contender: Contender,
    edge: ExactTrack,
    found: Mapping[str, Any],
    truth: TrackTruth,
    track: ExactTrack,
    run: RunFolder,
) -> str:
    """Return in words how samples beyond the window compare with those inside."""
    beyond = track_truth(edge, run)
    stage = f"{edge.name}.{contender.stage}"
    _drawn(stage, partial(_model_stage, contender, edge, extrapolate=True), edge, beyond, run)
    drawn = load_stage(run.path, stage).facts
    scores = []
    for name, where, seen in ((stage, edge, beyond), (found["stage"], track, truth)):
        made = measured_conditions(load_stage(run.path, f"{name}.measured").arrays)
        scores.append(ensemble_scores(seen.conditions, made, seen.floors, seed=where.seed))
    ratio = against_seen(*scores, conditions=edge.extent.points)
    flagged = drawn["flagged"] / (edge.extent.points * edge.extent.cells)
    words = "no floor" if ratio is None else _in_words(ratio)
    return f"edge: {words}, {100 * flagged:.0f} % flagged"


def _in_words(found: HeldOut) -> str:
    return (
        f"{found.ratio:.2f} x seen ({found.worst}), median {found.median:.2f}, "
        f"{found.conditions} points"
    )


def _nearest(
    stage: str, labels: torch.Tensor, truth: TrackTruth, track: ExactTrack, run: RunFolder
) -> dict[str, Any]:
    """Return M9 of drawn samples, nothing without a training set of their shape."""
    training, extent = track.training, track.extent
    if training is None or training.shape != extent.shape or not extent.nearest:
        return {}
    images: list[TrainingImages] = []

    def search(cells: torch.Tensor, count: int, title: str) -> Stage:
        if not images:
            images.append(TrainingImages(training.phases, len(truth.phase_names)))
        chosen = torch.from_numpy(_evenly(len(cells), count))
        correlation, index = [], []
        with one_thread(), progress_bar(f"{title}: nearest", len(chosen)) as advance:
            for done, part in enumerate(chosen.split(1), start=1):
                found = images[0].nearest(cells[part])
                correlation.append(found.correlation)
                index.append(found.index)
                advance(done)
        arrays = {"correlation": np.concatenate(correlation), "index": np.concatenate(index)}
        return Stage({}, {**arrays, "sample": chosen.numpy()})

    of = f"nearest-{training.digest[:8]}"
    held_out = run.stage(
        f"{track.name}.truth.{of}", lambda: search(truth.labels, extent.held_out, "held out")
    )
    ours = run.stage(f"{stage}.{of}", lambda: search(labels, extent.nearest, "samples"))
    found = memorisation(ours.arrays["correlation"], held_out.arrays["correlation"])
    return {"memorisation": asdict(found)}


def _evenly(n: int, count: int) -> np.ndarray:
    return np.unique(np.linspace(0, n - 1, min(n, count)).round().astype(np.int64))
