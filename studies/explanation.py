"""The verb `explain`: where a property surrogate looks in a structure, and where it should."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from microstructures import DataError, read_microstructure
from microstructures.publishing import publish_json, publish_text, sha256
from microstructures.seeds import generator_for
from studies.evaluation import as_batch
from studies.figures import TARGET, draw_map, drawing, middle_slice, outline, publish_pictures
from studies.models import elastic_materials, load_property_surrogate
from studies.report import render
from studies.run_folder import open_run
from studies.settings import ExplainSettings, Settings
from surrogates.activation_maps import grad_cam
from surrogates.saliency import (
    exact_sensitivity,
    map_correlation,
    net_saliency,
    ranking_score,
    replacement_curve,
    share_inside,
)

SHARES = (0.02, 0.05, 0.1, 0.2)
RANDOM_ORDERS = 4
GRADIENT, CAM, EXACT = "net's gradient", "Grad-CAM", "exact sensitivity"


class ExplainRun(Settings):
    """What identifies an explanation."""

    files_sha256: dict[str, str]
    settings: ExplainSettings


def plan_explanation(file: Path, settings: ExplainSettings) -> dict[str, Any]:
    """Check the file; return expected memory (MB), disk (MB) and time (min)."""
    cells = _read(file, settings).phases.size / 64**2
    return {
        "memory_mb": round(900 + 20 * cells),
        "disk_mb": 1,
        "minutes": round((15 + cells) / 60, 2),
    }


def run_explanation(
    file: Path, region: Path | None, settings: ExplainSettings, out: Path
) -> dict[str, Any]:
    """Write the maps over the structure as a report and a picture, their numbers as JSON.

    `region` marks voxels by labels above 0, in a file of the structure's shape.

    Raises:
        MicrostructureError: File, region, materials or surrogate do not fit each other.
    """
    structure = _read(file, settings)
    phases = as_batch([structure])
    marked = None if region is None else _region(region, structure.shape)
    materials = elastic_materials(settings, 2)
    surrogate = load_property_surrogate(settings.property_surrogate)
    row, column = (k - 1 for k in settings.entry)
    if max(row, column) >= surrogate.net.n:
        raise DataError(
            f"expected an entry of a {surrogate.net.n} x {surrogate.net.n} matrix, got "
            f"{settings.entry[0]} {settings.entry[1]}"
        )
    hashes = {str(f): sha256(f) for f in (file, region) if f is not None}
    identity = ExplainRun(files_sha256=hashes, settings=settings)
    with open_run(out, identity, verb="explain") as run:
        entry = (row, column)
        maps = {
            GRADIENT: net_saliency(surrogate, phases, materials, entry=entry),
            CAM: grad_cam(surrogate, phases, materials, entry=entry, level=settings.level).double(),
            EXACT: exact_sensitivity(phases, materials, entry=entry),
        }
        facts = {
            "file": file.name,
            "entry": list(settings.entry),
            "maps": _facts(phases, maps, materials, entry, marked),
        }
        if marked is not None:
            facts["region"] = {"voxels": int(marked.sum()), "share": float(marked.double().mean())}
        picture = _picture(structure.phases, maps, facts, marked, structure.voxel_size_um)
        publish_pictures({"explanation": picture}, run.path)
        sentences = _sentences(facts)
        page = {"facts": {"region": None, **facts}, "sentences": sentences, "picture": picture}
        page |= {"entry": _name(settings.entry), "largest": f"{100 * SHARES[-1]:g}"}
        publish_text(run.path / "report.html", render("explanation.html.j2", page))
        publish_json(run.path / "explanation.json", facts)
    return {**facts, "verdict": sentences}


def _facts(
    phases: Tensor,
    maps: Mapping[str, Tensor],
    materials: list,
    entry: tuple[int, int],
    marked: Tensor | None,
) -> dict[str, dict[str, float]]:
    """Return the numbers of each map: correlation, scores of its ranking, share in the region."""
    found: dict[str, dict[str, float]] = {
        name: {"correlation": float(map_correlation(values, maps[EXACT]))}
        for name, values in maps.items()
    }
    for kind, label in (("deletion", 1), ("insertion", 0)):

        def curve(ranking: Tensor, label: int = label) -> list[float]:
            changed = replacement_curve(
                phases, ranking, materials, SHARES, label=label, entry=entry
            )
            return changed[0].tolist()

        noise = torch.rand(
            RANDOM_ORDERS, *phases.shape, generator=generator_for(0, "random order", label)
        )
        at_random = np.mean([curve(order) for order in noise], axis=0).tolist()
        exact = curve(maps[EXACT])
        for name, values in maps.items():
            found[name][f"{kind}_score"] = ranking_score(
                SHARES, curve(values), at_random=at_random, exact=exact
            )
    if marked is not None:
        for name, values in maps.items():
            found[name]["share_in_region"] = float(share_inside(values, marked.unsqueeze(0)))
    return found


def _picture(
    phases: np.ndarray,
    maps: Mapping[str, Tensor],
    facts: Mapping[str, Any],
    marked: Tensor | None,
    voxel: float,
) -> str:
    with drawing(1 + len(maps), width=2.7 * (1 + len(maps)), height=3.7) as made:
        axes = made.axes[0]
        title = "structure" if marked is None else "structure, marked region"
        draw_map(axes[0], phases, voxel_size_um=voxel, title=title, cmap="cividis", vmin=0, vmax=1)
        for axis, (name, values) in zip(axes[1:], maps.items(), strict=True):
            shown = values[0].numpy()
            draw_map(
                axis,
                shown,
                voxel_size_um=voxel,
                title=_title(name, facts["maps"][name]),
                cmap="viridis",
                vmin=0.0,
                vmax=float(np.quantile(shown, 0.99)) or 1.0,
            )
            outline(axis, phases, voxel_size_um=voxel)
        if marked is not None:
            for axis in axes:
                _mark(axis, marked.numpy(), voxel)
        for axis in axes:
            axis.label_outer()
        return made.data_uri()


def _title(name: str, facts: Mapping[str, float]) -> str:
    lines = [name]
    if name != EXACT:
        lines.append(f"correlation {facts['correlation']:.2f}")
    if "share_in_region" in facts:
        lines.append(f"{100 * facts['share_in_region']:.0f} % in the region")
    return "\n".join(lines)


def _mark(axis: Any, marked: np.ndarray, voxel: float) -> None:
    """Draw the border of the marked region."""
    flat = middle_slice(marked).astype(float)
    if flat.min() == flat.max():
        return
    x, y = ((np.arange(n) + 0.5) * voxel for n in flat.shape)
    axis.contour(x, y, flat.T, levels=[0.5], colors=TARGET, linewidths=1.0)


def _sentences(facts: Mapping[str, Any]) -> list[str]:
    entry = _name(facts["entry"])
    sentences = []
    for name in (GRADIENT, CAM):
        own = facts["maps"][name]
        text = (
            f"{facts['file']}, {entry}: {name} correlates with the exact sensitivity at "
            f"{own['correlation']:.2f}; its ranking of the voxels scores "
            f"{own['deletion_score']:.2f} by deletion and {own['insertion_score']:.2f} by "
            "insertion (0 is chance, 1 the exact sensitivity)"
        )
        if "share_in_region" in own:
            exact = facts["maps"][EXACT]["share_in_region"]
            text += (
                f"; {100 * own['share_in_region']:.0f} % of it lies in the marked region, where "
                f"{100 * exact:.0f} % of the exact sensitivity and "
                f"{100 * facts['region']['share']:.0f} % of the voxels do"
            )
        sentences.append(text + ".")
    return sentences


def _name(entry: Sequence[int]) -> str:
    return "C" + "".join(map(str, entry))


def _read(file: Path, settings: ExplainSettings) -> Any:
    structure = read_microstructure(
        file, voxel_size_um=settings.voxel_size_um, values=settings.values or None
    )
    highest = int(structure.phases.max())
    if highest > 1 or structure.phases.min() == structure.phases.max():
        raise DataError(
            f"{file}: expected a structure of the labels 0 and 1, got {structure.phases.min()} to "
            f"{highest}; a saliency is the derivative by the fraction of one of two phases, and "
            "--values names the stored values of the labels, for example --values 0 255"
        )
    return structure


def _region(file: Path, shape: tuple[int, ...]) -> Tensor:
    marked = torch.from_numpy(read_microstructure(file).phases > 0)
    if tuple(marked.shape) != tuple(shape):
        raise DataError(
            f"{file}: expected a region of the structure's shape {tuple(shape)}, got "
            f"{tuple(marked.shape)}; draw it on a picture of the structure"
        )
    if not bool(marked.any()):
        raise DataError(f"{file}: expected a region with labels above 0, got 0 everywhere")
    return marked
