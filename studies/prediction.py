"""The verb `predict`: stiffness with its bracket, and fields, of structures in files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from microstructures import DataError, Microstructure, read_microstructure
from microstructures.publishing import publish_json, sha256
from microstructures.vtkhdf import write_vtkhdf
from physics import IsotropicElastic, effective_stiffness, solve_elasticity
from studies.evaluation import as_batch
from studies.models import elastic_materials, load_surrogate
from studies.progress import progress_bar
from studies.run_folder import open_run
from studies.settings import PredictSettings, Settings

# Measured on one core per 64 x 64 voxels, all load cases, contrast 10.
SECONDS_PER_CELL, MEMORY_MB = 0.1, 900


class PredictRun(Settings):
    """What identifies a prediction."""

    files_sha256: dict[str, str]
    settings: PredictSettings


@dataclass(frozen=True)
class Prediction:
    """Stiffness (GPa) and unit-load fields of one structure; load by load, Mandel components."""

    stiffness: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    strain: np.ndarray
    stress: np.ndarray
    about: dict[str, Any]


def plan_prediction(files: Sequence[Path], settings: PredictSettings) -> dict[str, Any]:
    """Check the files; return expected memory (MB), disk (MB) and time (min)."""
    structures = _read(files, settings)
    for file, structure in zip(files, structures, strict=True):
        _check_fit(file, structure, len(settings.youngs_modulus_gpa), None)
    cells = sum(s.phases.size / 64**2 for s in structures)
    return {
        "memory_mb": round(MEMORY_MB + 10 * cells),
        "disk_mb": round(1.5 * cells, 1),
        "minutes": round((10 + cells * SECONDS_PER_CELL) / 60, 2),
    }


def run_prediction(files: Sequence[Path], settings: PredictSettings, out: Path) -> dict[str, Any]:
    """Predict every file's stiffness; write predictions.json and one VTKHDF with fields each.

    Raises:
        MicrostructureError: A file, a material or the surrogate does not fit.
    """
    structures = _read(files, settings)
    n_materials = len(settings.youngs_modulus_gpa)
    surrogate = None if settings.solver else load_surrogate(settings.field_surrogate)
    for file, structure in zip(files, structures, strict=True):
        _check_fit(file, structure, n_materials, surrogate)
    materials = elastic_materials(settings, n_materials)
    identity = PredictRun(files_sha256={str(f): sha256(f) for f in files}, settings=settings)
    entries = []
    with (
        open_run(out, identity, verb="predict") as run,
        progress_bar("predict", len(files)) as advance,
    ):
        for k, (file, structure) in enumerate(zip(files, structures, strict=True)):
            found = predict_one(structure, materials, surrogate, settings)
            name = f"{k:03d}-{file.stem}.vtkhdf"
            write_vtkhdf(structure.with_channels(**_channels(found)), run.path / name)
            entries.append({"file": file.name, "fields": name, **_facts(structure, found)})
            advance(k + 1)
        publish_json(run.path / "predictions.json", {"predictions": entries})
    return {"predictions": entries, "verdict": [_sentence(entry) for entry in entries]}


def predict_one(
    structure: Microstructure,
    materials: Sequence[IsotropicElastic],
    surrogate: Any,
    settings: PredictSettings,
) -> Prediction:
    """Return stiffness and fields by the surrogate, or by the solver where there is none."""
    phases = as_batch([structure])
    if surrogate is not None:
        guess = surrogate.predict(phases, materials)
        about = {"by": "surrogate", "level": "discrete", "distance": float(guess.distance[0])}
        return _prediction(guess.effective, guess, guess, about)
    solved = effective_stiffness(phases, materials, tolerance=settings.tolerance)
    fields = solve_elasticity(phases, materials, None, tolerance=settings.tolerance)
    return _prediction(solved.value, solved, fields, {"by": "solver", "level": solved.level})


def _prediction(value: Tensor, bounds: Any, fields: Any, about: dict[str, Any]) -> Prediction:
    return Prediction(
        stiffness=_first(value),
        lower=_first(bounds.lower),
        upper=_first(bounds.upper),
        strain=_first(fields.strain),
        stress=_first(fields.stress),
        about=about,
    )


def _first(values: Tensor) -> np.ndarray:
    return values[0].double().numpy()


def _channels(found: Prediction) -> dict[str, np.ndarray]:
    loads = ("11", "22", "12") if len(found.strain) == 3 else ("11", "22", "33", "23", "13", "12")
    channels = {}
    for load, strain, stress in zip(loads, found.strain, found.stress, strict=True):
        channels[f"strain_load_{load}"] = strain.astype(np.float32)
        channels[f"stress_gpa_load_{load}"] = stress.astype(np.float32)
    return channels


def _facts(structure: Microstructure, found: Prediction) -> dict[str, Any]:
    return {
        **found.about,
        "scope": "this structure's, taken as one period of a periodic cell",
        "c11_gpa": {
            "value": found.stiffness[0, 0],
            "lower": found.lower[0, 0],
            "upper": found.upper[0, 0],
        },
        "stiffness_gpa_mandel": found.stiffness.tolist(),
        "lower_gpa_mandel": found.lower.tolist(),
        "upper_gpa_mandel": found.upper.tolist(),
        "volume_fractions": structure.volume_fractions.tolist(),
    }


def _sentence(entry: Mapping[str, Any]) -> str:
    c11 = entry["c11_gpa"]
    text = (
        f"{entry['file']}: this structure's C11 is {c11['value']:.5g} GPa by the {entry['by']}, "
        f"between {c11['lower']:.5g} and {c11['upper']:.5g} ({entry['level']})"
    )
    if entry.get("distance", 0) > 1:
        text += f"; it is unlike the training set (distance {entry['distance']:.1f}, 1 is its edge)"
    return text + "."


def _read(files: Sequence[Path], settings: PredictSettings) -> list[Microstructure]:
    if not files:
        raise DataError("expected at least one file to predict, got none")
    return [
        read_microstructure(
            file, voxel_size_um=settings.voxel_size_um, values=settings.values or None
        )
        for file in files
    ]


def _check_fit(file: Path, structure: Microstructure, n_materials: int, surrogate: Any) -> None:
    highest = int(structure.phases.max())
    if highest >= n_materials:
        raise DataError(
            f"{file}: expected labels 0 to {n_materials - 1}, one per value of "
            f"youngs_modulus_gpa, found label {highest}; give more moduli, or the stored value of "
            "each label as --values, for example --values 0 255"
        )
    if surrogate is not None:
        try:
            surrogate.check_shape(structure.shape)
        except DataError as error:
            raise DataError(f"{file}: {error}") from error
