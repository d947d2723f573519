"""What the designed process gives: fresh simulations at its parameters, solved and judged.

A design is one structure; a process makes a family of them. These numbers are the process's.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from microstructures.seeds import derive_seed
from studies.evaluation import GATE, SEARCH_TOLERANCE, Evaluator, as_batch
from studies.models import make_simulator
from studies.run_folder import Stage

SHOWN = 8


def check_process(evaluator: Evaluator, process: Mapping[str, Any]) -> Stage:
    """Simulate the designed process afresh, solve each cell, and compare with the targets.

    Returns:
        Facts: for each property n, mean, standard deviation of the cells, 95 % interval of the
        mean (Student's t), the target and whether it lies inside; the share of cells that passes
        the gate. Arrays: `phases` of the first cells, and each property's values `(n,)`.
    """
    settings = evaluator.settings
    if settings.simulator == "none":
        return Stage({"skipped": "no simulator is known for this generator's process"})
    simulator = make_simulator(settings.simulator)
    cells = simulator.simulate(
        dict(process),
        shape=settings.shape,
        seed=derive_seed(settings.seed, "process check"),
        n=settings.process_checks,
    )
    phases = as_batch(cells)
    values = evaluator.solved(phases, tolerance=SEARCH_TOLERANCE)
    scores = evaluator.gate_scores(phases, dict(process)).double().numpy()
    properties = {
        name: interval_of_mean(sample, target=evaluator.targets[name])
        for name, sample in values.items()
    }
    facts = {
        "simulator": settings.simulator,
        "properties": properties,
        GATE: {"n": len(scores), "passed_share": float((scores <= 1).mean())},
    }
    return Stage(facts, {"phases": phases[:SHOWN].numpy(), **values})


def interval_of_mean(sample: np.ndarray, *, target: float) -> dict[str, Any]:
    """Return n, mean, sd and the 95 % interval of the mean, x̄ ± t(0.975, n - 1) s/√n."""
    n = len(sample)
    mean, sd = float(sample.mean()), float(sample.std(ddof=1))
    half = float(student_t.ppf(0.975, n - 1)) * sd / math.sqrt(n)
    lower, upper = mean - half, mean + half
    return {
        "n": n,
        "mean": mean,
        "sd": sd,
        "interval_95": [lower, upper],
        "target": target,
        "target_inside": lower <= target <= upper,
        "relative_miss_of_mean": abs(mean / target - 1),
    }
