"""The search for a design and its rival, an equal number of random trials."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from microstructures import ConvergenceError
from optimize import DesignSpace, Estimate, Study, Trial, random_trials
from studies.evaluation import GATE, Evaluator, combined_miss, relative_misses
from studies.run_folder import Stage

Advance = Callable[[int], None]


def run_search(evaluator: Evaluator, folder: Path, advance: Advance) -> Stage:
    """Search by constrained Bayesian optimisation; an interrupted search goes on where it was."""
    settings = evaluator.settings
    with _study(evaluator, folder) as study:
        while True:
            closed = len(study.trials) - len(study.pending())
            advance(closed)
            if closed >= settings.evaluations:
                break
            room = settings.evaluations - closed
            for trial in study.pending() or study.ask(min(settings.batch, room)):
                try:
                    study.tell(trial, evaluator.values(trial.parameters))
                except ConvergenceError as error:
                    study.fail(trial, str(error))
                closed += 1
                advance(closed)
        return Stage(_summary(study, evaluator))


def run_random(evaluator: Evaluator, folder: Path, advance: Advance) -> Stage:
    """Evaluate as many random draws of the same space, which only have to pass the gate.

    The rival is spared what is asked of the search's processes: that can only favour it.
    """
    settings = evaluator.settings.model_copy(update={"family_draws": 0})
    evaluator = replace(evaluator, settings=settings)
    with _study(evaluator, folder) as study:
        drawn = random_trials(study.space, settings.evaluations, settings.seed)
        known = [trial.parameters for trial in study.trials]
        for count, trial in enumerate(drawn, start=1):
            if study.space.canonical(trial.parameters) not in known:
                try:
                    study.attach(trial.parameters, evaluator.values(trial.parameters))
                except ConvergenceError:
                    continue
            advance(count)
        return Stage(_summary(study, evaluator))


def best_so_far(misses: Sequence[float], passed: Sequence[bool]) -> list[float | None]:
    """Return the smallest miss of a passing trial up to each trial, None before the first."""
    best: float | None = None
    trace = []
    for miss, passes in zip(misses, passed, strict=True):
        if passes and (best is None or miss < best):
            best = miss
        trace.append(best)
    return trace


def _study(evaluator: Evaluator, folder: Path) -> Study:
    generator, settings = evaluator.models.generator, evaluator.settings
    return Study(
        DesignSpace(process=generator.space, latent_dim=generator.latent_dim),
        objectives=evaluator.targets,
        constraints=evaluator.constraints,
        folder=folder,
        seed=settings.seed,
        tolerance=settings.bracket_tolerance,
    )


def _summary(study: Study, evaluator: Evaluator) -> dict[str, Any]:
    told = [trial for trial in study.trials if trial.status == "told"]
    if not told:
        raise ConvergenceError(
            f"expected at least one evaluation of {study.space.dim} parameters to succeed, all "
            "failed; look at the materials"
        )
    best = study.best()
    chosen = best or _nearest(told, evaluator.targets)
    return {
        "chosen": _plain(chosen, evaluator),
        "feasible": best is not None,
        "trials": [_plain(trial, evaluator) for trial in told],
        "evaluations": _rungs(told, failed=len(study.trials) - len(told)),
    }


def _nearest(told: Sequence[Trial], targets: Mapping[str, float]) -> Trial:
    """Return what to show where no trial keeps to everything; the report says that it failed."""
    real = [trial for trial in told if float(trial.values[GATE]) <= 1]
    if real:
        return min(real, key=lambda trial: combined_miss(trial.values, targets))
    return min(told, key=lambda trial: float(trial.values[GATE]))


def _plain(trial: Trial, evaluator: Evaluator) -> dict[str, Any]:
    targets = evaluator.targets
    return {
        "parameters": trial.parameters,
        "values": {name: float(value) for name, value in trial.values.items()},
        "relative_miss": relative_misses(trial.values, targets),
        "combined_miss": combined_miss(trial.values, targets),
        "passed": evaluator.passes(trial.values),
    }


def _rungs(told: Sequence[Trial], *, failed: int) -> dict[str, int]:
    by_surrogate = sum(
        any(isinstance(value, Estimate) for value in trial.values.values()) for trial in told
    )
    return {
        "total": len(told) + failed,
        "surrogate": by_surrogate,
        "solver": len(told) - by_surrogate,
        "failed": failed,
    }
