"""The design study: search, rival, confirmation, process check, window, report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from microstructures import Microstructure
from microstructures.publishing import publish_json
from microstructures.vtkhdf import write_vtkhdf
from studies.confirmation import confirm
from studies.evaluation import Evaluator
from studies.family import describe_family
from studies.models import Models, load_models, model_hashes
from studies.process_check import check_process
from studies.process_window import map_window
from studies.progress import progress_bar
from studies.report import write_report
from studies.results import assemble_results
from studies.run_folder import RunFolder, Stage, open_run
from studies.search import run_random, run_search
from studies.settings import DesignSettings

# Measured on one core at 64 x 64: seconds per evaluation of the search (its model included) and of
# the random rival, per solved cell, per checked simulation, and to load and draw everything.
SECONDS = {"search": 0.8, "random": 0.15, "cell": 0.05, "simulation": 0.07, "start": 15.0}
MEMORY_MB, DISK_MB = 1000, 1.5


def plan_design(settings: DesignSettings) -> dict[str, Any]:
    """Check that a design can start, and return its expected memory, disk and time."""
    evaluator = Evaluator(load_models(settings), settings)
    evaluator.check()
    return expected_cost(settings)


def expected_cost(settings: DesignSettings) -> dict[str, Any]:
    """Return expected memory (MB), disk (MB) and time (min) on two cores."""
    voxels = 1.0
    for side in settings.shape:
        voxels *= side / 64
    voxels *= 64 if len(settings.shape) == 3 else 1
    cells = settings.window_points**2 * settings.window_samples
    seconds = SECONDS["start"] + voxels * (
        settings.evaluations * (SECONDS["search"] + SECONDS["random"])
        + (cells + settings.evaluations * settings.family_draws) * SECONDS["cell"]
        + settings.process_checks * (SECONDS["simulation"] + SECONDS["cell"])
    )
    return {
        "memory_mb": round(MEMORY_MB + 40 * voxels),
        "disk_mb": round(DISK_MB + 0.5 * voxels, 1),
        "minutes": round(seconds / 60, 1),
    }


def run_design(settings: DesignSettings, out: Path, *, verb: str = "design") -> dict[str, Any]:
    """Run or resume a design in a folder and return its results.

    Writes results.json, timings.json, report.html and design.vtkhdf; every finished stage is kept
    in `stages/` and not repeated.

    Raises:
        MicrostructureError: A model is missing, the settings do not fit, or the folder holds
            another run.
    """
    evaluator = Evaluator(load_models(settings), settings)
    evaluator.check()
    with open_run(out, settings, verb=verb, inputs=model_hashes(settings)) as run:
        return design_stages(evaluator, run)


def design_stages(evaluator: Evaluator, run: RunFolder) -> dict[str, Any]:
    """Work through the stages of a design in an open run folder, and publish its results."""
    # Sums depend on how many threads share them: with one, the results do not depend on the
    # machine's load or environment, and nets of this size lose next to nothing.
    torch.set_num_threads(1)
    settings = evaluator.settings
    stages: dict[str, Stage] = {}
    with progress_bar("search", settings.evaluations) as advance:
        stages["search"] = run.stage(
            "search", lambda: run_search(evaluator, run.path / "search", advance)
        )
        advance(settings.evaluations)
    with progress_bar("random rival", settings.evaluations) as advance:
        stages["random"] = run.stage(
            "random", lambda: run_random(evaluator, run.path / "random", advance)
        )
        advance(settings.evaluations)
    chosen = stages["search"].facts["chosen"]["parameters"]
    stages["confirmation"] = run.stage("confirmation", lambda: confirm(evaluator, chosen))
    design = stages["confirmation"]
    process = design.facts["process"]
    stages["family"] = run.stage(
        "family", lambda: describe_family(evaluator, design.arrays["phases"], process)
    )
    with progress_bar("process check", 1) as advance:
        stages["process-check"] = run.stage(
            "process-check", lambda: check_process(evaluator, process)
        )
        advance(1)
    with progress_bar("process window", settings.window_points) as advance:
        stages["window"] = run.stage("window", lambda: map_window(evaluator, process, advance))
        advance(settings.window_points)
    return _publish(evaluator, run, stages)


def _publish(evaluator: Evaluator, run: RunFolder, stages: Mapping[str, Stage]) -> dict[str, Any]:
    results = assemble_results(evaluator.targets, stages, seed=evaluator.settings.seed)
    write_vtkhdf(_design(evaluator.models, stages["confirmation"]), run.path / "design.vtkhdf")
    write_report(run.path / "report.html", results, stages)
    seconds = {name: stage.seconds for name, stage in stages.items()}
    publish_json(run.path / "timings.json", {"seconds": seconds, "total": sum(seconds.values())})
    # Last, so that a results file says that everything else stands.
    publish_json(run.path / "results.json", results)
    return results


def _design(models: Models, confirmed: Stage) -> Microstructure:
    generator, arrays = models.generator, dict(confirmed.arrays)
    return Microstructure(
        phases=arrays.pop("phases"),
        voxel_size_um=generator.voxel_size_um,
        periodic=generator.periodic,
        process=confirmed.facts["process"],
        phase_names=generator.phase_names,
        channels=arrays,
    )
