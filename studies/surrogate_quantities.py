"""A chapter of the surrogates' benchmark: quantities beside stiffness, and numbers beside pictures.

Conductivity, thermal expansion and yield stress by regressions on descriptors and by nets; what
few pictures of few specimens allow is measured in `surrogate_specimens`.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from microstructures import MicrostructureDataset
from microstructures.seeds import generator_for
from studies.bench_chapter import Chapter
from studies.bench_table import Cell, Row, Table, plain_row
from studies.cells_as_specimens import (
    beyond,
    conducting,
    expanding,
    expansions,
    k11,
    levin_error,
    yielding,
)
from studies.run_folder import RunFolder, Stage
from studies.settings import SurrogateBenchSettings
from studies.shipped_surrogates import weights_key
from studies.stopwatch import one_thread
from studies.surrogate_accuracy import FIRST_TEST_CELL, matrices, net_settings, trained_net
from studies.surrogate_accuracy import Extent as AccuracyExtent
from studies.surrogate_cells import family_cells, models_folder, solved_cells
from studies.surrogate_heat_treatment import heat_treatment_facts, heat_treatment_tables
from studies.surrogate_specimens import specimen_facts, specimen_figures, specimen_tables
from surrogates import PropertySurrogate
from surrogates.descriptor_model import DescriptorModel
from surrogates.labels import LabelledCells
from surrogates.measured_training import MeasuredSettings, train_measured_property
from surrogates.property_training import (
    PropertySettings,
    property_labels,
    train_property_surrogate,
)
from surrogates.specimens import Specimens

ENCODER = "stiffness-2d"
CONTENDERS: dict[str, tuple[str, str | None]] = {
    "ridge": ("ridge", None),
    "Gaussian process": ("gaussian process", None),
    "process + encoder": ("gaussian process", ENCODER),
}
TENSOR, NET = "tensor ridge", "net"


@dataclass(frozen=True)
class Extent:
    """Labelled cells and test cells, and the yield stress's sides, cells and net steps."""

    trained: int
    tested: int
    yield_side: int
    yield_trained: int
    yield_tested: int
    yield_steps: int

    @classmethod
    def of(cls, settings: SurrogateBenchSettings) -> "Extent":
        """Return the extent of a tier."""
        if settings.quick:
            return cls(50, 16, 16, 20, 8, 3)
        return cls(500, 300, 32, 400, 200, 400)


def quantities_chapter(settings: SurrogateBenchSettings, run: RunFolder) -> Chapter:
    """Return errors and coverages by quantity, with and without columns, and by specimens."""
    extent = Extent.of(settings)
    facts = {
        "conductivity k11": _stage("conductivity", _conductivity, settings, run),
        "thermal expansion a11": _stage("expansion", _expansion, settings, run),
        "yield stress, 0.2 %": _stage("yield", _yield, settings, run),
    }
    few = specimen_facts(settings, run)
    real = {} if settings.quick else heat_treatment_facts(run)
    columns = facts["yield stress, 0.2 %"]["columns"]
    return Chapter(
        name="quantities",
        title="Other quantities, numbers beside the picture, few specimens",
        about=_about(extent, facts),
        tables={
            "Error of one component, mean (highest), %": _table(facts, _error_text),
            "Share of test cells inside the 90 % interval, %": _coverage_table(facts),
            "Yield stress by Gaussian process: which numbers beside the picture help": Table(
                ("error, mean (%)", "90 % interval covers (%)"),
                tuple(
                    plain_row(name, (f"{100 * c['mean']:.2f}", f"{100 * c['covered']:.0f}"))
                    for name, c in columns.items()
                ),
            ),
            **specimen_tables(few),
            **heat_treatment_tables(real),
        },
        figures=lambda: specimen_figures(few),
        facts={**facts, "specimens": few, "heat treatment": real},
    )


def _about(extent: Extent, facts: dict[str, Any]) -> str:
    levin, strength = facts["thermal expansion a11"], facts["yield stress, 0.2 %"]
    return (
        f"Spinodal cells, materials drawn for each cell; {extent.tested} test cells "
        f"({extent.yield_tested} for the yield stress) of process points that training never saw. "
        f"Labelled cells: {extent.trained} for conductivity and expansion (moduli 1 : 10 either "
        f"way), {extent.yield_trained} cells of {extent.yield_side} x {extent.yield_side} for the "
        "yield stress (Young's moduli to 1 : 3, yield stresses to 1 : 4 either way, plane strain, "
        "tension). Ridge and Gaussian process see fractions, 12 principal components of the "
        "two-point correlation, and logarithms of the materials' ratios as columns; their "
        "intervals are jackknife+. 'Process + encoder' also sees 12 components of the frozen "
        f"pooled features of {ENCODER}. 'Tensor ridge' is the descriptor baseline of the whole "
        "matrix. The net of conductivity and expansion is the property net, which sees the first "
        "steps of the solver and keeps a fifth of the cells for its calibration; that of the "
        "yield stress corrects the Gaussian process. Expansion: by Levin's relation from the "
        "stiffness (ridges and processes learn the expansion itself), as a share of the "
        "difference of the phases' own; Levin's relation with the solver's stiffness against "
        f"the solver's own expansion: at most {levin['levin']:.1g} apart. Yield stress: "
        f"{strength['below']} of {strength['cells']} cells lie below and {strength['above']} "
        "above the bounds that the predictions cannot leave."
    )


def _stage(name: str, work: Any, settings: SurrogateBenchSettings, run: RunFolder) -> dict:
    def measured() -> Stage:
        started = time.process_time()
        with one_thread():
            facts = work(settings, run)
        return Stage({**facts, "cpu_seconds": time.process_time() - started})

    return run.stage(f"quantities-{name}.{weights_key([ENCODER])}", measured).facts


def _conductivity(settings: SurrogateBenchSettings, run: RunFolder) -> dict[str, Any]:
    extent = Extent.of(settings)
    chosen = net_settings(extent.trained, settings)
    chosen = chosen.model_copy(update={"quantity": "conductivity"})
    dataset = _cells(settings, run)
    folder = models_folder(run) / f"conductivity-{extent.trained}"
    train_property_surrogate(dataset, chosen, folder)
    net = PropertySurrogate.from_pretrained(folder)
    labels = _labels(dataset, chosen, folder)
    test = solved_cells(run, "conductivity-test", _tests(settings, run), chosen)
    value, spread = matrices(net, test)
    half = (net.margins * spread)[:, 0, 0]
    found = {
        TENSOR: _scores(DescriptorModel.fit(labels).predict(test)[:, 0, 0], None, k11(test)),
        NET: _scores(value[:, 0, 0], half, k11(test)),
    }
    return {"found": {**found, **_regressions(conducting(labels), conducting(test), run, "k")}}


def _expansion(settings: SurrogateBenchSettings, run: RunFolder) -> dict[str, Any]:
    extent = Extent.of(settings)
    chosen = net_settings(extent.trained, settings)
    net = trained_net(extent.trained, settings, run)
    dataset = _cells(settings, run)
    folder = models_folder(run) / f"property-{extent.trained}"
    labels = _labels(dataset, chosen, folder)
    test = solved_cells(run, "expansion-test", _tests(settings, run), chosen)
    value, spread = matrices(net, test)
    actual = expansions(test, test.effective)[0]
    share, half = expansions(test, value, net.margins * spread)
    ridge = expansions(test, DescriptorModel.fit(labels).predict(test))[0]
    found = {
        TENSOR: _scores(ridge, None, actual, relative=False),
        NET: _scores(share, half, actual, relative=False),
    }
    both = expanding(labels), expanding(test)
    return {
        "found": {**found, **_regressions(*both, run, "a", relative=False)},
        "levin": levin_error(test),
    }


def _yield(settings: SurrogateBenchSettings, run: RunFolder) -> dict[str, Any]:
    extent = Extent.of(settings)
    parts = [
        (0, extent.yield_trained, 11),
        (FIRST_TEST_CELL, extent.yield_tested, 12),
    ]
    train, test = (yielding(run, extent.yield_side, *part) for part in parts)
    off = [beyond(cells) for cells in (train, test)]
    outside = {
        "below": sum(int(below.sum()) for below, _ in off),
        "above": sum(int(above.sum()) for _, above in off),
        "cells": len(train) + len(test),
    }
    inside = ~(off[0][0] | off[0][1])
    train = train.select(inside.nonzero().flatten())
    steps = {"steps": extent.yield_steps, "learning_rate": 2e-3, "warmup_steps": 2}
    found = _regressions(train, test, run, "yield")
    found[NET] = _fitted(train, test, run, "yield-net", "net", None, training=steps)
    kind = ("gaussian process", None)
    blind, noisy = zip(*[(_without_inputs(s), _with_noise(s)) for s in (train, test)], strict=True)
    columns = {
        "materials as columns": found["Gaussian process"],
        "and a column of random numbers": _fitted(noisy[0], noisy[1], run, "yield-noise", *kind),
        "picture and bounds alone": _fitted(blind[0], blind[1], run, "yield-blind", *kind),
    }
    return {"found": found, "columns": columns, **outside}


def _cells(settings: SurrogateBenchSettings, run: RunFolder) -> MicrostructureDataset:
    """Return the labelled cells of the accuracy chapter."""
    extent = AccuracyExtent.of(settings)
    most = max(number for number, _ in extent.trained)
    cells = family_cells(run, "spinodal", first=0, count=most, side=extent.side)
    return cells.subset(np.arange(Extent.of(settings).trained))


def _labels(
    dataset: MicrostructureDataset, settings: PropertySettings, folder: Path
) -> LabelledCells:
    """Return all labelled cells of a property net's training, its calibration's too."""
    sides = dataset.split(settings.held_out, seed=settings.training.seed)
    parts = []
    for part, (side, name) in enumerate(zip(sides, ("labels", "calibration"), strict=True)):
        place = folder.with_name(f"{folder.name}.{name}")
        parts.append(property_labels([side], settings, place, part=part))
    return LabelledCells.joined(parts)


def _tests(settings: SurrogateBenchSettings, run: RunFolder) -> MicrostructureDataset:
    side = AccuracyExtent.of(settings).side
    count = AccuracyExtent.of(settings).tested
    cells = family_cells(run, "spinodal", first=FIRST_TEST_CELL, count=count, side=side)
    return cells.subset(np.arange(min(len(cells), Extent.of(settings).tested)))


def _without_inputs(cells: Specimens) -> Specimens:
    return replace(cells, inputs=torch.zeros(len(cells), 0).double())


def _with_noise(cells: Specimens) -> Specimens:
    u = [torch.rand(1, generator=generator_for(3, name)).double() for name in cells.names]
    return replace(cells, inputs=torch.cat([cells.inputs, torch.stack(u)], 1))


def _regressions(
    train: Specimens, test: Specimens, run: RunFolder, name: str, *, relative: bool = True
) -> dict[str, dict[str, float]]:
    return {
        title: _fitted(train, test, run, f"{name}-{place}", *kind, relative=relative)
        for place, (title, kind) in enumerate(CONTENDERS.items())
    }


def _fitted(
    train: Specimens,
    test: Specimens,
    run: RunFolder,
    name: str,
    regression: str,
    encoder: str | None,
    *,
    relative: bool = True,
    training: dict[str, Any] | None = None,
) -> dict[str, float]:
    """Fit a regression and return its error and coverage on test cells."""
    bounds = {} if train.lower is None else {"lower": "lower", "upper": "upper"}
    settings = MeasuredSettings.model_validate(
        {
            "regression": regression,
            "encoder": encoder,
            "components": 12,
            "input_columns": tuple(f"input {k}" for k in range(train.inputs.shape[1])),
            "training": training or {},
            **bounds,
        }
    )
    folder = models_folder(run) / f"quantities-{name}"
    model = train_measured_property(train, settings, folder, n_phases=2, periodic=(True, True))
    found = model.predict(test)
    assert test.measured is not None
    scores = _scores(found.value, None, test.measured, relative=relative)
    inside = (found.lower <= test.measured) & (test.measured <= found.upper)
    return {**scores, "covered": float(inside.double().mean())}


def _scores(
    value: Tensor, half: Tensor | None, actual: Tensor, *, relative: bool = True
) -> dict[str, float]:
    error = (value.double() - actual).abs()
    scale = actual if relative else torch.ones_like(actual)
    scores = {"mean": float((error / scale).mean()), "highest": float((error / scale).max())}
    if half is not None:
        scores["covered"] = float((error <= half).double().mean())
    return scores


def _names() -> list[str]:
    return [TENSOR, *CONTENDERS, NET]


def _error_text(scores: dict[str, float]) -> str:
    return f"{100 * scores['mean']:.2f} ({100 * scores['highest']:.1f})"


def _table(facts: dict[str, Any], text: Any) -> Table:
    rows = []
    for name, stage in facts.items():
        found = stage["found"]
        cells = [Cell(text(found[n]) if n in found else "-") for n in _names()]
        rows.append(Row(name, tuple(cells)))
    return Table(tuple(_names()), tuple(rows))


def _coverage_table(facts: dict[str, Any]) -> Table:
    names, rows = _names()[1:], []
    for name, stage in facts.items():
        shares = [stage["found"][n]["covered"] for n in names]
        cells = [Cell(f"{100 * share:.0f}", 0.87 <= share <= 0.93) for share in shares]
        rows.append(Row(f"{name}: covered", tuple(cells), asked="87 to 93"))
    return Table(tuple(names), tuple(rows))
