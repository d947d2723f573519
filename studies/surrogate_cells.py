"""Cells of the surrogates' benchmark, simulated once a run, and their solved matrices."""

from pathlib import Path

import numpy as np

from microstructures import DataError, Microstructure, MicrostructureDataset, ProcessSpace
from physics.processes import process_points
from studies.models import make_simulator
from studies.run_folder import RunFolder, Stage
from studies.settings import ProcessName
from surrogates.labels import LabelledCells
from surrogates.property_training import PropertySettings, property_labels

CAMPAIGN_SEED = 1  # of the data that the shipped weights were trained on
PHASES = ("phase 0", "phase 1")


def family_cells(
    run: RunFolder,
    process: ProcessName,
    *,
    first: int,
    count: int,
    side: int,
    least_fraction: float = 0.0,
) -> MicrostructureDataset:
    """Return simulated two-phase 2-D cells, taken as one period of a periodic cell each.

    Args:
        run: Where they are kept.
        process: The simulator, with its default constants.
        first: Index of the first cell in the simulator's campaign `process_points(space, n,
            seed=1)`; the first ones have trained the shipped weights.
        count: Cells simulated.
        side: Voxels along each axis.
        least_fraction: Cells with less than this of either phase are left out.

    Raises:
        DataError: No cell is left.
    """

    def simulated() -> Stage:
        simulator = make_simulator(process)
        points = process_points(simulator.space, first + count, seed=CAMPAIGN_SEED)[first:]
        cells = simulator.simulate(points, shape=(side, side), seed=CAMPAIGN_SEED, first=first)
        return Stage({}, {"phases": np.stack([cell.phases for cell in cells]).astype(np.uint8)})

    name = f"cells-{process}-{side}-{first}-{count}"
    phases = run.stage(name, simulated).arrays["phases"]
    fractions = phases.reshape(len(phases), -1).mean(1)
    kept = np.flatnonzero((fractions >= least_fraction) & (fractions <= 1 - least_fraction))
    if not len(kept):
        raise DataError(f"expected cells with {least_fraction:g} of each phase of {process}, got 0")
    cells = [Microstructure(phases=phases[k], phase_names=PHASES) for k in kept]
    names = [f"point-{first + k:06d}" for k in kept]
    return MicrostructureDataset.from_structures(cells, ProcessSpace([]), specimens=names)


def solved_cells(
    run: RunFolder, name: str, dataset: MicrostructureDataset, settings: PropertySettings
) -> LabelledCells:
    """Return cells with materials drawn for each and the solver's matrices, kept in the run.

    Neither cells nor draws are those of a training with the same settings on other cells.
    """
    plain = settings.model_copy(update={"random_fields": 0})
    return property_labels([dataset], plain, models_folder(run) / f"{name}.labels", part=1)


def models_folder(run: RunFolder) -> Path:
    """Return where a run keeps the models that it trains."""
    folder = run.path / "models"
    folder.mkdir(exist_ok=True)
    return folder
