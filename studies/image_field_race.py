"""Image-to-field nets against the solver: errors cell by cell, and both at what they cost."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from microstructures.seeds import derive_seed
from physics import IsotropicElastic, solve_elasticity
from studies.field_families import Family
from studies.run_folder import Stage
from studies.stopwatch import one_thread, race
from surrogates.image_cells import KINDS, Kind
from surrogates.image_field_net import idle_loads
from surrogates.image_fields import ImageFieldSurrogate, poisson_field
from surrogates.image_labels import (
    DrawnCells,
    drawn_cells,
    phase_and_wall_materials,
    solved_stress,
)
from surrogates.plastic_start import cell_problem, imbalance
from surrogates.quantities import MaterialRange, Stiffness, local_moduli
from surrogates.stress_errors import (
    concentration,
    equivalent_error,
    error_map,
    fine_power,
    relative_error,
    roughness,
    von_mises_stress,
)

NET, TWIN = "stress-2d-pix2pix", "stress-2d-l1"
CRITIC = {NET: "with critic", TWIN: "L1 only"}
TRAINED = MaterialRange((1.0, 30.0), (0.2, 0.4))
"""The range that the shipped weights were trained on."""

TRUTH = 1e-5
RACED_CONTRAST, RACED_POISSON_RATIO = 10.0, 0.3
POROUS = "powder bed"
"""The family whose phase 1 is pore."""


def measured(
    family: Family,
    kind: Kind,
    materials: MaterialRange,
    models: Mapping[str, ImageFieldSurrogate],
    seed: int,
) -> Stage:
    """Return every metric of each net by cell, and the pictures of the first cell."""
    phases = family.phases * 2 if family.name == POROUS else family.phases
    drawn = drawn_cells(
        phases,
        materials,
        kind,
        n_phases=2,
        seed=derive_seed(seed, "image field", family.name, kind),
    )
    rows: dict[str, list[float]] = {}
    pictures: dict[str, np.ndarray] = {}
    for k in range(len(phases)):
        exact = solved_stress(drawn, torch.tensor([k]), tolerance=TRUTH, dtype=torch.float64)
        moduli = _moduli(drawn, k)
        loaded = _tension(exact, moduli)
        for name, model in models.items():
            cell = drawn.phases[k : k + 1].long()
            answer = model.predict(cell, drawn.materials[k])
            assert answer.imbalance is not None
            metrics = _metrics(answer.stress.double(), exact, moduli, loaded)
            metrics["imbalance"] = float(answer.imbalance[0, loaded])
            metrics["distance"] = float(answer.distance)
            for metric, value in metrics.items():
                rows.setdefault(f"{name}.{metric}", []).append(value)
            if k == 0:
                pictures |= _pictures(name, answer.stress.double(), exact, moduli, loaded)
        own = imbalance(cell_problem(moduli.float()), exact.float())
        rows.setdefault("solver.imbalance", []).append(float(own[0, loaded]))
        if k == 0:
            pictures["phases"] = drawn.phases[0].numpy()
    facts = {f"{name}.l2": float(np.mean(rows[f"{name}.l2"])) for name in models}
    return Stage(facts, {name: np.array(values) for name, values in rows.items()} | pictures)


def _moduli(drawn: DrawnCells, k: int) -> Tensor:
    values = Stiffness().phase_moduli(drawn.materials[k], drawn.phases.ndim - 1)
    return local_moduli(drawn.phases[k : k + 1], values.unsqueeze(0))


def _tension(exact: Tensor, moduli: Tensor) -> int:
    """Return the unit tension that stresses a cell the most: along a bar, between the grips."""
    truth = von_mises_stress(exact, poisson_field(moduli))
    return int(truth[0, : moduli.ndim - 2].flatten(1).mean(1).argmax())


def _metrics(stress: Tensor, exact: Tensor, moduli: Tensor, load: int) -> dict[str, float]:
    """Return the metrics of one cell, those of von Mises stress under one load."""
    solid, chosen = (moduli[:, 1] > 0).double(), slice(load, load + 1)
    poisson = poisson_field(moduli)
    q, truth = (von_mises_stress(s[:, chosen], poisson) for s in (stress, exact))
    metrics = {
        "l2": relative_error(_one_field(stress), _one_field(exact)),
        "mape": equivalent_error(q, truth, solid),
        "p99": concentration(q, solid) / concentration(truth, solid) - 1,
        "sharpness": roughness(q) / roughness(truth),
        "fine": fine_power(q) / fine_power(truth),
    }
    return {name: float(value) for name, value in metrics.items()}


def _pictures(
    name: str, stress: Tensor, exact: Tensor, moduli: Tensor, load: int
) -> dict[str, np.ndarray]:
    poisson, chosen = poisson_field(moduli), slice(load, load + 1)
    truth = von_mises_stress(exact[:, chosen], poisson)[0, 0]
    size = truth.square().mean().sqrt()
    return {
        "exact": (truth / size).numpy(),
        f"{CRITIC[name]}": (von_mises_stress(stress[:, chosen], poisson)[0, 0] / size).numpy(),
        f"error, {CRITIC[name]}": error_map(stress[:, chosen], exact[:, chosen])[0, 0].numpy(),
    }


def raced(
    family: Family,
    model: ImageFieldSurrogate,
    tolerances: Sequence[float],
    *,
    cells: int,
    repetitions: int,
    seed: int,
) -> Stage:
    """Return error and CPU ms per cell of the net and of every tolerance, by kind.

    Under all unit loads that do something: three, but only one of a bar or between grips.
    """
    materials = phase_and_wall_materials([1.0, RACED_CONTRAST], [RACED_POISSON_RATIO] * 2)
    rows = torch.arange(cells) % len(family.phases)
    facts: dict[str, object] = {"cells": cells}
    for kind in KINDS:
        drawn = drawn_cells(
            family.phases[rows], TRAINED, kind, n_phases=2, seed=derive_seed(seed, "race", kind)
        )
        facts[kind] = _raced_kind(drawn.phases.long(), materials, model, tolerances, repetitions)
    return Stage(facts)


def _raced_kind(
    phases: Tensor,
    materials: Sequence[IsotropicElastic],
    model: ImageFieldSurrogate,
    tolerances: Sequence[float],
    repetitions: int,
) -> dict[str, dict[str, float]]:
    macro = stressing_loads(phases, materials)
    answers: dict[str, Tensor] = {}

    def net() -> None:
        answers["net"] = model.predict(phases, materials, macro, check=False).stress

    def solver(tolerance: float) -> None:
        answers[f"{tolerance:g}"] = solve_elasticity(
            phases, materials, macro, tolerance=tolerance, dtype=torch.float32
        ).stress

    rivals = {"net": net} | {f"{t:g}": partial(solver, t) for t in tolerances}
    with one_thread():
        seconds = race(rivals, repetitions=repetitions)
    exact = _one_field(solve_elasticity(phases, materials, macro, tolerance=TRUTH).stress)
    return {
        name: {
            "ms": 1000 * seconds[name] / len(phases),
            "error": float(relative_error(_one_field(answers[name].double()), exact).mean()),
        }
        for name in rivals
    }


def stressing_loads(phases: Tensor, materials: Sequence[IsotropicElastic]) -> Tensor:
    """Return the unit loads `(cell, load, n)` that do something: none across free sides.

    All cells have equally many: they are of one kind.
    """
    shear = torch.tensor([material.shear for material in materials])
    active = ~idle_loads((shear[phases] > 0).double())
    return torch.stack([torch.eye(active.shape[1], dtype=torch.float64)[own] for own in active])


def _one_field(stress: Tensor) -> Tensor:
    """Return all loads as one field of more components."""
    return stress.flatten(1, 2).unsqueeze(1)


def cheapest_solver(rivals: Mapping[str, Mapping[str, float]]) -> str | None:
    """Return the cheapest tolerance whose error is at most the net's, None where none is."""
    good = [t for t, r in rivals.items() if t != "net" and r["error"] <= rivals["net"]["error"]]
    return min(good, key=lambda t: rivals[t]["ms"], default=None)
