"""Field nets against the solver stopped early: errors after each iteration, and CPU time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from physics import IsotropicElastic
from physics.mechanics import certify_elastic, compatible_strain, solve_elasticity
from physics.mechanics.discretisation import staggered_problem
from studies.field_families import Family, phase_materials
from studies.stopwatch import one_thread, race
from surrogates import FieldSurrogate
from surrogates.bracket_place import MIDDLE, BracketPlace, shear_contrast
from surrogates.iterated import iterated
from surrogates.reference import ReferencedCells

SOLVER = "solver"
CONVERGED = 1e-5
"""Residual of the fields that errors are taken against; effective values are right to 1e-9."""

SLACK = 1e-6
"""Relative slack of the converged value when an interval must hold it."""

METRICS = ("midpoint", "estimate", "width", "upper", "strain", "broken")


@dataclass(frozen=True)
class Start:
    """Where iterations start: a net's answer, or zero displacement where there is no net."""

    name: str
    net: FieldSurrogate | None = None

    @property
    def place(self) -> BracketPlace:
        """Where in the bracket the answer is: where a net has learnt, else in the middle."""
        return MIDDLE if self.net is None else self.net.place

    def displacement(
        self, phases: Tensor, materials: Sequence[IsotropicElastic], iterations: int
    ) -> Float[Tensor, "cell n dim *space"]:
        """Return the displacements of the unit loads after some solver iterations."""
        if self.net is not None:
            return self.net.displacement(phases, materials, iterations=iterations)
        return iterated(staggered_problem(phases, materials), None, iterations)


def shipped_starts(names: Sequence[str]) -> list[Start]:
    """Return the solver's own start, and those of shipped nets."""
    return [Start(SOLVER), *(Start(name, FieldSurrogate.from_pretrained(name)) for name in names)]


def raced_errors(
    family: Family, contrast: float, starts: Sequence[Start], iterations: Sequence[int]
) -> dict[str, np.ndarray]:
    """Return each metric `(start, iterations, cell)`, and the nets' distance `(start, cell)`.

    Cells count once for each way round of the contrast. `midpoint` is the error of the bracket's
    middle for C11, `estimate` that of the place in it that a net has learnt, `width` that of the
    bracket, `upper` the error of its upper end, all over the converged C11; `strain` the relative
    L2 error of the strain at the voxel centres, all loads; `broken` whether the bracket of C11
    lacks the converged value.
    """
    parts = [
        _one_way(family.phases, phase_materials(contrast, stiff), starts, iterations)
        for stiff in family.stiff
    ]
    return {key: np.concatenate([part[key] for part in parts], -1) for key in parts[0]}


def raced_costs(
    phases: Tensor,
    contrast: float,
    starts: Sequence[Start],
    iterations: Sequence[int],
    *,
    repetitions: int,
) -> Float[np.ndarray, "start iterations"]:
    """Return CPU ms per cell of the certified bracket from each start, all loads, one thread.

    All take turns in one process. The strain and stress fields at the voxel centres come on top,
    the same for all.
    """
    materials = phase_materials(contrast, 1)

    def rival(start: Start, k: int) -> Callable[[], object]:
        return lambda: certify_elastic(
            phases, materials, displacement=start.displacement(phases, materials, k)
        )

    rivals = {f"{s.name} {k}": rival(s, k) for s in starts for k in iterations}
    with one_thread():
        taken = race(rivals, repetitions=repetitions)
    ms = [[1000 * taken[f"{s.name} {k}"] / len(phases) for k in iterations] for s in starts]
    return np.array(ms)


def cheapest(
    errors: Float[np.ndarray, " iterations"], costs: Float[np.ndarray, " iterations"], error: float
) -> float | None:
    """Return the least cost with at most this error, None where none is that good."""
    good = errors <= error
    return float(costs[good].min()) if good.any() else None


def affordable(costs: Float[np.ndarray, " iterations"], budget: float) -> int:
    """Return the place of the most iterations that cost no more than the budget (0 at least)."""
    fits = np.nonzero(costs <= budget)[0]
    return int(fits.max()) if len(fits) else 0


@dataclass(frozen=True)
class Converged:
    """What errors are taken against: strain of the unit loads, C11, contrast of shear moduli."""

    strain: Float[Tensor, "cell n n *space"]
    c11: Float[Tensor, " cell"]
    contrast: Float[Tensor, " cell"]

    @classmethod
    def of(cls, phases: Tensor, materials: Sequence[IsotropicElastic]) -> "Converged":
        """Solve cells."""
        solved = solve_elasticity(phases, materials, tolerance=CONVERGED)
        bounds = certify_elastic(phases, materials, displacement=solved.displacement)
        # A cell with pores has no lower bound but 0; its upper bound is converged quadratically.
        middle = (bounds.lower + bounds.upper)[:, 0, 0] / 2
        c11 = torch.where(bounds.one_sided, bounds.upper[:, 0, 0], middle)
        moduli = ReferencedCells.of_moduli(*_moduli(phases, materials))[0].moduli
        return cls(solved.strain, c11, shear_contrast(moduli))


def _moduli(phases: Tensor, materials: Sequence[IsotropicElastic]) -> tuple[Tensor, Tensor]:
    problem = staggered_problem(phases, materials)
    return problem.lame, problem.shear[:, 0]


def _one_way(
    phases: Tensor,
    materials: Sequence[IsotropicElastic],
    starts: Sequence[Start],
    iterations: Sequence[int],
) -> dict[str, np.ndarray]:
    exact = Converged.of(phases, materials)
    found: dict[str, list[list[Tensor]]] = {name: [] for name in METRICS}
    for start in starts:
        rows: dict[str, list[Tensor]] = {name: [] for name in METRICS}
        base = start.displacement(phases, materials, 0)
        problem = staggered_problem(phases, materials)
        for k in iterations:
            moved = iterated(problem, base, k) if k else base
            for name, values in _errors(phases, materials, moved, exact, start.place, k).items():
                rows[name].append(values)
        for name in METRICS:
            found[name].append(rows[name])
    stacked = {name: _stacked(rows) for name, rows in found.items()}
    return {**stacked, "distance": np.stack([_distance(s, phases, materials) for s in starts])}


def _errors(
    phases: Tensor,
    materials: Sequence[IsotropicElastic],
    displacement: Tensor,
    exact: Converged,
    place: BracketPlace,
    iterations: int,
) -> Mapping[str, Tensor]:
    bounds = certify_elastic(phases, materials, displacement=displacement)
    matrix = place.estimate(
        bounds.lower, bounds.upper, exact.contrast, bounds.one_sided, iterations
    )
    lower, upper, estimate = (m[:, 0, 0] for m in (bounds.lower, bounds.upper, matrix))
    gap = compatible_strain(displacement).double() - exact.strain
    c11 = exact.c11
    return {
        "midpoint": ((lower + upper) / 2 / c11 - 1).abs(),
        "estimate": (estimate / c11 - 1).abs(),
        "width": (upper - lower) / c11,
        "upper": upper / c11 - 1,
        "strain": gap.flatten(1).norm(dim=1) / exact.strain.flatten(1).norm(dim=1),
        "broken": (lower > c11 * (1 + SLACK)) | (upper < c11 * (1 - SLACK)),
    }


def _distance(
    start: Start, phases: Tensor, materials: Sequence[IsotropicElastic]
) -> Float[np.ndarray, " cell"]:
    if start.net is None:
        return np.zeros(len(phases))
    return start.net.distance(phases, materials).double().numpy()


def _stacked(rows: Sequence[Sequence[Tensor]]) -> np.ndarray:
    return np.array([[values.double().numpy() for values in row] for row in rows])
