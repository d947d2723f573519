"""Confirmation of a design: one structure, solved tightly, with its brackets and fields."""

from typing import Any

import numpy as np
import torch

from physics import solve_elasticity
from studies.evaluation import (
    C11,
    CONDUCTIVITY,
    CONFIRM_TOLERANCE,
    GATE,
    Evaluator,
    Parameters,
    as_batch,
)
from studies.models import elastic_materials
from studies.reach import hashin_shtrikman
from studies.run_folder import Stage

# Fields are shown at one per cent macroscopic strain along direction 1.
SHOWN_STRAIN = 0.01


def confirm(evaluator: Evaluator, parameters: Parameters) -> Stage:
    """Solve a design to a residual of 1e-6 and keep its values, brackets and fields.

    Arrays: `phases (*space)`, `strain (n, *space)` and `stress_gpa (n, *space)` in Mandel
    components at 1 % macroscopic strain along direction 1.
    """
    structure = evaluator.structure(parameters)
    phases = as_batch([structure])
    achieved, brackets = {}, {}
    if C11 in evaluator.targets:
        solved = evaluator.stiffness(phases, tolerance=CONFIRM_TOLERANCE)
        achieved[C11], brackets[C11] = _entry(solved)
    if CONDUCTIVITY in evaluator.targets:
        solved = evaluator.conductivity(phases, tolerance=CONFIRM_TOLERANCE)
        achieved[CONDUCTIVITY], brackets[CONDUCTIVITY] = _entry(solved)
    facts = {
        "target": evaluator.targets,
        "parameters": dict(parameters),
        "units": {p.name: p.unit for p in evaluator.models.generator.space},
        "process": dict(structure.process),
        "achieved": achieved,
        "bracket": brackets,
        GATE: float(evaluator.gate_scores(phases, structure.process)[0]),
        "volume_fractions": structure.volume_fractions.tolist(),
        "hashin_shtrikman": hashin_shtrikman(evaluator, structure.volume_fractions),
        "voxel_size_um": structure.voxel_size_um,
        "poisson_ratio": list(evaluator.settings.poisson_ratio),
        "phase_names": list(structure.phase_names),
    }
    return Stage(facts, {"phases": structure.phases, **_fields(evaluator, phases)})


def _entry(solved: Any) -> tuple[float, dict[str, Any]]:
    value, lower, upper = (float(m[0, 0, 0]) for m in (solved.value, solved.lower, solved.upper))
    return value, {"lower": lower, "upper": upper, "level": solved.level}


def _fields(evaluator: Evaluator, phases: torch.Tensor) -> dict[str, np.ndarray]:
    materials = elastic_materials(evaluator.settings, len(evaluator.models.generator.phase_names))
    n = 3 if phases.ndim == 3 else 6
    load = torch.zeros(1, 1, n, dtype=torch.float64)
    load[0, 0, 0] = SHOWN_STRAIN
    solved = solve_elasticity(phases, materials, load, tolerance=CONFIRM_TOLERANCE)
    fields = {"strain": solved.strain, "stress_gpa": solved.stress}
    return {name: field[0, 0].to(torch.float32).numpy() for name, field in fields.items()}
