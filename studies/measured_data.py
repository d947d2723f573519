"""Measured structures by process, read from where MESOFORGE_DATA points."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Integer
from torch import Tensor

from microstructures import MicrostructureDataset
from studies.generator_contenders import Contender
from studies.importation import run_import
from studies.run_folder import RunFolder

UHCS_SETTINGS = Path(__file__).parent / "presets" / "uhcs-import.yaml"


@dataclass(frozen=True)
class MeasuredProcess:
    """Real structures of several process points.

    Args:
        name: Stem of stages and pictures.
        title: Heading.
        about: Source, licence and what the samples are.
        points: Process points.
        labels: Real samples of each.
        groups: Sources of each sample, None where every sample has its own.
        periodic: One flag per axis.
        phase_names: One name per label.
        solved: Whether effective properties are compared.
        training: What baselines may draw on, None for nothing.
        names: Process parameters, which a model must have; empty for any one parameter.
    """

    name: str
    title: str
    about: str
    points: list[dict[str, Any]]
    labels: list[Integer[Tensor, "sample *space"]]
    groups: list[tuple[str, ...] | None]
    periodic: tuple[bool, ...]
    phase_names: tuple[str, ...]
    solved: bool = False
    training: MicrostructureDataset | None = None
    names: tuple[str, ...] = ()

    def judges(self, contender: Contender) -> bool:
        """Say whether a model's process and phases are these."""
        space, model = contender.model.space, contender.model
        if len(model.phase_names) != len(self.phase_names) or len(model.periodic) != 2:
            return False
        if self.names:
            return space.names == self.names
        return len(space.names) == 1 and self._fits(contender)

    def process_of(self, contender: Contender) -> list[dict[str, Any]]:
        """Return the points under the model's own parameter names."""
        if self.names:
            return self.points
        (name,) = contender.model.space.names
        return [{name: value} for point in self.points for value in point.values()]

    def _fits(self, contender: Contender) -> bool:
        (parameter,) = contender.model.space.parameters
        values = [float(v) for point in self.points for v in point.values()]
        low, high = parameter.low, parameter.high
        if low is None or high is None:
            return False
        return low <= min(values) and max(values) <= high


def data_folder() -> Path:
    """Return where measured data lies: MESOFORGE_DATA, or ../shared/data."""
    return Path(os.environ.get("MESOFORGE_DATA", Path("..") / "shared" / "data"))


def spherulites(run: RunFolder) -> MeasuredProcess | None:
    """Return the spherulite fields of three crystallisation temperatures, None where absent."""
    path = data_folder() / "spherulite_phasefield" / "spherulites.npz"
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as stored:
        phase, temperature = stored["phase"], stored["temperature_C"]
    wanted = sorted({float(t) for t in temperature})
    return MeasuredProcess(
        name="spherulites",
        title="Track B: spherulites by crystallisation temperature",
        about=(
            "Phase-field spherulites of a thermoplastic at 160, 180 and 200 °C (Ikeda et al., "
            "2025, Apache-2.0), six fields of 64 x 64 each. Judged are models with one process "
            "parameter whose range holds 160 to 200."
        ),
        points=[{"temperature_c": t} for t in wanted],
        labels=[torch.from_numpy(phase[temperature == t]) for t in wanted],
        groups=[None] * len(wanted),
        periodic=(True, True),
        phase_names=("amorphous", "crystalline"),
        solved=True,
    )


def heat_treated_steel(run: RunFolder) -> MeasuredProcess | None:
    """Return crops of the UHCS label maps by heat treatment, None where they are absent.

    They are imported into the run's folder the first time.
    """
    folder = data_folder() / "uhcs_heat_treatment"
    if not folder.is_dir() or not UHCS_SETTINGS.is_file():
        return None
    table_file = folder / "metadata.csv"
    out = run.path / "uhcs-import"
    run_import(folder, table_file, settings_file=UHCS_SETTINGS, out=out, dry_run=False)
    known = MicrostructureDataset.open(out / "dataset")
    left_out = MicrostructureDataset.open(out / "dataset-left-out")
    points, labels, groups = [], [], []
    for dataset in (known, left_out):
        units = dataset.process_units.nan_to_num(-1.0).numpy().round(6)
        for row in np.unique(units, axis=0):
            chosen = np.flatnonzero((units == row).all(1))
            points.append(dict(dataset[int(chosen[0])].process))
            labels.append(dataset.phases[torch.from_numpy(chosen)])
            groups.append(tuple(dataset.sources[k] for k in chosen))
    return MeasuredProcess(
        name="uhcs",
        title="Track B: ultrahigh-carbon steel by heat treatment",
        about=(
            f"Crops of {known.shape[0]} x {known.shape[1]} µm of the label maps of "
            f"{len(points)} heat treatments (UHCSDB, DeCost et al., 2017, CC BY 3.0), imported by "
            "configs/uhcs-import.yaml; the last treatment is the one that the import leaves out, "
            "the others a model may have been trained on. The floor is map against map, where a "
            "treatment has several."
        ),
        points=points,
        labels=labels,
        groups=list(groups),
        periodic=known.periodic,
        phase_names=known.phase_names,
        training=known,
        names=known.space.names,
    )
