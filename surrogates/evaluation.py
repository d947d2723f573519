"""How good a field surrogate is: fields and brackets against the solver, and what they cost."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor

from microstructures.seeds import generator_for
from physics.mechanics import IsotropicElastic, effective_stiffness, solve_elasticity
from physics.processes.campaign import process_points
from physics.processes.spinodal import SpinodalDecomposition
from surrogates.fields import FieldSurrogate

CONVERGED = 1e-6  # residual of the fields that errors are measured against
TOLERANCES = (0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 3e-3, 1e-3, 1e-4)


@dataclass(frozen=True)
class FieldReport:
    """Accuracy and cost on one family of cells; errors are shares of the converged answer.

    Means are over cells, "highest" over the cells and both ways round of the contrast. The
    bracket counts as broken where the converged C11 lies outside it. The solver's cost at an
    equal bracket is that of the loosest tolerance whose mean C11 bracket is no wider; all costs
    are process CPU milliseconds per cell, for all load cases, bracket included.
    """

    cells: int
    contrast: float
    strain_error: float
    strain_error_highest: float
    c11_bracket_width: float
    c11_bracket_width_highest: float
    c11_error: float
    c11_error_highest: float
    brackets_broken: int
    distance_median: float
    share_beyond_distance_1: float
    predict_ms: float
    predict_uncertified_ms: float
    solver_equal_bracket_ms: float
    solver_equal_bracket_tolerance: float
    solver_1e4_ms: float
    iterations_cold: float
    iterations_from_prediction: float


def evaluate_fields(
    surrogate: FieldSurrogate,
    phases: Shaped[Tensor, "cell *space"],
    *,
    contrast: float = 10.0,
    poisson_ratio: float = 0.3,
) -> FieldReport:
    """Compare a surrogate with the solver on two-phase cells, phase 1 stiff and phase 0 stiff.

    Strain error: relative L2 error of the strain fields of all unit loads at voxel centres.
    Costs are measured here and now: compare them with each other only.
    """
    soft, stiff = (
        IsotropicElastic(youngs_modulus_gpa=e, poisson_ratio=poisson_ratio) for e in (1.0, contrast)
    )
    parts = [_compare(surrogate, phases, materials) for materials in ([soft, stiff], [stiff, soft])]
    joined = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    materials = [soft, stiff]
    width = float(joined["width"].mean())
    tolerance, solver_ms = _solver_at(phases, materials, width)
    return FieldReport(
        cells=len(phases),
        contrast=contrast,
        strain_error=float(joined["strain"].mean()),
        strain_error_highest=float(joined["strain"].max()),
        c11_bracket_width=width,
        c11_bracket_width_highest=float(joined["width"].max()),
        c11_error=float(joined["estimate"].mean()),
        c11_error_highest=float(joined["estimate"].max()),
        brackets_broken=int(joined["broken"].sum()),
        distance_median=float(joined["distance"].median()),
        share_beyond_distance_1=float((joined["distance"] > 1).double().mean()),
        predict_ms=_cpu_ms(lambda: surrogate.predict(phases, materials), len(phases)),
        predict_uncertified_ms=_cpu_ms(
            lambda: surrogate.predict(phases, materials, certify=False), len(phases)
        ),
        solver_equal_bracket_ms=solver_ms,
        solver_equal_bracket_tolerance=tolerance,
        solver_1e4_ms=_cpu_ms(
            lambda: effective_stiffness(phases, materials, dtype=torch.float32), len(phases)
        ),
        iterations_cold=float(joined["cold"].double().mean()),
        iterations_from_prediction=float(joined["warm"].double().mean()),
    )


def shipped_reports(
    name: str = "elastic-2d-fno", *, n: int = 64, side: int = 64
) -> dict[str, FieldReport]:
    """Return the reports of the shipped weights' card (about three minutes).

    Held out: spinodal cells 3072 to 3072 + n of the campaign whose first 1700 trained the model.
    Unseen family: overlapping discs, also at twice the side. Outside the trained range: contrast
    1000.

    >>> print(report_table(shipped_reports()))  # doctest: +SKIP
    """
    surrogate = FieldSurrogate.from_pretrained(name)
    process = SpinodalDecomposition()
    points = process_points(process.space, 3072 + n, seed=1)[3072:]
    cells = process.simulate(points, shape=(side, side), seed=1, first=3072)
    spinodal = torch.stack([torch.from_numpy(cell.phases) for cell in cells])
    discs = overlapping_discs(n, shape=(side, side), seed=1)
    large = overlapping_discs(max(1, n // 4), shape=(2 * side, 2 * side), seed=2)
    return {
        "held-out spinodal": evaluate_fields(surrogate, spinodal),
        "held-out spinodal, contrast 100": evaluate_fields(surrogate, spinodal, contrast=100.0),
        "unseen family: discs": evaluate_fields(surrogate, discs),
        "unseen size: discs, twice the side": evaluate_fields(surrogate, large),
        "outside: spinodal, contrast 1000": evaluate_fields(surrogate, spinodal, contrast=1000.0),
    }


def report_table(reports: Mapping[str, FieldReport]) -> str:
    """Return reports by family as a Markdown table."""
    names = [entry.name for entry in fields(FieldReport)]
    columns = [asdict(report) for report in reports.values()]
    head = ["| | " + " | ".join(reports) + " |", "|---|" + "---|" * len(reports)]
    rows = [
        f"| {name.replace('_', ' ')} | " + " | ".join(f"{c[name]:.3g}" for c in columns) + " |"
        for name in names
    ]
    return "\n".join(head + rows) + "\n"


def overlapping_discs(
    n: int, *, shape: tuple[int, int], seed: int
) -> UInt8[Tensor, "cell height width"]:
    """Return periodic cells of overlapping discs (phase 1), a family that no training has seen.

    Each cell has one radius, uniform in 4 to 8 voxels, and as many discs as make a fraction
    uniform in 0.2 to 0.6 on average.
    """
    grid = torch.meshgrid(*(torch.arange(side) + 0.5 for side in shape), indexing="ij")
    cells = []
    for k in range(n):
        u = torch.rand(2, generator=generator_for(seed, "discs", k))
        radius, fraction = 4 + 4 * float(u[0]), 0.2 + 0.4 * u[1]
        area = torch.pi * radius**2 / (shape[0] * shape[1])
        count = max(1, round(float(-torch.log1p(-fraction) / area)))
        centres = torch.rand(count, 2, generator=generator_for(seed, "centres", k))
        squares = torch.zeros(count, *shape)
        for axis, side in enumerate(shape):
            gap = (grid[axis] - side * centres[:, axis].view(-1, 1, 1)).abs()
            squares += torch.minimum(gap, side - gap).square()
        cells.append((squares.amin(0) < radius**2).to(torch.uint8))
    return torch.stack(cells)


def _compare(
    surrogate: FieldSurrogate, phases: Tensor, materials: Sequence[IsotropicElastic]
) -> dict[str, Tensor]:
    found = surrogate.predict(phases, materials)
    exact = solve_elasticity(phases, materials, tolerance=CONVERGED)
    stiffness = effective_stiffness(
        phases, materials, tolerance=CONVERGED, displacement=exact.displacement
    ).value
    c11 = stiffness[:, 0, 0]
    assert found.lower is not None
    assert found.upper is not None
    lower, upper = found.lower[:, 0, 0], found.upper[:, 0, 0]
    cold = solve_elasticity(phases, materials)
    warm = solve_elasticity(phases, materials, displacement=found.displacement)
    return {
        "strain": _relative(found.strain.double() - exact.strain, exact.strain),
        "width": (upper - lower) / c11,
        "estimate": (found.effective[:, 0, 0] / c11 - 1).abs(),
        # The reference itself is converged to about the square of its residual.
        "broken": (lower > c11 * (1 + CONVERGED)) | (upper < c11 * (1 - CONVERGED)),
        "distance": found.distance,
        "cold": cold.iterations,
        "warm": warm.iterations,
    }


def _solver_at(
    phases: Tensor, materials: Sequence[IsotropicElastic], width: float
) -> tuple[float, float]:
    """Return the loosest tolerance whose mean C11 bracket is no wider, and its cost (ms)."""
    for tolerance in TOLERANCES:
        solved = effective_stiffness(phases, materials, tolerance=tolerance, dtype=torch.float32)
        reached = (solved.upper - solved.lower)[:, 0, 0] / solved.upper[:, 0, 0]
        if float(reached.mean()) <= width:
            break
    cost = _cpu_ms(
        lambda: effective_stiffness(phases, materials, tolerance=tolerance, dtype=torch.float32),
        len(phases),
    )
    return tolerance, cost


def _cpu_ms(work: Callable[[], object], cells: int) -> float:
    """Return the least CPU time of three calls, per cell."""
    spent = []
    for _ in range(3):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return 1000 * min(spent) / cells


def _relative(error: Tensor, exact: Tensor) -> Float[Tensor, " cell"]:
    return error.flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)
