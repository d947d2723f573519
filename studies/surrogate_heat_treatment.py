"""Few real specimens: the heat treatment of ultrahigh-carbon steel read from its label maps."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from microstructures import MicrostructureDataset
from studies.bench_table import Table, plain_row
from studies.measured_data import UHCS_SETTINGS, heat_treated_steel
from studies.run_folder import RunFolder, Stage
from studies.stopwatch import one_thread
from studies.surrogate_cells import models_folder
from surrogates.measured_property import MeasuredPropertySurrogate
from surrogates.measured_training import MeasuredSettings, train_measured_property
from surrogates.specimens import Specimens

CROPS = 12  # of each specimen, where crops are mistaken for specimens
COMPONENTS = 4
TARGETS = {"anneal_time_h": "log10 of the annealing time / h", "anneal_temperature_c": "T / degC"}


def heat_treatment_facts(run: RunFolder) -> dict[str, Any]:
    """Return errors of whole specimens left out; empty where the data or its settings are absent.

    Every crop of a specimen is left out with it, and once, wrongly, each crop alone.
    """
    return run.stage("quantities-heat-treatment", lambda: _measure(run)).facts


def heat_treatment_tables(facts: dict[str, Any]) -> dict[str, Table]:
    """Return the table of the real specimens, none where there are none."""
    if not facts:
        return {}
    caption = (
        f"Real: {facts['specimens']} heat-treated specimens of ultrahigh-carbon steel (UHCSDB, "
        f"{facts['crops']} crops of 32 um), Gaussian process on {COMPONENTS} components; RMS error "
        "of what is left out"
    )
    columns = ("whole specimens", "whole specimens, by the others' mean", "single crops (wrong)")
    rows = [
        plain_row(TARGETS[name], [f"{row[key]:.3g}" for key in ("specimen", "mean", "crop")])
        for name, row in facts["targets"].items()
    ]
    return {caption: Table(columns, tuple(rows))}


def _measure(run: RunFolder) -> Stage:
    if not UHCS_SETTINGS.is_file() or heat_treated_steel(run) is None:
        return Stage({})
    folder = run.path / "uhcs-import"
    parts = [MicrostructureDataset.open(folder / n) for n in ("dataset", "dataset-left-out")]
    with one_thread():
        targets = {name: _errors(parts, name, run) for name in TARGETS}
    counts = {name for part in parts for name in part.specimens}
    crops = sum(len(part) for part in parts)
    return Stage({"specimens": len(counts), "crops": crops, "targets": targets})


def _errors(parts: list[MicrostructureDataset], name: str, run: RunFolder) -> dict[str, float]:
    whole = _specimens(parts, name)
    model = _fitted(whole, parts[0], run, name)
    assert whole.measured is not None
    count = len(whole)
    apart = _crops_apart(whole)
    wrong = _fitted(apart, parts[0], run, f"{name}-crops")
    return {
        "specimen": _left_out(model),
        "mean": float(whole.measured.std(correction=0)) * count / (count - 1),
        "crop": _left_out(wrong),
    }


def _specimens(parts: list[MicrostructureDataset], name: str) -> Specimens:
    names = [specimen for part in parts for specimen in part.specimens]
    values = [part[k].process[name] for part in parts for k in range(len(part))]
    known = tuple(dict.fromkeys(names))
    first = [float(values[names.index(specimen)] or math.nan) for specimen in known]
    measured = torch.tensor(first, dtype=torch.float64)
    return Specimens(
        names=known,
        phases=torch.cat([part.phases for part in parts]),
        owner=torch.tensor([known.index(specimen) for specimen in names]),
        inputs=torch.zeros(len(known), 0).double(),
        measured=measured.log10() if name == "anneal_time_h" else measured,
    )


def _crops_apart(whole: Specimens) -> Specimens:
    """Return some crops of each specimen as if each were a specimen of its own."""
    chosen: list[Tensor] = []
    for row in range(len(whole)):
        own = (whole.owner == row).nonzero().flatten()
        chosen.append(own[torch.linspace(0, len(own) - 1, min(CROPS, len(own))).long()])
    rows = torch.cat(chosen)
    owner = whole.owner[rows]
    assert whole.measured is not None
    return replace(
        whole,
        names=tuple(f"crop-{int(k)}" for k in rows),
        phases=whole.phases[rows],
        owner=torch.arange(len(rows)),
        inputs=whole.inputs[owner],
        measured=whole.measured[owner],
    )


def _fitted(
    specimens: Specimens, dataset: MicrostructureDataset, run: RunFolder, name: str
) -> MeasuredPropertySurrogate:
    return train_measured_property(
        specimens,
        MeasuredSettings.model_validate({"components": COMPONENTS}),
        models_folder(run) / f"heat-treatment-{name}",
        n_phases=dataset.n_phases,
        periodic=dataset.periodic,
    )


def _left_out(model: MeasuredPropertySurrogate) -> float:
    """Return the RMS error of every row predicted from the others, in the property's unit."""
    return model.scale.spread * float(model.regression.left_out.square().mean().sqrt())
