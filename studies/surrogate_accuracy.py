"""A chapter of the surrogates' benchmark: the property net against descriptors, and its interval.

Net and baseline see the same labelled cells; the net's share for calibration is among them.
"""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from microstructures import MicrostructureDataset
from studies.bench_chapter import Chapter
from studies.bench_table import Cell, Row, Table
from studies.calibration_figures import calibration_figure, error_figure
from studies.run_folder import RunFolder, Stage
from studies.settings import SurrogateBenchSettings
from studies.stopwatch import one_thread
from studies.surrogate_cells import family_cells, models_folder, solved_cells
from surrogates import PropertySurrogate
from surrogates.descriptor_model import DescriptorModel
from surrogates.labels import LabelledCells
from surrogates.properties import combined
from surrogates.property_training import (
    PropertySettings,
    calibrated,
    property_labels,
    relative_error,
    train_property_surrogate,
)

CONTRAST = 10.0
FIRST_TEST_CELL = 7000  # of the campaign; training never comes so far
CELLS_AT_ONCE = 64
COVERED = (0.87, 0.93)
LEVELS = (0.5, 0.68, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Extent:
    """How much is trained and tested: labelled cells, steps and members of each net, test cells."""

    trained: tuple[tuple[int, int], ...]
    members: int
    widths: tuple[int, ...]
    tested: int
    side: int

    @classmethod
    def of(cls, settings: SurrogateBenchSettings) -> "Extent":
        """Return the extent of a tier."""
        if settings.quick:
            return cls(((50, 3), (100, 3)), 1, (8, 8), 24, 16)
        if settings.tier == "small":
            return cls(((500, 600), (2000, 600)), 1, (32, 48, 64), 500, 64)
        return cls(((500, 1500), (2000, 4000)), 3, (32, 48, 64), 1000, 64)


def accuracy_chapter(settings: SurrogateBenchSettings, run: RunFolder) -> Chapter:
    """Return errors of net and ridge by number of labelled cells, and the interval's coverage."""
    extent = Extent.of(settings)
    stages = {count: measured(count, settings, run) for count, _ in extent.trained}
    tables = {
        f"{count} labelled cells": _error_table(count, s.facts) for count, s in stages.items()
    }
    tables["Share of test cells inside the calibrated interval"] = _coverage_table(stages)
    return Chapter(
        name="accuracy",
        title="Effective stiffness: property net against descriptors",
        about=(
            f"Spinodal cells of {extent.side} x {extent.side} voxels, Young's moduli 1 : "
            f"{CONTRAST:g} either way, Poisson's ratios 0.2 to 0.4 drawn for each cell. "
            f"{extent.tested} test cells of process points that training never saw; truth is the "
            "staggered solver at residual 1e-3 (its energies are off by the square). Error: "
            "|C*^-1/2 (C - C*) C*^-1/2| / sqrt(3), the RMS over loads of the relative error of "
            "the energy. The ridge sees fractions, contrasts and 12 principal components of the "
            "two-point correlation, and answers between Reuss and Voigt; the second ridge answers, "
            "as the net does, between Reuss and the bound of the solver's first steps. A fifth of "
            "the net's cells is kept for the calibration of its interval (split conformal). "
            f"Nets of the ensemble: {extent.members}."
        ),
        tables=tables,
        figures=lambda: {
            "Calibration: share of test cells inside intervals of other confidence": (
                calibration_figure(
                    {f"{count} labelled cells": s.facts["coverage"] for count, s in stages.items()}
                )
            ),
            "C11 of every test cell": error_figure(list(stages.values())[-1].arrays),
        },
        facts={str(count): dict(stage.facts) for count, stage in stages.items()},
    )


def net_settings(count: int, settings: SurrogateBenchSettings) -> PropertySettings:
    """Return how the net of this many labelled cells is trained."""
    extent = Extent.of(settings)
    steps = dict(extent.trained)[count]
    return PropertySettings.model_validate(
        {
            "widths": extent.widths,
            "members": extent.members,
            "steps": 2,
            "lowest_contrast": CONTRAST,
            "highest_contrast": CONTRAST,
            "random_fields": 0,
            "training": {
                "steps": steps,
                "learning_rate": 2e-3,
                "warmup_steps": min(100, steps // 4),
                "ema_steps": 100,
                "seed": settings.seed,
            },
        }
    )


def trained_net(count: int, settings: SurrogateBenchSettings, run: RunFolder) -> PropertySurrogate:
    """Return the net of this many labelled cells, trained unless the run has it."""
    training(count, settings, run)
    return PropertySurrogate.from_pretrained(models_folder(run) / f"property-{count}")


def training(count: int, settings: SurrogateBenchSettings, run: RunFolder) -> Stage:
    """Train the net of this many labelled cells; return what that cost."""
    cells = _training_cells(count, settings, run)

    def work() -> Stage:
        started = time.process_time()
        with one_thread():
            folder = models_folder(run) / f"property-{count}"
            train_property_surrogate(cells, net_settings(count, settings), folder)
        return Stage({"cpu_seconds": time.process_time() - started})

    return run.stage(f"accuracy-net-{count}", work)


def fitted_ridge(
    count: int, settings: SurrogateBenchSettings, run: RunFolder, *, steps: int = 0
) -> DescriptorModel:
    """Return the descriptor model of all the cells that the net has, its calibration's too."""
    parts = [made(count, settings, run) for made in (training_labels, calibration_cells)]
    return DescriptorModel.fit(LabelledCells.joined(parts), steps=steps)


def training_labels(count: int, settings: SurrogateBenchSettings, run: RunFolder) -> LabelledCells:
    """Return the labelled cells that the net of this many learns from."""
    return _labels(count, settings, run, part=0)


def calibration_cells(
    count: int, settings: SurrogateBenchSettings, run: RunFolder
) -> LabelledCells:
    """Return the labelled cells that the net of this many is calibrated on."""
    return _labels(count, settings, run, part=1)


def _labels(
    count: int, settings: SurrogateBenchSettings, run: RunFolder, *, part: int
) -> LabelledCells:
    chosen = net_settings(count, settings)
    cells = _training_cells(count, settings, run)
    side = cells.split(chosen.held_out, seed=chosen.training.seed)[part]
    name = f"property-{count}.{('labels', 'calibration')[part]}"
    return property_labels([side], chosen, models_folder(run) / name, part=part)


def measured(count: int, settings: SurrogateBenchSettings, run: RunFolder) -> Stage:
    """Return the errors and coverages of the net and ridges of this many labelled cells."""
    return run.stage(f"accuracy-{count}", lambda: _measure(count, settings, run))


@torch.no_grad()
def matrices(net: PropertySurrogate, cells: LabelledCells) -> tuple[Tensor, Tensor]:
    """Return matrix and standard deviation of each entry, in the unit of the labels."""
    parts = [
        combined(net.net(cells.fields(rows, cells.phases[rows])))
        for rows in torch.arange(len(cells)).split(CELLS_AT_ONCE)
    ]
    value, spread = (torch.cat(column) for column in zip(*parts, strict=True))
    return value, spread


def errors(found: Tensor, cells: LabelledCells) -> dict[str, float]:
    """Return mean and highest relative errors of matrices."""
    actual = cells.effective.double()
    whole = relative_error(found, actual)
    c11 = (found[:, 0, 0] / actual[:, 0, 0] - 1).abs()
    return {
        "mean": float(whole.mean()),
        "highest": float(whole.max()),
        "c11_mean": float(c11.mean()),
        "c11_highest": float(c11.max()),
    }


def covered(value: Tensor, half: Tensor, cells: LabelledCells) -> list[float]:
    """Return the share of cells whose truth lies in value +- half, of each distinct entry."""
    inside = ((value - cells.effective).abs() <= half).double().mean(0)
    rows, columns = torch.tril_indices(*inside.shape).unbind(0)
    return inside[rows, columns].tolist()


def _measure(count: int, settings: SurrogateBenchSettings, run: RunFolder) -> Stage:
    extent, chosen = Extent.of(settings), net_settings(count, settings)
    tests = family_cells(
        run, "spinodal", first=FIRST_TEST_CELL, count=extent.tested, side=extent.side
    )
    test = solved_cells(run, "accuracy-test", tests, chosen)
    net = trained_net(count, settings, run)
    value, spread = matrices(net, test)
    facts: dict[str, Any] = {
        "training_cpu_seconds": training(count, settings, run).facts["cpu_seconds"],
        "net": errors(value, test),
        "ridge": errors(fitted_ridge(count, settings, run).predict(test), test),
        "ridge_with_steps": errors(
            fitted_ridge(count, settings, run, steps=chosen.steps).predict(test), test
        ),
        "c11_half_width": float((net.margins[0, 0] * spread[:, 0, 0] / value[:, 0, 0]).mean()),
        "coverage": _coverage(count, net, value, spread, test, settings, run),
    }
    arrays = {"actual": test.effective[:, 0, 0], "net": value[:, 0, 0]}
    arrays["half"] = net.margins[0, 0] * spread[:, 0, 0]
    return Stage(facts, {key: array.double().numpy() for key, array in arrays.items()})


def _coverage(
    count: int,
    net: PropertySurrogate,
    value: Tensor,
    spread: Tensor,
    test: LabelledCells,
    settings: SurrogateBenchSettings,
    run: RunFolder,
) -> dict[str, list[float]]:
    """Return the coverage of each distinct entry by level, margins from the calibration cells."""
    known = calibration_cells(count, settings, run)
    return {
        f"{level:g}": covered(value, calibrated(net.net, known, confidence=level) * spread, test)
        for level in LEVELS
        if level / (1 - level) <= len(known)
    }


def _training_cells(
    count: int, settings: SurrogateBenchSettings, run: RunFolder
) -> MicrostructureDataset:
    extent = Extent.of(settings)
    most = max(number for number, _ in extent.trained)
    cells = family_cells(run, "spinodal", first=0, count=most, side=extent.side)
    return cells.subset(np.arange(count))


def _error_table(count: int, facts: dict[str, Any]) -> Table:
    names = {"ridge": "ridge", "ridge_with_steps": "ridge, first steps' bound", "net": "net"}
    columns = [facts[name] for name in names]
    ratio = facts["net"]["mean"] / facts["ridge"]["mean"]
    shown = {
        "error, mean (%)": "mean",
        "error, highest (%)": "highest",
        "C11 error, mean (%)": "c11_mean",
        "C11 error, highest (%)": "c11_highest",
    }
    rows = [
        Row(title, tuple(Cell(f"{100 * column[key]:.2f}") for column in columns))
        for title, key in shown.items()
    ]
    rows += [
        Row(
            f"error over the ridge's, {count} cells",
            (Cell("1"), _ratio(facts, "ridge_with_steps"), Cell(f"{ratio:.2f}", ratio <= 0.5)),
            asked="at most 0.5",
        ),
        Row(
            "C11 interval, mean half width (%)",
            (Cell("-"), Cell("-"), Cell(f"{100 * facts['c11_half_width']:.2f}")),
        ),
        Row(
            "training, CPU s, labels included",
            (Cell("-"), Cell("-"), Cell(f"{facts['training_cpu_seconds']:.3g}")),
        ),
    ]
    return Table(tuple(names.values()), tuple(rows))


def _ratio(facts: dict[str, Any], name: str) -> Cell:
    return Cell(f"{facts[name]['mean'] / facts['ridge']['mean']:.2f}")


def _coverage_table(stages: dict[int, Stage]) -> Table:
    """Return mean, lowest and highest coverage over the distinct entries, by level."""
    levels = list(next(iter(stages.values())).facts["coverage"])
    rows = []
    for level in levels:
        cells = []
        for stage in stages.values():
            found = stage.facts["coverage"][level]
            mean = sum(found) / len(found)
            text = f"{100 * mean:.1f} ({100 * min(found):.1f} to {100 * max(found):.1f})"
            cells.append(Cell(text, COVERED[0] <= mean <= COVERED[1] if level == "0.9" else None))
        asked = "87 to 93" if level == "0.9" else ""
        name = f"{100 * float(level):g} % interval: mean (range over entries), %"
        rows.append(Row(name, tuple(cells), asked=asked))
    return Table(tuple(f"{count} labelled cells" for count in stages), tuple(rows))
