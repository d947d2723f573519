"""Closed forms at full size: the error of every scheme against the number of voxels."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from physics import effective_conductivity

SCHEMES = ("rotated", "q1", "staggered")


@dataclass(frozen=True)
class ClosedForm:
    """A geometry with an exact conductivity; `cell(n)` gives its labels and the exact value.

    Exact values of round inclusions are those at the fraction that the voxels have.
    """

    name: str
    source: str
    contrast: float
    sides: tuple[int, ...]
    cell: Callable[[int], tuple[Tensor, float]]


@dataclass(frozen=True)
class SchemeError:
    """Relative error of one scheme's conductivity on n voxels a side."""

    case: str
    source: str
    scheme: str
    side: int
    exact: float
    error: float


def closed_forms() -> list[ClosedForm]:
    """Return the cases: checkerboard, square inclusions, discs and spheres in arrays."""
    return [
        ClosedForm("checkerboard", "Dykhne 1970", 10.0, (32, 64, 128, 256, 512), _checkerboard),
        ClosedForm("square inclusions", "Obnosov 1996", 10.0, (32, 64, 128, 256), _squares),
        ClosedForm("disc array", "Rayleigh 1892", 10.0, (64, 128, 256, 512), _discs),
        ClosedForm("sphere array", "Sangani and Acrivos 1983", 10.0, (32, 64, 96), _spheres),
    ]


def scheme_errors(case: ClosedForm, *, largest: int | None = None) -> list[SchemeError]:
    """Return the errors of all schemes on all grids up to `largest` voxels a side."""
    rows = []
    for side in case.sides:
        if largest is not None and side > largest:
            continue
        phases, exact = case.cell(side)
        for scheme in SCHEMES:
            found = effective_conductivity(
                phases, [1.0, case.contrast], scheme=scheme, tolerance=1e-5
            )
            error = float(found.value[0, 0, 0]) / exact - 1.0
            rows.append(SchemeError(case.name, case.source, scheme, side, exact, error))
    return rows


def order_of_convergence(rows: list[SchemeError], scheme: str) -> float:
    """Return the least-squares slope of log |error| against log side, with its sign turned."""
    points = [(math.log(r.side), math.log(abs(r.error))) for r in rows if r.scheme == scheme]
    x, y = zip(*points, strict=True)
    middle_x, middle_y = sum(x) / len(x), sum(y) / len(y)
    spread = sum((a - middle_x) ** 2 for a in x)
    return -sum((a - middle_x) * (b - middle_y) for a, b in points) / spread


def _checkerboard(n: int) -> tuple[Tensor, float]:
    half = torch.arange(n) < n // 2
    return (half[:, None] ^ half[None, :]).long().unsqueeze(0), math.sqrt(10.0)


def _squares(n: int) -> tuple[Tensor, float]:
    inside = torch.arange(n) < n // 2
    exact = math.sqrt((1.0 + 3.0 * 10.0) / (3.0 + 10.0))
    return (inside[:, None] & inside[None, :]).long().unsqueeze(0), exact


def _discs(n: int) -> tuple[Tensor, float]:
    phases = _ball(n, 2, math.sqrt(0.2 / math.pi))
    f, t = float(phases.double().mean()), (1.0 + 10.0) / (1.0 - 10.0)
    # Perrins, McKenzie and McPhedran (1979).
    last = 0.305827 * f**4 * t / (t * t - 1.402958 * f**8)
    return phases, 1.0 - 2.0 * f / (t + f - last - 0.013362 * f**8 / t)


def _spheres(n: int) -> tuple[Tensor, float]:
    phases = _ball(n, 3, (0.3 / (4.0 * math.pi)) ** (1 / 3))
    f = float(phases.double().mean())
    b, g = (10.0 - 1.0) / (10.0 + 2.0), (10.0 - 1.0) / (10.0 + 4.0 / 3.0)
    return phases, 1.0 + 3.0 * f / (1.0 / b - f - 1.3045 * g * f ** (10.0 / 3.0))


def _ball(n: int, dim: int, radius: float) -> Tensor:
    axis = (torch.arange(n, dtype=torch.float64) + 0.5) / n - 0.5
    grid = torch.meshgrid(*[axis] * dim, indexing="ij")
    return (sum(x.square() for x in grid) < radius**2).long().unsqueeze(0)  # type: ignore
