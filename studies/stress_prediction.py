"""The verb `predict` with an image-to-field surrogate: stress fields, cracks and walls included."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from microstructures import DataError, Microstructure
from microstructures.publishing import publish_json, sha256
from microstructures.vtkhdf import write_vtkhdf
from physics import IsotropicElastic, solve_elasticity
from studies.evaluation import as_batch
from studies.figures import draw_map, drawing, publish_pictures
from studies.models import elastic_materials, load_image_surrogate
from studies.prediction import PredictRun, check_labels, load_names, read_files
from studies.progress import progress_bar
from studies.run_folder import open_run
from studies.settings import PredictSettings
from surrogates import ImageFieldSurrogate
from surrogates.image_fields import ImageFieldPrediction, poisson_field
from surrogates.quantities import Stiffness, local_moduli
from surrogates.stress_errors import error_map, relative_error, von_mises_stress

PEAK = 0.99  # quantile of von Mises stress that is told


@dataclass(frozen=True)
class StressMaps:
    """Stress of one structure under unit macroscopic strains (GPa), and the solver's if asked for.

    All `(load, *space)`, the stress `(load, n, *space)`; `error` is |s - s*| over the root mean
    square of |s*|, `share` its root mean square by load.
    """

    stress: np.ndarray
    von_mises: np.ndarray
    exact: np.ndarray | None = None
    error: np.ndarray | None = None
    share: np.ndarray | None = None


def run_stress_prediction(
    files: Sequence[Path], settings: PredictSettings, out: Path
) -> dict[str, Any]:
    """Predict every file's stress; write predictions.json, and a VTKHDF and a picture each.

    With `solver` every structure is solved too, and the errors are told and drawn.

    Raises:
        MicrostructureError: A file, a material or the surrogate does not fit, or a structure is
            further from the training set than was allowed.
    """
    assert settings.image_surrogate is not None
    structures = read_files(files, settings)
    materials = elastic_materials(settings, len(settings.youngs_modulus_gpa))
    model = load_image_surrogate(settings.image_surrogate)
    for file, structure in zip(files, structures, strict=True):
        check_labels(file, structure, settings)
        model.check_shape(structure.shape)
    identity = PredictRun(files_sha256={str(f): sha256(f) for f in files}, settings=settings)
    entries = []
    with (
        open_run(out, identity, verb="predict") as run,
        progress_bar("predict", len(files)) as advance,
    ):
        for k, (file, structure) in enumerate(zip(files, structures, strict=True)):
            found, maps = _predicted(model, structure, materials, solve=settings.solver)
            entry = _facts(file, found, maps)
            _check_distance(entry, settings.largest_distance)
            stem = f"{k:03d}-{file.stem}"
            shown = structure.with_channels(**_channels(maps))
            write_vtkhdf(shown, run.path / f"{stem}.vtkhdf")
            publish_pictures({stem: _picture(structure, maps)}, run.path)
            entries.append({**entry, "fields": f"{stem}.vtkhdf", "picture": f"{stem}.png"})
            advance(k + 1)
        publish_json(run.path / "predictions.json", {"predictions": entries})
    return {"predictions": entries, "verdict": [_sentence(entry) for entry in entries]}


def _predicted(
    model: ImageFieldSurrogate,
    structure: Microstructure,
    materials: Sequence[IsotropicElastic],
    *,
    solve: bool,
) -> tuple[ImageFieldPrediction, StressMaps]:
    phases = as_batch([structure])
    found = model.predict(phases, materials)
    maps = StressMaps(found.stress[0].numpy(), found.von_mises[0].numpy())
    if not solve:
        return found, maps
    stress = solve_elasticity(phases, materials, None).stress
    values = Stiffness().phase_moduli(materials, phases.ndim - 1).unsqueeze(0)
    q = von_mises_stress(stress, poisson_field(local_moduli(phases, values)))
    ours = found.stress.double()
    return found, StressMaps(
        maps.stress,
        maps.von_mises,
        exact=q[0].numpy(),
        error=error_map(ours, stress)[0].numpy(),
        share=relative_error(ours, stress)[0].numpy(),
    )


def _facts(file: Path, found: ImageFieldPrediction, maps: StressMaps) -> dict[str, Any]:
    assert found.imbalance is not None
    names = load_names(len(maps.stress))

    def by_load(values: np.ndarray | torch.Tensor) -> dict[str, float]:
        return {name: float(value) for name, value in zip(names, values, strict=True)}

    peaks = np.quantile(maps.von_mises.reshape(len(names), -1), PEAK, axis=1)
    entry: dict[str, Any] = {
        "file": file.name,
        "by": "image surrogate",
        "level": "none",
        "scope": "under unit macroscopic strains, taken as one period of a periodic cell",
        "distance": float(found.distance[0]),
        "imbalance": by_load(found.imbalance[0]),
        "von_mises_99th_percentile_gpa": by_load(peaks),
    }
    if maps.share is not None:
        entry["relative_error"] = by_load(maps.share)
    return entry


def _channels(maps: StressMaps) -> dict[str, np.ndarray]:
    channels = {}
    for k, load in enumerate(load_names(len(maps.stress))):
        channels[f"stress_gpa_load_{load}"] = maps.stress[k].astype(np.float32)
        channels[f"von_mises_gpa_load_{load}"] = maps.von_mises[k].astype(np.float32)
        if maps.error is not None:
            channels[f"error_load_{load}"] = maps.error[k].astype(np.float32)
    return channels


def _picture(structure: Microstructure, maps: StressMaps) -> str:
    """Return the structure and von Mises stress under tension, with the solver's and the error."""
    own = {"von Mises stress (GPa)": maps.von_mises[0]}
    top = float(np.quantile(maps.von_mises[0], 0.995))
    if maps.exact is not None and maps.error is not None:
        top = float(np.quantile(maps.exact[0], 0.995))
        own |= {"solver's (GPa)": maps.exact[0], "error, relative": maps.error[0]}
    with drawing(1 + len(own), width=2.9 * (1 + len(own)), height=2.6) as made:
        first, *others = made.axes[0]
        size = structure.voxel_size_um
        draw_map(first, structure.phases, voxel_size_um=size, title="structure", cmap="cividis")
        for axis, (title, values) in zip(others, own.items(), strict=True):
            is_error = title.startswith("error")
            colours, high = ("magma", None) if is_error else ("viridis", top)
            drawn = draw_map(
                axis, values, voxel_size_um=size, title=title, cmap=colours, vmin=0.0, vmax=high
            )
            made.figure.colorbar(drawn, ax=axis, shrink=0.8)
        return made.data_uri()


def _check_distance(entry: dict[str, Any], largest: float | None) -> None:
    if largest is not None and entry["distance"] > largest:
        raise DataError(
            f"{entry['file']}: expected a structure and materials within distance {largest:g} of "
            f"the surrogate's training set, got {entry['distance']:.2f}; solve it, or "
            "allow more as --largest-distance"
        )


def _sentence(entry: dict[str, Any]) -> str:
    peak = entry["von_mises_99th_percentile_gpa"]["11"]
    text = (
        f"{entry['file']}: under a unit strain along 1 a hundredth of the cell is above {peak:.4g} "
        f"GPa of von Mises stress by the image surrogate, without a bracket; "
        f"{100 * entry['imbalance']['11']:.2g} % of the stress is not in equilibrium"
    )
    if "relative_error" in entry:
        text += f", {100 * entry['relative_error']['11']:.2g} % off the solver's"
    if entry["distance"] > 1:
        text += f"; it is unlike the training set (distance {entry['distance']:.1f}, 1 is its edge)"
    return text + "."
