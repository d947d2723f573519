"""The HTML report of a design run: rendered from its saved results, self-contained."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from generators.training_density import TrainingDensity
from microstructures import ProcessSpace
from microstructures.errors import CheckpointError
from microstructures.publishing import publish_text
from studies.density_figure import CAPTION, density_figure
from studies.design_figures import (
    check_figure,
    s2_figure,
    target_figure,
    trace_figure,
    von_mises,
    window_figure,
)
from studies.evaluation import PROPERTY_LABELS
from studies.figures import axis_label, field_row, publish_pictures, structure_row
from studies.results import assemble_results
from studies.run_folder import Stage, load_stage, run_settings

STAGES = ("search", "random", "confirmation", "family", "process-check", "window")
SHOWN = 3


def render_run(run: Path, *, pictures: Path | None = None) -> Path:
    """Render the report of a finished design or demo run again, from its saved stages.

    Args:
        run: The run's folder.
        pictures: Where to write the figures as PNG files too.

    Raises:
        CheckpointError: The folder holds no finished design.
    """
    settings = run_settings(run)
    if settings["verb"] not in ("design", "demo"):
        raise CheckpointError(
            f"expected a run of design or demo at {run}, found one of {settings['verb']}; give "
            "--against to compare a generator with real structures"
        )
    stages = {name: load_stage(run, name) for name in STAGES}
    targets = stages["confirmation"].facts["target"]
    results = assemble_results(targets, stages, seed=settings["seed"])
    if pictures is not None:
        publish_pictures(_figures(results, stages), pictures)
    return write_report(run / "report.html", results, stages)


def write_report(path: Path, results: Mapping[str, Any], stages: Mapping[str, Stage]) -> Path:
    """Publish the report of a design."""
    window, confirmed = stages["window"], stages["confirmation"].facts
    page = {
        "results": results,
        "rows": [_row(name, results) for name in results["target"]],
        "level": next(iter(results["bracket"].values()))["level"],
        "process_rows": [
            (axis_label(name, confirmed["units"][name]), _number(value))
            for name, value in results["process"].items()
        ],
        "fractions": [
            (name, f"{share:.3f}")
            for name, share in zip(
                confirmed["phase_names"], results["volume_fractions"], strict=True
            )
        ],
        "gate_score": f"{results['gate']['score']:.2f}",
        "window_skipped": window.facts.get("skipped", ""),
        "structure_words": _structure_words(stages),
        "figures": _figures(results, stages),
        "density_caption": CAPTION,
    }
    return publish_text(path, render("design.html.j2", page))


def render(template: str, page: Mapping[str, Any]) -> str:
    """Return a template of this package filled in; in HTML every text is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("studies", "templates"),
        autoescape=".html." in template,
        undefined=StrictUndefined,
    )
    return environment.get_template(template).render(**page)


def _figures(results: Mapping[str, Any], stages: Mapping[str, Stage]) -> dict[str, str]:
    confirmed, family, check = stages["confirmation"], stages["family"], stages["process-check"]
    window = stages["window"]
    voxel = confirmed.facts["voxel_size_um"]
    figures = {
        "target": target_figure(results, check.arrays),
        "structures": _structures(stages, voxel),
        "s2": s2_figure(family.arrays),
        "fields": _fields(confirmed, voxel),
        "trace": trace_figure(stages["search"].facts["trials"], stages["random"].facts["trials"]),
        "check": "",
        "window": "",
        "density": "",
    }
    if "skipped" not in check.facts:
        figures["check"] = check_figure(check.facts, check.arrays)
    if "skipped" not in window.facts:
        figures["window"] = window_figure(window.facts, window.arrays, results["process"])
    if "density" in window.facts:
        density = TrainingDensity.from_json(window.facts["density"])
        space = ProcessSpace.from_json(window.facts["space"])
        figures["density"] = density_figure(space, density, [results["process"]])
    return figures


def _structures(stages: Mapping[str, Stage], voxel: float) -> str:
    shown = [stages["confirmation"].arrays["phases"]]
    titles = ["this structure (design)"]
    draws = stages["family"].arrays["draws"][:SHOWN]
    cells = stages["process-check"].arrays.get("phases", np.empty((0, *shown[0].shape)))[:4]
    shown += [*draws, *cells]
    titles += ["generator, other draw"] * len(draws) + ["simulated afresh"] * len(cells)
    n_phases = len(stages["confirmation"].facts["phase_names"])
    return structure_row(shown, titles, voxel_size_um=voxel, n_phases=n_phases)


def _structure_words(stages: Mapping[str, Stage]) -> str:
    names = stages["confirmation"].facts["phase_names"]
    return (
        f"First the design, then other draws of the generator and fresh simulations at the same "
        f"process parameters. Dark: {names[0]}; bright: {names[-1]}."
    )


def _fields(confirmed: Stage, voxel: float) -> str:
    stress = confirmed.arrays["stress_gpa"].astype(float) * 1000
    phases = confirmed.arrays["phases"]
    poisson = np.array(confirmed.facts["poisson_ratio"])[phases]
    equivalent = von_mises(stress, out_of_plane=poisson * (stress[0] + stress[1]))
    strain = 100 * confirmed.arrays["strain"][0].astype(float)
    fields = {
        "stress σ11": (stress[0], "MPa"),
        "von Mises stress": (equivalent, "MPa"),
        "strain ε11": (strain, "%"),
    }
    return field_row(fields, voxel_size_um=voxel, boundary=phases)


def _row(name: str, results: Mapping[str, Any]) -> dict[str, str]:
    bracket = results["bracket"][name]
    check = results["process_check"].get("properties", {}).get(name)
    achieved = results["achieved"][name]
    return {
        "label": PROPERTY_LABELS[name],
        "target": _number(results["target"][name]),
        "achieved": _number(achieved),
        "miss": f"{100 * results['relative_miss'][name]:.2f} %",
        "bracket": f"{achieved:.5g} −{max(achieved - bracket['lower'], 0):.1e} "
        f"+{max(bracket['upper'] - achieved, 0):.1e}",
        "process": f"{check['mean']:.4g} ± {check['sd']:.2g}" if check else "not checked",
        "rival": _number(results["random_best"]["achieved"][name]),
    }


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) else str(value)
