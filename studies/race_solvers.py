"""Race of the FFT solvers against muGrid: the same voxels, stopped at the same accuracy.

Every contestant is stopped by the loosest residual on one ladder (half decades; each code measures
its residual in its own way) that brings its effective stiffness within `ACCURACY` of its own
converged one. CPU seconds of one thread, the set-up of the reference material included for all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from microstructures.seeds import generator_for
from physics import IsotropicElastic, effective_stiffness, solve_elasticity
from physics.mechanics.green import elastic_green
from physics.mechanics.grid import SHEAR_PAIRS, difference_symbols
from physics.mechanics.nodal_green import corner_elastic_green
from studies.stopwatch import installed_version, one_thread, race

ACCURACY = 1e-6
"""Largest entry of the error, relative to the largest entry of the converged stiffness."""

LADDER = tuple(m * 10.0**-k for k in range(2, 8) for m in (1.0, 0.3))
CONVERGED = 1e-7
"""Residual of the converged values: their own error is about its square."""

PEERS = ("muGrid", "muGrid mean stress", "muGrid float32")
"""muGrid with the stiffness from energies, whose error is quadratic in the residual; from mean
stresses, as its own examples take it; and in single precision, from energies."""

SHARE, CORRELATION_LENGTH = 0.40, 3.0
SOFT = IsotropicElastic(youngs_modulus_gpa=1.0, poisson_ratio=0.3)


@dataclass(frozen=True)
class StiffnessRow:
    """One contestant at one task; seconds are None where the code is absent or fails (`note`).

    `contrast` is that of Young's moduli, 0 for pores; `iterations` the most that any load took.
    """

    code: str
    scheme: str
    shape: tuple[int, ...]
    contrast: float
    cpu_seconds: float | None
    iterations: int | None = None
    value_error: float | None = None
    tolerance: float | None = None
    note: str = ""


@dataclass(frozen=True)
class CampaignRow:
    """Fields of many cells: CPU seconds for 10,000 of them, from a sample of `cells`.

    `field_error` is the largest relative L2 error of a strain field, all cells and loads.
    """

    cells: int
    side: int
    contrast: float
    tolerance: float
    field_error: float
    iterations: int
    cpu_seconds: float
    ms_per_load_case: float


@dataclass(frozen=True)
class Solved:
    """A stiffness and the most iterations that a load case took."""

    stiffness: Tensor
    iterations: int


@dataclass(frozen=True)
class Contestant:
    """A code and scheme: how to solve to a residual, and how to converge."""

    code: str
    scheme: str
    solve: Callable[[float], Solved]
    converge: Callable[[float], Solved]


def threshold_cells(n: int, shape: tuple[int, ...], seed: int) -> Tensor:
    """Return n cells `(n, *shape)`, 1 in the highest `SHARE` of a smoothed Gaussian field."""
    axes = tuple(range(-len(shape), 0))
    k = torch.meshgrid(*[torch.fft.fftfreq(m, dtype=torch.float64) for m in shape], indexing="ij")
    blur = torch.exp(-2.0 * (torch.pi * CORRELATION_LENGTH) ** 2 * torch.stack(k).square().sum(0))
    cells = []
    for index in range(n):
        white = torch.randn(shape, generator=generator_for("race", seed, index)).double()
        field = torch.fft.ifftn(torch.fft.fftn(white, dim=axes) * blur, dim=axes).real.flatten()
        top = field.argsort(descending=True)[: round(SHARE * len(field))]
        cells.append(torch.zeros(len(field), dtype=torch.long).index_fill(0, top, 1).view(shape))
    return torch.stack(cells)


def phase_pair(contrast: float) -> list[IsotropicElastic]:
    """Return the phases 0 and 1: stiffer inclusions, or pores for contrast 0."""
    return [SOFT, IsotropicElastic(youngs_modulus_gpa=contrast, poisson_ratio=0.3)]


def race_stiffness(
    shape: tuple[int, ...],
    contrast: float,
    *,
    schemes: Sequence[str] = ("staggered", "q1"),
    peers: Sequence[str] = PEERS,
    seed: int = 0,
    repetitions: int = 3,
    dtype: torch.dtype = torch.float32,
) -> list[StiffnessRow]:
    """Race for the full stiffness of one threshold Gaussian field, from zero start.

    `dtype` is that of our iterations; our residuals and values are float64 in any case.
    """
    phases, materials = threshold_cells(1, shape, seed), phase_pair(contrast)
    entrants = [_own(phases, materials, scheme, dtype) for scheme in schemes]
    with one_thread():
        if installed_version("muGrid") is not None:
            entrants += [_peer(phases[0], materials, peer) for peer in peers]
            return _raced(entrants, shape, contrast, repetitions)
        absent = [_peer(phases[0], materials, peer) for peer in peers]
        return _raced(entrants, shape, contrast, repetitions) + [
            StiffnessRow(e.code, e.scheme, shape, contrast, None, note="absent") for e in absent
        ]


def race_many_cells(
    n_cells: int = 256,
    *,
    side: int = 64,
    contrast: float = 10.0,
    accuracy: float = 1e-4,
    seed: int = 0,
    repetitions: int = 3,
) -> CampaignRow:
    """Time the fields of all three load cases of many 2-D cells, in float32.

    The tolerance is the loosest of the ladder whose strain fields are within `accuracy` of
    converged ones in every cell and load case.
    """
    phases, materials = threshold_cells(n_cells, (side, side), seed), phase_pair(contrast)
    exact = solve_elasticity(phases, materials, tolerance=CONVERGED).strain
    size = torch.linalg.vector_norm(exact.flatten(2), dim=-1)

    def solve(tolerance: float):
        return solve_elasticity(phases, materials, tolerance=tolerance, dtype=torch.float32)

    with one_thread():
        for tolerance in LADDER:
            fields = solve(tolerance)
            miss = torch.linalg.vector_norm((fields.strain - exact).flatten(2), dim=-1) / size
            if float(miss.max()) <= accuracy:
                break
        seconds = race({"own": lambda: solve(tolerance)}, repetitions=repetitions)["own"]
    return CampaignRow(
        n_cells,
        side,
        contrast,
        tolerance,
        float(miss.max()),
        int(fields.iterations.max()),
        seconds * 10_000 / n_cells,
        seconds * 1_000 / n_cells / exact.shape[1],
    )


def mugrid_stiffness(
    phases: Tensor,
    materials: Sequence[IsotropicElastic],
    tolerance: float,
    *,
    dtype: Any = np.float64,
    from_energy: bool = True,
) -> Solved:
    """Return the Mandel stiffness of labels `(*space)` by muGrid's trilinear elements.

    Its fused isotropic stiffness, its reference-material preconditioner and its conjugate
    gradients, `tolerance` relative to the norm of the right-hand side (Leute et al. 2022,
    doi:10.1016/j.jcp.2022.111151; Ladecky et al. 2023, doi:10.1016/j.amc.2023.127835). The mean
    stresses are those of the code; with `from_energy` the work of its residuals is taken off.
    """
    import muGrid  # pyright: ignore[reportMissingImports]
    from muGrid.Solvers import conjugate_gradients  # pyright: ignore[reportMissingImports]

    dim = phases.ndim
    cell = _mugrid_cell(phases, materials, dtype)
    engine, stiffness, moduli = cell.engine, cell.stiffness, [m._cpp for m in cell.moduli]
    loads, counts = _unit_strains(dim), []
    value = np.zeros((len(loads), len(loads)))
    moved, left = [], []
    force = engine.real_space_field("force", components=(dim,), dtype=dtype)
    for j, strain in enumerate(loads):
        u, r = (
            engine.real_space_field(f"{name}{j}", components=(dim,), dtype=dtype)
            for name in ("displacement", "residual")
        )
        u.set_zero()
        macro = strain.ravel().tolist()
        stiffness.apply_macro_rhs(*moduli, macro, force._cpp)
        muGrid.linalg.scal(-1.0, force)
        steps = [0]
        conjugate_gradients(
            cell.comm,
            engine.real_space_collection,
            force,
            u,
            cell.multiply,
            cell.green,
            rtol=tolerance,
            maxiter=2000,
            callback=lambda count, _, steps=steps: steps.append(count),
            residual=r,
        )
        counts.append(steps[-1])
        engine.communicate_ghosts(u)
        stress = stiffness.average_stress(u._cpp, *moduli, macro)
        value[:, j] = [np.dot(np.ravel(other), stress) for other in loads]
        moved.append(u)
        left.append(r)
    if from_energy:
        value -= [[muGrid.linalg.vecdot(u, r) for r in left] for u in moved]
    return Solved(torch.from_numpy(value / phases.numel()), max(counts))


@dataclass(frozen=True)
class _MuGridCell:
    """muGrid's objects for one cell: its grid, moduli, stiffness and preconditioner."""

    comm: Any
    engine: Any
    stiffness: Any
    moduli: tuple[Any, Any]
    green: Any

    def multiply(self, u: Any, force: Any) -> None:
        self.engine.communicate_ghosts(u)
        self.stiffness.apply(u, *self.moduli, force)


def _mugrid_cell(phases: Tensor, materials: Sequence[IsotropicElastic], dtype: Any) -> _MuGridCell:
    import muGrid  # pyright: ignore[reportMissingImports]
    from muGrid.Preconditioners import (  # pyright: ignore[reportMissingImports]
        make_reference_stiffness_preconditioner,
    )

    unit = [1.0] * phases.ndim
    lames, shears = ([getattr(m, name) for m in materials] for name in ("lame", "shear"))
    stiffness = muGrid.IsotropicStiffnessOperator(phases.ndim, unit)
    comm = muGrid.Communicator()
    engine = muGrid.FFTEngine(list(phases.shape), comm, ghosts=stiffness)
    lame, shear = (engine.real_space_field(name, dtype=dtype) for name in ("lame", "shear"))
    for field, values in ((lame, lames), (shear, shears)):
        field.s[...] = np.asarray(values)[phases.numpy()]
        engine.communicate_ghosts(field)
    green = make_reference_stiffness_preconditioner(
        engine,
        element=muGrid.FEMElement.q1,
        grid_spacing=unit,
        lambda_ref=0.5 * (min(lames) + max(lames)),
        mu_ref=0.5 * (min(shears) + max(shears)),
        dtype=dtype,
    )
    return _MuGridCell(comm, engine, stiffness, (lame, shear), green)


def _own(
    phases: Tensor, materials: list[IsotropicElastic], scheme: str, dtype: torch.dtype
) -> Contestant:
    def solve(tolerance: float, dtype: torch.dtype = dtype) -> Solved:
        for symbols in (elastic_green, corner_elastic_green, difference_symbols):
            symbols.cache_clear()
        found = effective_stiffness(
            phases, materials, scheme=scheme, tolerance=tolerance, dtype=dtype, lower=False
        )
        return Solved(found.value[0], int(found.iterations.max()))

    return Contestant("mesoforge", scheme, solve, lambda tol: solve(tol, torch.float64))


def _peer(phases: Tensor, materials: list[IsotropicElastic], peer: str) -> Contestant:
    single, energy = peer.endswith("float32"), not peer.endswith("mean stress")

    def solve(tolerance: float) -> Solved:
        dtype = np.float32 if single else np.float64
        return mugrid_stiffness(phases, materials, tolerance, dtype=dtype, from_energy=energy)

    return Contestant(peer, "q1", solve, lambda tol: mugrid_stiffness(phases, materials, tol))


def _raced(
    entrants: list[Contestant], shape: tuple[int, ...], contrast: float, repetitions: int
) -> list[StiffnessRow]:
    rows, works = {}, {}
    for entrant in entrants:
        code, scheme = entrant.code, entrant.scheme
        try:
            tolerance, error, iterations = _loosest(entrant)
        except RuntimeError as fault:
            note = f"fails: {str(fault)[:100]}"
            rows[code, scheme] = StiffnessRow(code, scheme, shape, contrast, None, note=note)
            continue
        works[code, scheme] = lambda solve=entrant.solve, tolerance=tolerance: solve(tolerance)
        rows[code, scheme] = StiffnessRow(
            code, scheme, shape, contrast, 0.0, iterations, error, tolerance
        )
    taken = race({" ".join(key): work for key, work in works.items()}, repetitions=repetitions)
    return [
        replace(row, cpu_seconds=taken[" ".join(key)]) if key in works else row
        for key, row in rows.items()
    ]


def _loosest(entrant: Contestant) -> tuple[float, float, int]:
    """Return the loosest tolerance that meets `ACCURACY`, its error, and its iterations."""
    converged = entrant.converge(CONVERGED).stiffness
    found, low, high = None, 0, len(LADDER)
    while low < high:  # errors fall with the residual: bisection
        middle = (low + high) // 2
        solved = entrant.solve(LADDER[middle])
        error = float((solved.stiffness - converged).abs().max() / converged.abs().max())
        if error <= ACCURACY:
            found, high = (LADDER[middle], error, solved.iterations), middle
        else:
            low = middle + 1
    if found is None:
        raise RuntimeError(
            f"no residual down to {LADDER[-1]:g} brings the value within {ACCURACY:g}"
        )
    return found


def _unit_strains(dim: int) -> list[np.ndarray]:
    """Return the unit Mandel strains as matrices."""
    strains = [np.diag(row) for row in np.eye(dim)]
    for i, j in SHEAR_PAIRS[dim]:
        shear = np.zeros((dim, dim))
        shear[i, j] = shear[j, i] = 0.5**0.5
        strains.append(shear)
    return strains
