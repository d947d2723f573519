"""The demo from scratch: simulate, train generator, gate and surrogate, then design."""

from pathlib import Path
from typing import Any, TypeVar

from generators.diffusion_training import DiffusionSettings
from microstructures import DataError
from studies.design import design_stages, expected_cost
from studies.evaluation import Evaluator
from studies.models import Models, load_gate, load_generator, load_surrogate, make_simulator
from studies.run_folder import RunFolder, open_run
from studies.settings import DemoSettings, SimulateSettings
from studies.simulation import plan_simulation, simulate_dataset
from studies.training import GateSettings, train_model
from surrogates.training import SurrogateSettings

Trained = TypeVar("Trained", DiffusionSettings, SurrogateSettings)
SURROGATE_CELLS = 600
# Measured on one core at 64 x 64: seconds per training step of each net.
SECONDS_PER_STEP = {"generator": 0.25, "surrogate": 0.2}


def plan_from_scratch(settings: DemoSettings) -> dict[str, Any]:
    """Return expected memory (MB), disk (MB) and time (min)."""
    simulated = plan_simulation(_campaign(settings))
    designed = expected_cost(settings)
    voxels = settings.shape[0] * settings.shape[1] / 64**2
    seconds = voxels * (
        settings.scratch_generator_steps * SECONDS_PER_STEP["generator"]
        + settings.scratch_surrogate_steps * SECONDS_PER_STEP["surrogate"]
    )
    return {
        "memory_mb": max(simulated["memory_mb"], designed["memory_mb"]) + 500,
        "disk_mb": round(simulated["disk_mb"] + designed["disk_mb"] + 60, 1),
        "minutes": round(simulated["minutes"] + designed["minutes"] + seconds / 60, 1),
    }


def run_from_scratch(settings: DemoSettings, out: Path, *, verb: str = "demo") -> dict[str, Any]:
    """Make everything that the design needs in the run folder, then design; resumes on repeat.

    Raises:
        MicrostructureError: The settings do not fit, training diverged, or the folder holds
            another run.
    """
    if settings.simulator == "none":
        raise DataError("expected a simulator to start from scratch, got none; choose spinodal")
    with open_run(out, settings, verb=verb) as run:
        models = make_models(settings, RunFolder(run.path / "scratch"))
        evaluator = Evaluator(models, settings)
        evaluator.check()
        return design_stages(evaluator, run)


def make_models(settings: DemoSettings, workshop: RunFolder) -> Models:
    """Simulate a data set and train generator, gate and surrogate on it."""
    space = make_simulator(settings.simulator).space
    dataset = simulate_dataset(_campaign(settings), space, workshop)
    folders = {what: workshop.path / what for what in ("generator", "gate", "surrogate")}
    generator = _shortened(DiffusionSettings, settings.scratch_generator_steps, settings.seed)
    surrogate = _shortened(SurrogateSettings, settings.scratch_surrogate_steps, settings.seed)
    solved = dataset.subset(range(min(len(dataset), SURROGATE_CELLS)))
    train_model("generator", dataset, generator, folders["generator"])
    train_model("gate", dataset, GateSettings(), folders["gate"])
    train_model("surrogate", solved, surrogate, folders["surrogate"])
    return Models(
        load_generator(str(folders["generator"])),
        load_gate(str(folders["gate"])),
        load_surrogate(str(folders["surrogate"])),
    )


def _campaign(settings: DemoSettings) -> SimulateSettings:
    assert settings.simulator != "none"
    return SimulateSettings(
        process=settings.simulator,
        shape=settings.shape,
        points=settings.scratch_points,
        seed=settings.seed,
    )


def _shortened(model: type[Trained], steps: int, seed: int) -> Trained:
    settings = model.model_validate({})
    training = settings.training.model_copy(update={"steps": steps, "seed": seed})
    return settings.model_copy(update={"training": training})
