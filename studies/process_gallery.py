"""One cell of every process simulator: its picture, and what a cell costs."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from microstructures import Microstructure
from studies.figures import draw_map, drawing
from studies.models import make_simulator
from studies.settings import ProcessName
from studies.stopwatch import one_thread

POINTS: Mapping[str, Mapping[str, float]] = {
    "spinodal": {"composition": 0.5, "temperature_k": 700.0, "ageing_time_h": 4.0},
    "random-field": {"volume_fraction": 0.4, "correlation_length_um": 4.0},
    "grain-growth": {"temperature_k": 950.0, "annealing_time_h": 1.0},
    "nucleation-growth": {"temperature_k": 395.0, "time_s": 100.0},
    "fibre-composite": {
        "volume_fraction": 0.6,
        "mean_radius_um": 3.0,
        "radius_cv": 0.1,
        "min_gap_um": 0.2,
    },
    "particle-composite": {
        "volume_fraction": 0.3,
        "mean_radius_um": 6.0,
        "radius_cv": 0.3,
        "min_gap_um": 0.2,
    },
    "powder-bed-fusion": {
        "laser_power_w": 280.0,
        "scan_speed_mm_s": 1500.0,
        "hatch_um": 130.0,
        "layer_um": 50.0,
    },
    "sintering": {
        "green_density": 0.55,
        "particle_size_um": 0.6,
        "temperature_k": 1500.0,
        "sintering_time_h": 2.0,
    },
}


@dataclass(frozen=True)
class SimulationCost:
    """CPU seconds of one cell on one thread, and the phase fractions of it."""

    process: str
    shape: tuple[int, ...]
    cpu_seconds: float
    fractions: tuple[float, ...]


def simulation_costs(*, quick: bool = False, seed: int = 0) -> list[SimulationCost]:
    """Return the cost of a 2-D and a 3-D cell of every process at one process point each."""
    shapes = ((64, 64),) if quick else ((64, 64), (64, 64, 64))
    rows = []
    with one_thread():
        for name in get_args(ProcessName):
            for shape in shapes:
                started = time.process_time()
                cell = simulate_one(name, shape, seed)
                seconds = time.process_time() - started
                shares = np.bincount(cell.phases.ravel()) / cell.phases.size
                rows.append(SimulationCost(name, shape, seconds, tuple(shares.tolist())))
    return rows


def simulate_one(process: str, shape: tuple[int, ...], seed: int) -> Microstructure:
    """Return one cell of a process at the gallery's process point."""
    return make_simulator(process).simulate(POINTS[process], shape=shape, seed=seed)[0]


def gallery_figure(rows: Sequence[Mapping[str, Any]], *, side: int = 160, seed: int = 0) -> str:
    """Return one 2-D cell of every process of the rows; grains are coloured at random."""
    names = list(dict.fromkeys(row["process"] for row in rows))
    columns = 4
    with drawing(columns, -(-len(names) // columns), width=9.2, height=5.2) as made:
        for axis, name in zip(made.axes.flat, names, strict=True):
            cell = simulate_one(name, (side, side), seed)
            draw_map(
                axis,
                _shown(cell),
                voxel_size_um=cell.voxel_size_um,
                title=name,
                cmap="cividis" if "grain_ids" not in cell.channels else "twilight",
            )
        return made.data_uri()


def _shown(cell: Microstructure) -> np.ndarray:
    """Return grains in random colours with the second phase cut out, or the phases."""
    if "grain_ids" not in cell.channels:
        return cell.phases
    ids = cell.channels["grain_ids"]
    shuffled = np.random.default_rng(0).permutation(int(ids.max()) + 1)
    colours = (shuffled[ids] + 1.0) / (len(shuffled) + 1)
    hole = {"parent", "boundary", "pore", "melt"}
    empty = [k for k, phase in enumerate(cell.phase_names) if phase in hole]
    return np.where(np.isin(cell.phases, empty), np.nan, colours)
