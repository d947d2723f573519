"""Few specimens with few pictures: errors by crop size, intervals, and columns, on known truth."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from microstructures.seeds import derive_seed, generator_for
from physics import effective_conductivity
from physics.processes import process_points
from studies.bench_table import Table, plain_row
from studies.figures import DESIGN, INK, RIVAL, drawing
from studies.models import make_simulator
from studies.run_folder import RunFolder, Stage
from studies.settings import SurrogateBenchSettings
from studies.stopwatch import one_thread
from studies.surrogate_cells import models_folder
from surrogates.measured_property import MeasuredPropertySurrogate
from surrogates.measured_training import MeasuredSettings, train_measured_property
from surrogates.specimens import Specimens

CONDUCTIVITIES = (1.0, 10.0)
COOLING = (300.0, 600.0)  # K; the property falls as 300 K / T, of which no picture tells
SPECIMEN_SEED = 21
CROPS = 8
SOLVED = 1e-3


@dataclass(frozen=True)
class Extent:
    """Specimens learnt from and tested, cells of each, sides of the pictures and of crops."""

    learnt: int
    tested: int
    cells: int
    side: int
    crops: tuple[int, ...]
    fewer: tuple[int, ...]
    draws: int

    @classmethod
    def of(cls, settings: SurrogateBenchSettings) -> "Extent":
        """Return the extent of a tier."""
        if settings.quick:
            return cls(12, 8, 2, 32, (16, 32), (6, 12), 1)
        return cls(40, 60, 2, 128, (16, 32, 64, 128), (6, 10, 20, 40), 4)


def specimen_facts(settings: SurrogateBenchSettings, run: RunFolder) -> dict[str, Any]:
    """Return errors by crop side and number of specimens, and what a column is good for."""

    def measured() -> Stage:
        started = time.process_time()
        with one_thread():
            facts = _measure(settings, run)
        return Stage({**facts, "cpu_seconds": time.process_time() - started})

    return run.stage("quantities-specimens", measured).facts


def specimen_tables(facts: Mapping[str, Any]) -> dict[str, Table]:
    """Return the tables of what few specimens allow."""
    sweep, few, columns = facts["sweep"], facts["fewer"], facts["columns"]
    about = (
        f"{facts['learnt']} simulated specimens (process points) with one picture of "
        f"{facts['side']} x {facts['side']} voxels each, {facts['tested']} to test"
    )
    return {
        f"{about}; property: the conductivity of {facts['bulk']} other cell of the same process "
        f"point; {CROPS} random crops per picture": Table(
            ("Gaussian process, error (%)", "its crop-to-crop scatter (%)",
             "solver on the crops, error (%)", "its crop-to-crop scatter (%)"),
            tuple(
                plain_row(
                    f"crops of {side}" if int(side) < facts["side"] else "the whole picture",
                    tuple(
                        f"{100 * row[key]:.1f}"
                        for key in ("error", "scatter", "solved_error", "solved_scatter")
                    ),
                )
                for side, row in sweep.items()
            ),
        ),
        "By number of specimens, whole pictures: 90 % interval by specimen left out": Table(
            ("error (%)", "covers (%)", "mean half width (%)"),
            tuple(plain_row(f"{count} specimens", _few_texts(row)) for count, row in few.items()),
        ),
        f"Crops of {facts['leaky_side']} taken for specimens of their own (the mistake that "
        "splitting by specimen avoids)": Table(
            ("90 % interval covers (%)", "mean half width (%)"),
            tuple(
                plain_row(name, (f"{100 * row['covered']:.0f}", f"{100 * row['half']:.1f}"))
                for name, row in facts["leaky"].items()
            ),
        ),
        "A column beside the picture": Table(
            ("error (%)",),
            tuple(plain_row(name, (f"{100 * error:.1f}",)) for name, error in columns.items()),
        ),
    }  # fmt: skip


def _few_texts(row: Mapping[str, Any]) -> tuple[str, str, str]:
    half = "infinite" if row["half"] is None else f"{100 * row['half']:.1f}"
    return f"{100 * row['error']:.1f}", f"{100 * row['covered']:.0f}", half


def specimen_figures(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return error and scatter against the side of the crops."""
    sides = [int(side) for side in facts["sweep"]]
    lines = {
        "error": ("Gaussian process, error", DESIGN, "o-"),
        "scatter": ("Gaussian process, crop to crop", DESIGN, "o:"),
        "solved_error": ("solver on the crops, error", RIVAL, "s-"),
        "solved_scatter": ("solver on the crops, crop to crop", RIVAL, "s:"),
    }
    with drawing(1, width=4.2, height=3.2) as made:
        axis = made.axes[0, 0]
        for key, (label, tint, style) in lines.items():
            values = [100 * facts["sweep"][str(side)][key] for side in sides]
            axis.plot(sides, values, style, color=tint, markersize=3, label=label)
        axis.axhline(100 * facts["floor"], color=INK, linewidth=0.7, label="cell to cell, real")
        axis.set_xscale("log", base=2)
        axis.set_xticks(sides, [str(side) for side in sides])
        axis.set_xlabel("side of the crops (voxels)")
        axis.set_ylabel("conductivity, RMS (%)")
        axis.legend()
        caption = "Error and crop-to-crop scatter of a specimen's conductivity by size of its crops"
        return {caption: made.data_uri()}


def _measure(settings: SurrogateBenchSettings, run: RunFolder) -> dict[str, Any]:
    extent = Extent.of(settings)
    whole, floor = _specimens(extent, run)
    learnt = whole.select(range(extent.learnt))
    tested = whole.select(range(extent.learnt, len(whole)))
    sweep = {}
    for side in extent.crops:
        model = _fitted(learnt, run, f"crops-{side}", side=_crop(side, extent))
        sweep[str(side)] = {**_errors(model, tested), **_solved(tested, side, extent)}
    large = extent.crops[-2]
    return {
        "learnt": extent.learnt,
        "tested": len(tested),
        "side": extent.side,
        "bulk": extent.cells - 1,
        "floor": floor,
        "sweep": sweep,
        "fewer": {str(n): _by_number(n, learnt, tested, extent, run) for n in extent.fewer},
        "leaky": _leaky(learnt, tested, large, run),
        "leaky_side": large,
        "columns": _columns(learnt, tested, run),
    }


def _specimens(extent: Extent, run: RunFolder) -> tuple[Specimens, float]:
    """Return specimens with the property of cells that are no pictures, and the cells' scatter."""

    def simulated() -> Stage:
        simulator, count = make_simulator("spinodal"), extent.learnt + extent.tested
        points = process_points(simulator.space, count, seed=SPECIMEN_SEED)
        repeated = [point for point in points for _ in range(extent.cells)]
        cells = simulator.simulate(repeated, shape=(extent.side,) * 2, seed=SPECIMEN_SEED)
        phases = np.stack([cell.phases for cell in cells]).astype(np.uint8)
        return Stage({}, {"phases": phases, "k11": _k11(torch.from_numpy(phases)).numpy()})

    name = f"quantities-cells-{extent.learnt}-{extent.tested}-{extent.side}"
    arrays = run.stage(name, simulated).arrays
    phases = torch.from_numpy(arrays["phases"]).unflatten(0, (-1, extent.cells))
    k11 = torch.from_numpy(arrays["k11"]).view(-1, extent.cells)
    mixed = (phases[:, 0].flatten(1).double().mean(1) - 0.5).abs() < 0.499
    rows = mixed.nonzero().flatten()
    measured = k11[rows, 1:].mean(1)
    floor = float((k11[rows, 0] / measured - 1).square().mean().sqrt())
    specimens = Specimens(
        names=tuple(f"specimen-{int(k)}" for k in rows),
        phases=phases[rows, 0],
        owner=torch.arange(len(rows)),
        inputs=torch.zeros(len(rows), 0).double(),
        measured=measured,
        lower=torch.full_like(measured, CONDUCTIVITIES[0]),
        upper=torch.full_like(measured, CONDUCTIVITIES[1]),
    )
    return specimens, floor


def _k11(phases: Tensor) -> Tensor:
    return effective_conductivity(phases, list(CONDUCTIVITIES), tolerance=SOLVED).value[:, 0, 0]


def _crop(side: int, extent: Extent) -> int | None:
    return side if side < extent.side else None


def _fitted(
    learnt: Specimens, run: RunFolder, name: str, *, side: int | None = None
) -> MeasuredPropertySurrogate:
    bounds = {} if learnt.lower is None else {"lower": "lower", "upper": "upper"}
    inputs = tuple(f"input {k}" for k in range(learnt.inputs.shape[1]))
    given = {"crop": side, "crops": CROPS, "input_columns": inputs, **bounds}
    settings = MeasuredSettings.model_validate(given)
    folder = models_folder(run) / f"specimens-{name}"
    return train_measured_property(learnt, settings, folder, n_phases=2, periodic=(True, True))


def _errors(model: MeasuredPropertySurrogate, tested: Specimens) -> dict[str, Any]:
    """Return relative RMS error and scatter, coverage and mean half width of the interval."""
    about = model.about
    found = model.predict(tested.cropped(about.crop, about.crops, seed=about.seed))
    assert tested.measured is not None
    inside = (found.lower <= tested.measured) & (tested.measured <= found.upper)
    half = float(((found.upper - found.lower) / (2 * tested.measured)).mean())
    return {
        "error": _rms(found.value / tested.measured - 1),
        "scatter": _rms(found.crop_spread / tested.measured),
        "covered": float(inside.double().mean()),
        "half": half if np.isfinite(half) else None,
    }


def _solved(tested: Specimens, side: int, extent: Extent) -> dict[str, float]:
    """Return what the solver on the crops, each taken as one period, says of the specimens."""
    crops = tested.cropped(_crop(side, extent), CROPS, seed=0)
    k11 = _k11(crops.phases)
    mean = crops.mean(k11[:, None])[:, 0]
    assert tested.measured is not None
    scatter = 0.0
    if len(k11) > len(tested):
        squares = crops.mean((k11 - mean[crops.owner]).square()[:, None])[:, 0]
        scatter = _rms((squares * CROPS / (CROPS - 1)).sqrt() / tested.measured)
    return {"solved_error": _rms(mean / tested.measured - 1), "solved_scatter": scatter}


def _by_number(
    count: int, learnt: Specimens, tested: Specimens, extent: Extent, run: RunFolder
) -> dict[str, Any]:
    """Return means over draws of that many specimens; their property has no bounds here."""
    rows = []
    for draw in range(extent.draws if count < len(learnt) else 1):
        order = torch.randperm(len(learnt), generator=generator_for(draw, "specimens", count))
        some, others = (
            replace(s, lower=None, upper=None) for s in (learnt.select(order[:count]), tested)
        )
        rows.append(_errors(_fitted(some, run, f"{count}-{draw}"), others))
    halves = [row["half"] for row in rows]
    return {
        "error": float(np.mean([row["error"] for row in rows])),
        "covered": float(np.mean([row["covered"] for row in rows])),
        "half": None if None in halves else float(np.mean(halves)),
    }


def _leaky(learnt: Specimens, tested: Specimens, side: int, run: RunFolder) -> dict[str, Any]:
    """Return intervals by specimens, and by crops that were taken for specimens."""
    crops = learnt.cropped(side, CROPS, seed=0)
    numbers = {name: getattr(crops, name)[crops.owner] for name in ("measured", "lower", "upper")}
    mistaken = replace(
        crops,
        names=tuple(f"crop-{k}" for k in range(len(crops.owner))),
        owner=torch.arange(len(crops.owner)),
        inputs=crops.inputs[crops.owner],
        **numbers,
    )
    own = _fitted(learnt, run, f"crops-{side}", side=side)
    wrong = _fitted(mistaken, run, f"mistaken-{side}", side=side)
    return {
        "by specimen": _errors(own, tested),
        "by crop, asked about specimens": _errors(wrong, tested),
    }


def _columns(learnt: Specimens, tested: Specimens, run: RunFolder) -> dict[str, float]:
    """Return errors where the property falls with a temperature, and where a column is noise."""

    def drawn(specimens: Specimens, name: str) -> Tensor:
        numbers = [
            torch.rand(1, generator=generator_for(derive_seed(name), key), dtype=torch.float64)
            for key in specimens.names
        ]
        return torch.stack(numbers)

    def cooled(specimens: Specimens, *, told: bool) -> Specimens:
        low, high = COOLING
        kelvin = low + (high - low) * drawn(specimens, "temperature")
        assert specimens.measured is not None
        fallen = specimens.measured * low / kelvin[:, 0]
        inputs = kelvin if told else specimens.inputs
        return replace(specimens, inputs=inputs, measured=fallen, lower=None, upper=None)

    pairs = {
        "property of the picture alone, no column": (learnt, tested),
        "and a column of random numbers": tuple(
            replace(s, inputs=drawn(s, "noise")) for s in (learnt, tested)
        ),
        "property that falls with temperature, no column": tuple(
            cooled(s, told=False) for s in (learnt, tested)
        ),
        "and the temperature as a column": tuple(cooled(s, told=True) for s in (learnt, tested)),
    }
    return {
        title: _errors(_fitted(pair[0], run, f"column-{place}"), pair[1])["error"]
        for place, (title, pair) in enumerate(pairs.items())
    }


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())
