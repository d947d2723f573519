"""The verb `predict`: stiffness with its bracket, and fields, of structures in files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from microstructures import DataError, Microstructure, read_microstructure
from microstructures.publishing import publish_json, sha256
from microstructures.vtkhdf import write_vtkhdf
from physics import IsotropicElastic, effective_stiffness, solve_elasticity
from studies.evaluation import as_batch
from studies.models import elastic_materials, load_property_surrogate, load_surrogate
from studies.progress import progress_bar
from studies.run_folder import open_run
from studies.settings import PredictSettings, Settings
from surrogates import FieldSurrogate, PropertyRung, SolverRung, evaluate
from surrogates.ladder import Rung
from surrogates.quantities import Name
from surrogates.thermal_expansion import ExpansionBracket, check_levin, expansion_bracket

# Measured on one core per 64 x 64 voxels, all load cases, contrast 10.
SECONDS_PER_CELL, MEMORY_MB = 0.1, 900
CONDUCTIVITY_WIDTH = 1e-4  # relative bracket of a conductivity where none is asked for
SHOWN = {"stiffness": ("c11_gpa", "gpa_mandel"), "conductivity": ("k11_w_mk", "w_mk")}
SAID = {"c11_gpa": ("C11", "GPa"), "k11_w_mk": ("k11", "W/(m K)")}


class PredictRun(Settings):
    """What identifies a prediction."""

    files_sha256: dict[str, str]
    settings: PredictSettings


@dataclass(frozen=True)
class Prediction:
    """Stiffness (GPa) and, where they were computed, unit-load fields of one structure.

    Fields are load by load, of Mandel components. With another `quantity` the matrix is its own.
    """

    stiffness: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    about: dict[str, Any]
    expansion: ExpansionBracket | None = None
    strain: np.ndarray | None = None
    stress: np.ndarray | None = None
    quantity: Name = "stiffness"


def plan_prediction(files: Sequence[Path], settings: PredictSettings) -> dict[str, Any]:
    """Check the files; return expected memory (MB), disk (MB) and time (min)."""
    structures = read_files(files, settings)
    for file, structure in zip(files, structures, strict=True):
        check_labels(file, structure, settings)
    cells = sum(s.phases.size / 64**2 for s in structures)
    return {
        "memory_mb": round(MEMORY_MB + 10 * cells),
        "disk_mb": round(1.5 * cells, 1),
        "minutes": round((10 + cells * SECONDS_PER_CELL) / 60, 2),
    }


def run_prediction(files: Sequence[Path], settings: PredictSettings, out: Path) -> dict[str, Any]:
    """Predict every file's stiffness; write predictions.json and, with fields, a VTKHDF each.

    Raises:
        MicrostructureError: A file, a material or the surrogate does not fit, or a structure is
            further from the training set than was allowed.
    """
    structures = read_files(files, settings)
    for file, structure in zip(files, structures, strict=True):
        check_labels(file, structure, settings)
    if settings.conductivity_w_mk and settings.expansion_per_k:
        raise DataError(
            "expected conductivity_w_mk or expansion_per_k, got both; predict one after the other"
        )
    if settings.conductivity_w_mk:
        predict, surrogate, materials = _conductivity_predictor(settings), None, []
    else:
        materials = elastic_materials(settings, len(settings.youngs_modulus_gpa))
        predict, surrogate = _predictor(settings, materials)
    if settings.expansion_per_k:
        check_levin(materials, settings.expansion_per_k, dim=structures[0].phases.ndim)
    for file, structure in zip(files, structures, strict=True):
        if surrogate is not None:
            _check_shape(file, structure, surrogate)
    identity = PredictRun(files_sha256={str(f): sha256(f) for f in files}, settings=settings)
    entries = []
    with (
        open_run(out, identity, verb="predict") as run,
        progress_bar("predict", len(files)) as advance,
    ):
        for k, (file, structure) in enumerate(zip(files, structures, strict=True)):
            found = predict(structure)
            _check_distance(file, found, settings.largest_distance)
            if settings.expansion_per_k:
                found = replace(found, expansion=_expansion(found, materials, settings))
            entry = {"file": file.name, **_facts(structure, found)}
            if found.strain is not None:
                entry["fields"] = f"{k:03d}-{file.stem}.vtkhdf"
                shown = structure.with_channels(**_channels(found))
                write_vtkhdf(shown, run.path / entry["fields"])
            entries.append(entry)
            advance(k + 1)
        publish_json(run.path / "predictions.json", {"predictions": entries})
    return {"predictions": entries, "verdict": [_sentence(entry) for entry in entries]}


def _predictor(
    settings: PredictSettings, materials: Sequence[IsotropicElastic]
) -> tuple[Callable[[Microstructure], Prediction], FieldSurrogate | None]:
    """Return what predicts a structure, and the surrogate whose limits all files must fit."""
    if settings.bracket_tolerance is not None:
        rungs = ladder(settings)
        return lambda structure: predict_by_ladder(structure, materials, rungs, settings), None
    surrogate = None if settings.solver else load_surrogate(settings.field_surrogate)
    return lambda structure: predict_one(structure, materials, surrogate, settings), surrogate


def _conductivity_predictor(settings: PredictSettings) -> Callable[[Microstructure], Prediction]:
    """Return what predicts a conductivity: a surrogate of it, where one was named, and the solver.

    Raises:
        DataError: The named surrogate predicts another quantity, or all phases are insulators.
    """
    values = list(settings.conductivity_w_mk)
    if max(values) <= 0:
        raise DataError("expected conductivity_w_mk above 0 for at least one phase, got 0 for all")
    rungs: list[Rung] = [SolverRung("conductivity")]
    named = settings.property_surrogate
    if not settings.solver and named != PredictSettings().property_surrogate:
        model = load_property_surrogate(named)
        if model.quantity.name != "conductivity":
            raise DataError(
                f"expected a surrogate of the conductivity, got {named}, one of the "
                f"{model.quantity.name}; train one (train property --set quantity=conductivity), "
                "or leave it out"
            )
        rungs.insert(0, PropertyRung(model))
    width = settings.bracket_tolerance or CONDUCTIVITY_WIDTH
    ask = settings.model_copy(update={"bracket_tolerance": width})
    return lambda structure: replace(
        predict_by_ladder(structure, values, rungs, ask), quantity="conductivity"
    )


def ladder(settings: PredictSettings) -> list[Rung]:
    """Return the rungs from the cheapest to the solver, which stands alone where it was asked for.

    The certified field surrogate is none of them: for one file it costs more than the solver's
    own bracket (`mesoforge bench surrogates`).

    Raises:
        CheckpointError: A surrogate is not there or was altered.
    """
    if settings.solver:
        return [SolverRung()]
    return [PropertyRung(load_property_surrogate(settings.property_surrogate)), SolverRung()]


def predict_by_ladder(
    structure: Microstructure,
    materials: Sequence,
    rungs: Sequence[Rung],
    settings: PredictSettings,
) -> Prediction:
    """Return the matrix by the cheapest rung whose bracket is within `bracket_tolerance`."""
    assert settings.bracket_tolerance is not None
    (found,) = evaluate(
        as_batch([structure]),
        materials,
        rungs,
        tolerance=settings.bracket_tolerance,
        guaranteed=settings.guaranteed,
    )
    about = {"by": found.rung, "level": found.level, "cpu_ms": round(found.cpu_ms, 2)}
    if found.distance is not None:
        about["distance"] = found.distance
    return Prediction(found.value.numpy(), found.lower.numpy(), found.upper.numpy(), about)


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
        about=about,
        strain=_first(fields.strain),
        stress=_first(fields.stress),
    )


def _first(values: Tensor) -> np.ndarray:
    return values[0].double().numpy()


def load_names(count: int) -> tuple[str, ...]:
    """Return the names of the unit Mandel loads, 3 in 2-D and 6 in 3-D."""
    return ("11", "22", "12") if count == 3 else ("11", "22", "33", "23", "13", "12")


def _channels(found: Prediction) -> dict[str, np.ndarray]:
    assert found.strain is not None
    assert found.stress is not None
    channels = {}
    names = load_names(len(found.strain))
    for load, strain, stress in zip(names, found.strain, found.stress, strict=True):
        channels[f"strain_load_{load}"] = strain.astype(np.float32)
        channels[f"stress_gpa_load_{load}"] = stress.astype(np.float32)
    return channels


def _expansion(
    found: Prediction, materials: Sequence[IsotropicElastic], settings: PredictSettings
) -> ExpansionBracket:
    """Return the thermal expansion that follows from a predicted stiffness and its bracket."""
    ends = (found.stiffness, found.lower, found.upper)
    value, lower, upper = (torch.from_numpy(np.ascontiguousarray(end))[None] for end in ends)
    return expansion_bracket(
        value, lower, upper, materials, settings.expansion_per_k, level=found.about["level"]
    )


def _facts(structure: Microstructure, found: Prediction) -> dict[str, Any]:
    first, unit = SHOWN[found.quantity]
    expansion = {}
    if found.expansion is not None:
        ends = ("value", "lower", "upper")
        parts = {name: getattr(found.expansion, name)[0].tolist() for name in ends}
        expansion = {"expansion_per_k_mandel": {**parts, "level": found.expansion.level}}
    return {
        **expansion,
        **found.about,
        "scope": "this structure's, taken as one period of a periodic cell",
        first: {
            "value": found.stiffness[0, 0],
            "lower": found.lower[0, 0],
            "upper": found.upper[0, 0],
        },
        f"{found.quantity}_{unit}": found.stiffness.tolist(),
        f"lower_{unit}": found.lower.tolist(),
        f"upper_{unit}": found.upper.tolist(),
        "volume_fractions": structure.volume_fractions.tolist(),
    }


def _sentence(entry: Mapping[str, Any]) -> str:
    key, name = next((k, n) for k, n in SAID.items() if k in entry)
    found = entry[key]
    text = (
        f"{entry['file']}: this structure's {name[0]} is {found['value']:.5g} {name[1]} by the "
        f"{entry['by']}, between {found['lower']:.5g} and {found['upper']:.5g} ({entry['level']})"
    )
    if "expansion_per_k_mandel" in entry:
        along = entry["expansion_per_k_mandel"]
        low, value, high = (along[end][0] for end in ("lower", "value", "upper"))
        text += f"; its expansion along 1 is {value:.4g} 1/K, between {low:.4g} and {high:.4g}"
    if "cpu_ms" in entry:
        text += f", for {entry['cpu_ms']:.3g} CPU ms"
    if entry.get("distance", 0) > 1:
        text += f"; it is unlike the training set (distance {entry['distance']:.1f}, 1 is its edge)"
    return text + "."


def read_files(files: Sequence[Path], settings: PredictSettings) -> list[Microstructure]:
    """Read the structures to predict, at least one.

    Raises:
        MicrostructureError: No file, or one that cannot be read.
    """
    if not files:
        raise DataError("expected at least one file to predict, got none")
    return [
        read_microstructure(
            file, voxel_size_um=settings.voxel_size_um, values=settings.values or None
        )
        for file in files
    ]


def _check_distance(file: Path, found: Prediction, largest: float | None) -> None:
    distance = found.about.get("distance")
    if largest is not None and distance is not None and distance > largest:
        raise DataError(
            f"{file}: expected a structure and materials within distance {largest:g} of the "
            f"surrogate's training set, got {distance:.2f}; solve it (--solver), or allow more as "
            "--largest-distance"
        )


def check_labels(file: Path, structure: Microstructure, settings: PredictSettings) -> None:
    """Refuse a structure with a label that no material was given for.

    Raises:
        DataError: There is one.
    """
    conducting = bool(settings.conductivity_w_mk)
    given = settings.conductivity_w_mk if conducting else settings.youngs_modulus_gpa
    name, n_materials = "conductivity_w_mk" if conducting else "youngs_modulus_gpa", len(given)
    highest = int(structure.phases.max())
    if highest >= n_materials:
        raise DataError(
            f"{file}: expected labels 0 to {n_materials - 1}, one per value of "
            f"{name}, found label {highest}; give more moduli, or the stored value of "
            "each label as --values, for example --values 0 255"
        )


def _check_shape(file: Path, structure: Microstructure, surrogate: FieldSurrogate) -> None:
    try:
        surrogate.check_shape(structure.shape)
    except DataError as error:
        raise DataError(f"{file}: {error}") from error
