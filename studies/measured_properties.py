"""Measured properties of specimens: training from a table, and prediction for one specimen."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from microstructures import DataError, MicrostructureDataset, ProcessSpace, read_microstructure
from microstructures.publishing import publish_json, sha256
from studies.progress import progress_bar
from studies.run_folder import find_folder, open_run
from studies.settings import PredictSettings, Settings, resolve_settings
from studies.settings_text import settings_yaml
from studies.training import nested
from surrogates.measured_property import MeasuredPropertySurrogate
from surrogates.measured_training import MeasuredSettings, train_measured_property
from surrogates.specimens import Specimens, read_columns

SPECIMEN = "specimen"


class MeasuredTrainingRun(Settings):
    """What identifies the training of a measured property."""

    what: str = "measured"
    data: str
    table_sha256: str
    settings: dict[str, Any]


class MeasuredPredictionRun(Settings):
    """What identifies the prediction of a measured property."""

    files_sha256: dict[str, str]
    inputs: dict[str, float]
    settings: PredictSettings


def run_measured_training(
    data: Path,
    table: Path | None,
    *,
    settings_file: Path | None,
    values: Mapping[str, Any],
    out: Path,
    dry_run: bool,
) -> Path | None:
    """Train on the pictures of a data set and a table of their specimens, into `out/model`.

    Raises:
        MicrostructureError: No table, or data, table and settings do not fit each other.
    """
    settings = resolve_settings(MeasuredSettings, settings_file, nested(values))
    if table is None:
        raise DataError(
            "expected the table of the measured property, got none; give a CSV with one row per "
            "specimen as --table"
        )
    dataset = MicrostructureDataset.open(find_folder(data, "dataset"))
    columns = read_columns(table, settings.columns, specimen=settings.specimen_column)
    specimens = settings.gathered(dataset, columns)
    resolved = settings.model_dump(mode="json")
    if dry_run:
        crops = len(specimens) * settings.crops
        cost = {"specimens": len(specimens), "memory_mb": 1200, "minutes": round(0.2 + crops / 2e4)}
        print(settings_yaml({**resolved, "expected": cost}))
        return None
    identity = MeasuredTrainingRun(
        data=dataset.digest, table_sha256=sha256(table), settings=resolved
    )
    with (
        open_run(out, identity, verb="train") as run,
        progress_bar("train measured", settings.training.steps) as advance,
    ):
        folder = run.path / "model"
        if not (folder / "manifest.json").exists():
            train_measured_property(
                specimens,
                settings,
                folder,
                n_phases=dataset.n_phases,
                periodic=dataset.periodic,
                card=_card(specimens, settings, dataset),
                progress=lambda k, *_: advance(k),
            )
        return folder


def run_measured_prediction(
    files: Sequence[Path], inputs: Mapping[str, Any], settings: PredictSettings, out: Path
) -> dict[str, Any]:
    """Predict the measured property of one specimen, all files being pictures of it.

    Raises:
        MicrostructureError: A file, an input or the model does not fit, or the specimen is further
            from the training set than was allowed.
    """
    assert settings.measured_property is not None
    found = find_folder(Path(settings.measured_property), "model")
    model = MeasuredPropertySurrogate.from_pretrained(found)
    given = {name: _number(name, value) for name, value in inputs.items()}
    _check_inputs(model, given)
    pictures = [
        read_microstructure(
            file, voxel_size_um=settings.voxel_size_um, values=settings.values or None
        )
        for file in files
    ]
    dataset = MicrostructureDataset.from_structures(
        pictures, ProcessSpace([]), specimens=[SPECIMEN] * len(pictures)
    )
    found = model.predict(model.specimens(dataset, {SPECIMEN: given}))
    entry = {
        "files": [file.name for file in files],
        "property": model.about.measured,
        "value": float(found.value[0]),
        "lower": _finite(float(found.lower[0])),
        "upper": _finite(float(found.upper[0])),
        "level": found.level,
        "confidence": model.about.confidence,
        "distance": float(found.distance[0]),
        "crop_spread": float(found.crop_spread[0]),
    }
    limit = settings.largest_distance
    if limit is not None and entry["distance"] > limit:
        raise DataError(
            f"expected a specimen within distance {limit:g} of the training specimens, got "
            f"{entry['distance']:.2f}; measure it, or allow more as --largest-distance"
        )
    identity = MeasuredPredictionRun(
        files_sha256={str(f): sha256(f) for f in files}, inputs=given, settings=settings
    )
    with open_run(out, identity, verb="predict") as run:
        publish_json(run.path / "predictions.json", {"predictions": [entry]})
    return {"predictions": [entry], "verdict": [_sentence(entry)]}


def _sentence(entry: Mapping[str, Any]) -> str:
    low, high = ("unknown" if entry[k] is None else f"{entry[k]:.5g}" for k in ("lower", "upper"))
    text = (
        f"This specimen's {entry['property']} is {entry['value']:.5g}, between {low} and {high} "
        f"({entry['level']}, {100 * entry['confidence']:g} %)"
    )
    if entry["distance"] > 1:
        text += f"; it is unlike the training set (distance {entry['distance']:.1f}, 1 is its edge)"
    return text + "."


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"expected a number for {name}, got {value!r}")
    return float(value)


def _check_inputs(model: MeasuredPropertySurrogate, given: Mapping[str, float]) -> None:
    wanted = model.about.columns
    if set(given) != set(wanted):
        raise DataError(
            f"expected the inputs {', '.join(wanted) or 'none'} that the model was trained with, "
            f"got {', '.join(given) or 'none'}; give them as --input name=value"
        )


def _card(specimens: Specimens, settings: MeasuredSettings, dataset: MicrostructureDataset) -> str:
    assert specimens.measured is not None
    low, high = float(specimens.measured.min()), float(specimens.measured.max())
    return (
        f"# {settings.property_column}\n\n"
        f"Predicted by {settings.regression} from pictures of a specimen"
        f"{' and ' + ', '.join(settings.input_columns) if settings.input_columns else ''}. Trained "
        f"on {len(specimens)} specimens with {len(specimens.owner)} pictures of "
        f"{' x '.join(str(side) for side in dataset.shape)} voxels of {dataset.voxel_size_um:g} "
        f"um; measured values {low:.4g} to {high:.4g}. Crops: "
        f"{settings.crop or 'whole pictures'}. Every specimen counts once.\n"
    )
