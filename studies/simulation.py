"""The verb `simulate`: a data set of simulated structures, shard by shard."""

from pathlib import Path
from typing import Any

import numpy as np

from microstructures import MicrostructureDataset, ProcessSpace
from microstructures.dataset import DatasetBuilder
from physics.processes.campaign import process_points
from studies.models import make_simulator
from studies.progress import progress_bar
from studies.run_folder import RunFolder, open_run
from studies.settings import SimulateSettings

MEMORY_MB = 600
SECONDS_PER_CELL = {"grain-growth": 0.5, "powder-bed-fusion": 0.06, "sintering": 0.07}
"""CPU seconds of a cell of 64 x 64 on one core, for the plan; others take USUAL_SECONDS or less."""
USUAL_SECONDS = 0.06


def plan_simulation(settings: SimulateSettings) -> dict[str, Any]:
    """Check the settings and return expected memory (MB), disk (MB) and time (min)."""
    make_simulator(settings.process).space.narrowed(settings.ranges)
    cells = settings.points * settings.cells_per_point
    voxels = float(np.prod(settings.shape))
    seconds = SECONDS_PER_CELL.get(settings.process, USUAL_SECONDS)
    per_shard = settings.shard * settings.cells_per_point * voxels
    return {
        "memory_mb": round(MEMORY_MB + per_shard * 200 / 1e6),
        "disk_mb": round(cells * voxels / 1e6, 1),
        "minutes": round(cells * seconds * voxels / 64**2 / 60, 1),
    }


def run_simulation(settings: SimulateSettings, out: Path) -> MicrostructureDataset:
    """Simulate or resume a data set; it stands in `out/dataset`.

    Raises:
        DataError: A range does not fit the process, or the folder holds another run.
    """
    space = make_simulator(settings.process).space.narrowed(settings.ranges)
    with open_run(out, settings, verb="simulate") as run:
        return simulate_dataset(settings, space, run)


def simulate_dataset(
    settings: SimulateSettings, space: ProcessSpace, run: RunFolder
) -> MicrostructureDataset:
    """Simulate what is missing of a data set in an open run folder."""
    folder = run.path / "dataset"
    if (folder / "manifest.json").exists():
        return MicrostructureDataset.open(folder)
    simulator = make_simulator(settings.process)
    points = process_points(space, settings.points, seed=settings.seed)
    n_shards = -(-settings.points // settings.shard)
    about = {"simulator": settings.process, "settings": settings.model_dump(mode="json")}
    builder = DatasetBuilder(folder, space, about=about)
    missing = list(builder.missing(n_shards))
    with progress_bar("simulate", n_shards) as advance:
        for count, shard in enumerate(missing, start=1):
            first = shard * settings.shard
            structures = simulator.simulate(
                points[first : first + settings.shard],
                shape=settings.shape,
                seed=settings.seed,
                n=settings.cells_per_point,
                first=first * settings.cells_per_point,
            )
            specimens = [
                f"point-{first + k // settings.cells_per_point:06d}" for k in range(len(structures))
            ]
            builder.add(shard, structures, specimens=specimens)
            advance(n_shards - len(missing) + count)
        return builder.finish()
