"""The verb `pick`: which cells of a pool to label next."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from microstructures import DataError, DatasetBuilder, MicrostructureDataset
from microstructures.publishing import publish_json
from studies.models import elastic_materials, load_property_surrogate, load_surrogate
from studies.run_folder import find_folder, open_run
from studies.settings import PickSettings, Settings
from surrogates.active_learning import (
    CertificateWidth,
    Doubt,
    FirstStepsWidth,
    PredictedSpread,
    cell_features,
    next_cells,
    unlabelled_cells,
)
from surrogates.quantities import Stiffness

PICKS = "picks.json"
CELLS_A_SHARD = 256


class PickRun(Settings):
    """What identifies a pick."""

    pool: str
    labelled: list[int]
    settings: PickSettings


class Picks(BaseModel):
    """What an earlier pick took from a pool."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    pool: str
    rows: list[int]


def plan_picking(data: Path, labelled: Sequence[Path], settings: PickSettings) -> dict[str, Any]:
    """Check the pool; return expected memory (MB), disk (MB) and time (min)."""
    pool = _open(data, settings)
    _known(labelled, pool)
    cells = pool.phases.numel() / 64**2
    return {
        "memory_mb": round(900 + pool.phases.numel() / 1e6),
        "disk_mb": round(settings.count * pool.phases[0].numel() / 1e6, 1),
        "minutes": round((10 + 0.03 * cells) / 60, 2),
    }


def run_picking(
    data: Path, labelled: Sequence[Path], settings: PickSettings, out: Path
) -> dict[str, Any]:
    """Write `picks.json`, the rows of the cells to label next, and those cells as `dataset`.

    Args:
        data: The pool.
        labelled: Folders of earlier picks from it, whose cells have labels by now.
        settings: Which surrogate doubts, the materials, how many cells.
        out: Folder of the picks.

    Raises:
        MicrostructureError: Pool, materials, surrogate and earlier picks do not fit each other,
            or fewer cells are left than are asked for.
    """
    pool = _open(data, settings)
    known = _known(labelled, pool)
    identity = PickRun(pool=pool.digest, labelled=known.tolist(), settings=settings)
    with open_run(out, identity, verb="pick") as run:
        cells = unlabelled_cells(
            pool.phases, elastic_materials(settings, pool.n_phases), Stiffness()
        )
        name, doubt = _doubt(settings)
        found = doubt(cells)
        rows = next_cells(
            found, cell_features(cells), settings.count, known=known, seed=settings.seed
        ).tolist()
        _save_cells(pool, rows, run.path / "dataset")
        picks = {
            "pool": pool.digest,
            "by": name,
            "rows": rows,
            "specimens": [pool.specimens[row] for row in rows],
            "doubt": [float(found[row]) for row in rows],
            "mean_doubt_of_the_pool": float(found.mean()),
        }
        publish_json(run.path / PICKS, picks)
    times = float(np.mean(picks["doubt"])) / max(picks["mean_doubt_of_the_pool"], 1e-300)
    sentence = (
        f"Picked {len(rows)} of {len(pool)} cells by {name}: {times:.1f} times the pool's mean on "
        f"average. Label those in {out / 'dataset'}, train with them, and pick again with "
        f"--labelled {out}."
    )
    return {**picks, "verdict": [sentence]}


def _doubt(settings: PickSettings) -> tuple[str, Doubt]:
    if settings.property_surrogate is not None and settings.field_surrogate is not None:
        raise DataError(
            "expected one surrogate to pick by, got property_surrogate "
            f"{settings.property_surrogate} and field_surrogate {settings.field_surrogate}"
        )
    if settings.property_surrogate is not None:
        surrogate = load_property_surrogate(settings.property_surrogate)
        return "the property surrogate's spread", PredictedSpread(surrogate)
    if settings.field_surrogate is not None:
        fields = load_surrogate(settings.field_surrogate)
        return "the width of the field surrogate's certificate", CertificateWidth(fields)
    return "the width of the certificate of the solver's first steps", FirstStepsWidth()


def _open(data: Path, settings: PickSettings) -> MicrostructureDataset:
    pool = MicrostructureDataset.open(find_folder(data, "dataset"))
    elastic_materials(settings, pool.n_phases)
    return pool


def _known(labelled: Sequence[Path], pool: MicrostructureDataset) -> Tensor:
    """Return the rows of earlier picks.

    Raises:
        DataError: A folder holds no picks, or those of another pool.
    """
    rows: list[int] = []
    for folder in labelled:
        file = folder / PICKS
        try:
            picks = Picks.model_validate_json(file.read_text())
        except (OSError, ValidationError) as error:
            raise DataError(
                f"expected the folder of an earlier pick, found none in {folder}; give the --out "
                "of that command"
            ) from error
        inside = not picks.rows or 0 <= min(picks.rows) <= max(picks.rows) < len(pool)
        if picks.pool != pool.digest or not inside:
            raise DataError(f"expected picks from this pool, found those of another in {folder}")
        rows += picks.rows
    return torch.tensor(sorted(set(rows)), dtype=torch.long)


def _save_cells(pool: MicrostructureDataset, rows: Sequence[int], folder: Path) -> None:
    builder = DatasetBuilder(folder, pool.space, about={"picked from": pool.digest})
    parts = [rows[k : k + CELLS_A_SHARD] for k in range(0, len(rows), CELLS_A_SHARD)]
    for shard in builder.missing(len(parts)):
        builder.add(
            shard,
            [pool[row] for row in parts[shard]],
            [pool.specimens[row] for row in parts[shard]],
            sources=[pool.sources[row] for row in parts[shard]],
        )
    builder.finish()
