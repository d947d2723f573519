"""MicroBench track A: generators against their own simulator, which gives truth at will."""

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import torch

from generators.microbench_conditions import TrueCondition, measure_condition
from generators.microbench_ensembles import Floors
from generators.training_density import units_beyond
from microstructures import DataError, Microstructure, MicrostructureDataset, ProcessSpace
from microstructures.seeds import derive_seed
from physics.processes import process_points
from studies.generator_contenders import Contender
from studies.measured_stage import measured_arrays, measured_conditions
from studies.models import make_simulator
from studies.progress import progress_bar
from studies.run_folder import RunFolder, Stage
from studies.settings import ProcessName
from studies.stopwatch import one_thread

POINTS_SEED = 1000
EDGE_SEARCHED = 512
# A simulator holds several double-precision fields of every cell at once.
SIMULATED_VOXELS = 2**21


@dataclass(frozen=True)
class Extent:
    """How much of one track is measured.

    Args:
        shape: Voxels of a cell.
        points: Unseen process points.
        cells: Generated cells per point, held against as many real ones; twice as many real
            ones are simulated.
        solved: Generated cells per point whose properties are solved.
        nearest: Generated cells that are compared with the training set.
        held_out: Real cells that set the threshold of that comparison.
    """

    shape: tuple[int, ...]
    points: int
    cells: int
    solved: int
    nearest: int
    held_out: int


def extents(dim: int, tier: str) -> list[Extent]:
    """Return what a tier measures of cells with this many axes.

    Tiers: "toy" shows that everything runs; "small" is MICROBENCH's count of conditions and
    cells in 2-D and a sparse look at 3-D; "full" adds larger cells and 3-D at full counts.
    """
    match (dim, tier):
        case (2, "toy"):
            return [Extent((16, 16), 4, 8, 4, 16, 32)]
        case (3, "toy"):
            return [Extent((16, 16, 16), 3, 4, 2, 4, 8)]
        case (2, "small"):
            return [Extent((64, 64), 40, 64, 64, 2000, 5000)]
        case (2, _):
            return [
                Extent((64, 64), 100, 64, 64, 5000, 10_000),
                Extent((128, 128), 40, 64, 16, 0, 0),
            ]
        case (_, "small"):
            return [Extent((48, 48, 48), 12, 16, 4, 64, 192)]
        case _:
            return [Extent((64, 64, 64), 40, 64, 16, 2000, 5000)]


@dataclass(frozen=True)
class ExactTrack:
    """One process at one cell size, with the models and training data that belong to it.

    Args:
        name: Name of its stages.
        process: Name of the simulator.
        simulator: The simulator.
        space: The models' process window, at most the simulator's.
        points: Process points, none of them in a training set of another seed.
        extent: How much is measured.
        contenders: The models.
        training: Their training data, None where none was given.
        seed: Of cells and samples.
    """

    name: str
    process: str
    simulator: Any
    space: ProcessSpace
    points: list[dict[str, Any]]
    extent: Extent
    contenders: tuple[Contender, ...]
    training: MicrostructureDataset | None
    seed: int


def exact_tracks(
    contenders: Sequence[Contender],
    trainings: Sequence[MicrostructureDataset],
    *,
    tier: str,
    seed: int,
) -> tuple[list[ExactTrack], list[Contender]]:
    """Return the tracks that the models need, and the models that no simulator can judge."""
    tracks: dict[str, ExactTrack] = {}
    others = []
    for contender in contenders:
        process = simulated_process(contender)
        if process is None:
            others.append(contender)
            continue
        simulator, model = make_simulator(process), contender.model
        for extent in extents(len(model.periodic), tier):
            fitting = [t for t in trainings if belongs(t, contender)]
            same_shape = [t for t in fitting if t.shape == extent.shape] or fitting
            track = ExactTrack(
                _stage_name(process, simulator, model.space, extent),
                process,
                simulator,
                model.space,
                process_points(model.space, extent.points, seed=POINTS_SEED + seed),
                extent,
                (contender,),
                same_shape[0] if same_shape else None,
                seed,
            )
            known = tracks.get(track.name)
            if known is not None:
                both = (*known.contenders, contender)
                track = replace(known, contenders=both, training=known.training or track.training)
            tracks[track.name] = track
    return list(tracks.values()), others


def edge_track(track: ExactTrack) -> ExactTrack | None:
    """Return the track of process points around the models' window, None where there are none.

    Such points exist where training kept to a part of the simulator's window; they lie up to half
    a window beyond it, as far as models extrapolate.
    """
    wider = process_points(track.simulator.space, EDGE_SEARCHED, seed=POINTS_SEED + track.seed)
    beyond = [point for point in wider if _beyond(point, track.space)]
    count = min(len(beyond), max(2, track.extent.points // 4))
    if count < 2:
        return None
    extent = replace(track.extent, points=count, nearest=0)
    return replace(track, name=f"{track.name}-edge", points=beyond[:count], extent=extent)


def _beyond(point: Mapping[str, Any], space: ProcessSpace) -> bool:
    """Say whether a point lies outside a window, but not too far to extrapolate."""
    try:
        _, outside = units_beyond(space, [point])
    except DataError:
        return False
    return bool(outside[0])


def _stage_name(process: str, simulator: Any, space: ProcessSpace, extent: Extent) -> str:
    """Return the stages' name; another window than the simulator's is another truth."""
    name = f"{process}-{'x'.join(map(str, extent.shape))}"
    window = json.dumps(space.to_json(), sort_keys=True)
    if window == json.dumps(simulator.space.to_json(), sort_keys=True):
        return name
    return f"{name}-{hashlib.sha256(window.encode()).hexdigest()[:8]}"


def simulated_process(contender: Contender) -> str | None:
    """Return the simulator whose parameters, phases and voxel size a model has, or None."""
    model = contender.model
    for name in get_args(ProcessName):
        simulator = make_simulator(name)
        same = (
            simulator.space.names == model.space.names
            and tuple(simulator.phase_names) == tuple(model.phase_names)
            and abs(simulator.voxel_size_um / model.voxel_size_um - 1) < 1e-6
        )
        if same:
            return name
    return None


def belongs(training: MicrostructureDataset, contender: Contender) -> bool:
    """Say whether a data set has a model's parameters, phases and number of axes."""
    model = contender.model
    return (
        training.space.names == model.space.names
        and training.phase_names == model.phase_names
        and len(training.shape) == len(model.periodic)
    )


@dataclass(frozen=True)
class TrackTruth:
    """Simulated cells of every point, and what they measure."""

    labels: torch.Tensor
    conditions: list[TrueCondition]
    floors: Floors
    periodic: tuple[bool, ...]
    phase_names: tuple[str, ...]
    cpu_seconds: float


def track_truth(track: ExactTrack, run: RunFolder) -> TrackTruth:
    """Return the truth of a track, simulated and measured where the run does not have it yet."""
    cells = run.stage(f"{track.name}.truth", lambda: _simulated(track))
    labels = torch.from_numpy(cells.arrays["labels"])
    periodic, names = tuple(cells.facts["periodic"]), tuple(cells.facts["phase_names"])
    n, solved = track.extent.cells, track.extent.solved
    rows = [*range(solved), *range(n, n + solved)]
    measured = run.stage(
        f"{track.name}.truth.measured",
        lambda: measured_cells(labels, track, n=2 * n, rows=rows, periodic=periodic, names=names),
    )
    conditions = [
        TrueCondition(point, m, n)
        for point, m in zip(track.points, measured_conditions(measured.arrays), strict=True)
    ]
    floors = Floors.of(conditions, made=n, seed=track.seed)
    return TrackTruth(labels, conditions, floors, periodic, names, cells.facts["cpu_seconds"])


def _simulated(track: ExactTrack) -> Stage:
    cells: list[np.ndarray] = []
    first: Microstructure | None = None
    n = 2 * track.extent.cells
    chunk = max(1, SIMULATED_VOXELS // math.prod(track.extent.shape))
    with one_thread(), progress_bar(f"{track.name}: simulate", track.extent.points) as advance:
        started = time.process_time()
        for k, point in enumerate(track.points):
            options = {"shape": track.extent.shape, "seed": derive_seed(track.seed, "real", k)}
            for done in range(0, n, chunk):
                count = min(chunk, n - done)
                made = track.simulator.simulate(point, n=count, first=done, **options)
                first = first or made[0]
                cells.append(np.stack([m.phases for m in made]))
            advance(k + 1)
        seconds = time.process_time() - started
    assert first is not None
    facts = {
        "periodic": list(first.periodic),
        "phase_names": list(first.phase_names),
        "cpu_seconds": seconds / (n * track.extent.points),
        "processes": track.points,
    }
    return Stage(facts, {"labels": np.concatenate(cells)})


def measured_cells(
    labels: torch.Tensor,
    track: ExactTrack,
    *,
    n: int,
    rows: Sequence[int],
    periodic: tuple[bool, ...],
    names: tuple[str, ...],
) -> Stage:
    found = []
    with one_thread(), progress_bar(f"{track.name}: measure", track.extent.points) as advance:
        for k, cells in enumerate(labels.split(n)):
            found.append(
                measure_condition(cells, n_phases=len(names), periodic=periodic, solved=rows)
            )
            advance(k + 1)
    return Stage({}, measured_arrays(found))
