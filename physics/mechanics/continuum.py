"""Guaranteed bounds of the voxel geometry's own effective property, discretisation included."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from microstructures import DataError
from physics.mechanics.cells import MAX_ITERATIONS, joined, slabs
from physics.mechanics.equilibrated import StressPotentials
from physics.mechanics.laws import AnisotropicLaw, ConductionLaw, IsotropicLaw, Law
from physics.mechanics.least_energy import LeastEnergy, least_energy
from physics.mechanics.nodal import Q1, ROTATED, NodalConduction, NodalElasticity
from physics.mechanics.problem import CellProblem
from physics.mechanics.skeleton import skeleton_bound
from physics.mechanics.trial_state import unit_loads

CONVERGED = 0.01
"""Residual at contrast 1 whose square is small against the width of the bounds."""


@dataclass(frozen=True)
class ContinuumBounds:
    """Effective matrices of voxel geometries between guaranteed bounds, in the Loewner order.

    `value` is the midpoint. `one_sided` cells have no lower bound but 0 (anisotropic ones with
    pores, or pores whose solve was ended early): their `value` is `upper`. `width` is the largest
    of (upper - lower) : load over value : load, all loads considered. `iterations` adds up those
    of both sides, `residual` is the larger one, `refinement` the number of cells along each axis
    that a voxel was cut into.
    """

    value: Float[Tensor, "batch n n"]
    lower: Float[Tensor, "batch n n"]
    upper: Float[Tensor, "batch n n"]
    width: Float[Tensor, " batch"]
    iterations: Int[Tensor, "batch n"]
    residual: Float[Tensor, "batch n"]
    one_sided: Bool[Tensor, " batch"]
    refinement: Int[Tensor, " batch"]


@dataclass(frozen=True)
class _Solves:
    """How the two solves of a bound are run."""

    tolerance: float | None
    max_iterations: int
    dtype: torch.dtype


def continuum_bounds(
    problem: CellProblem,
    *,
    tolerance: float | None = None,
    bracket_tolerance: float | None = None,
    max_refinement: int = 4,
    max_iterations: int = MAX_ITERATIONS,
    dtype: torch.dtype = torch.float64,
) -> ContinuumBounds:
    """Return guaranteed bounds of the effective property of voxels with the problem's moduli.

    Above: the energy of a continuous displacement (temperature), bi- or trilinear per voxel.
    Below: the inverse of the complementary energy of a stress (flux) in exact equilibrium with
    continuous tractions (see `equilibrated`; Hu, Man, Zhang 2014). Both energies are integrated
    exactly, and are the least over the span of the computed fields and the uniform ones, so that
    the bounds are never outside Voigt's and Reuss's.

    What is guaranteed: upper - C* and C* - lower are positive semi-definite, C* the effective
    matrix of the periodic continuum whose moduli are constant in every voxel, as the problem's law
    has them; a voxel of mixed phases is a phase of its own (Voigt's mean). This holds whatever the
    residual, in exact arithmetic: round-off, some 1e-13 of the matrix times the contrast, is not
    enclosed. Nothing is said of how well the voxels stand for another geometry.

    With pores (isotropic phases beside a modulus or conductivity of 0) the stress below vanishes
    in them (see `skeleton`). Its balance is then that of a residual of 1e-9, which is accounted
    for by an estimate, not by a proof; a load that nothing carries has a lower bound of about -0.

    Args:
        problem: the cells on the q1 scheme (`elastic_problem(..., "q1")`,
            `conduction_problem(..., "q1")`).
        tolerance: relative residual of both solves: bounds of any residual hold, of a small one
            are narrow. None takes 0.01 / sqrt(contrast).
        bracket_tolerance: cells of larger `width` are solved again with each voxel cut into 2,
            then 4, ... along every axis, which is the same geometry, until the width is met or
            `max_refinement` reached: `width` says what was.
        max_iterations: per solve; one that ends early leaves wider bounds, no error.
        dtype: precision of the iterations; the energies are float64.

    Raises:
        DataError: not the q1 scheme, or settings out of range.

    Example:
        >>> problem = elastic_problem(torch.randint(2, (1, 16, 16)), [soft, stiff], "q1")
        >>> bounds = continuum_bounds(problem, bracket_tolerance=0.2)
        >>> bounds.lower[0, 0, 0], bounds.upper[0, 0, 0], bounds.refinement
    """
    cells = _checked(problem, tolerance, bracket_tolerance, max_refinement, max_iterations, dtype)
    cells = _changed(cells, lambda field: field.detach())
    solves = _Solves(tolerance, max_iterations, dtype)
    with torch.no_grad():
        bounds = _bounds(cells, 1, solves)
        times = 2
        while bracket_tolerance is not None and times <= max_refinement:
            wide = ((bounds.width > bracket_tolerance) & ~bounds.one_sided).nonzero().flatten()
            if not len(wide):
                break
            bounds = _replaced(bounds, wide, _bounds(_chosen(cells, wide), times, solves))
            times *= 2
    return bounds


def refined(law: Law, times: int) -> Law:
    """Return the law with each voxel cut into `times` along every axis: the same geometry."""
    dim = len(law.shape)

    def repeated(field: Tensor) -> Tensor:
        for axis in range(-dim, 0):
            field = field.repeat_interleave(times, axis)
        return field

    return law.map(repeated)


def loewner_width(
    lower: Float[Tensor, "*batch n n"], upper: Float[Tensor, "*batch n n"]
) -> Float[Tensor, "*batch"]:
    """Return the largest of (upper - lower) : load over (upper + lower) / 2 : load, all loads.

    Loads that a millionth of the stiffest one's energy carries count as if it were that.
    """
    values, vectors = torch.linalg.eigh(0.5 * (upper + lower))
    floor = 1e-6 * values[..., -1:].clamp_min(torch.finfo(values.dtype).tiny)
    root = vectors / torch.maximum(values, floor).sqrt().unsqueeze(-2)
    return torch.linalg.eigvalsh(root.mT @ (upper - lower) @ root)[..., -1]


Q1Cells = NodalElasticity | NodalConduction


def _bounds(cells: Q1Cells, times: int, solves: _Solves) -> ContinuumBounds:
    """Return the bounds of cells whose voxels are cut into `times` along every axis."""
    cells = replace(cells, law=refined(cells.law, times))
    every = torch.arange(cells.batch, device=cells.device)
    parts = slabs(cells, cells.components)
    return joined([_slab_bounds(_chosen(cells, every[part]), times, solves) for part in parts])


def _slab_bounds(cells: Q1Cells, times: int, solves: _Solves) -> ContinuumBounds:
    above = _upper(cells, solves)
    upper, porous = above.energy, cells.has_pores()
    lower, one_sided = torch.zeros_like(upper), torch.zeros_like(porous)
    iterations, residual = above.iterations, above.residual
    for group, bound in ((~porous, _lower), (porous, _porous_lower)):
        samples = group.nonzero().flatten()
        below = bound(_chosen(cells, samples), solves) if len(samples) else None
        if below is None:
            one_sided = one_sided.index_fill(0, samples, True)
            continue
        lower = lower.index_copy(0, samples, below.energy)
        iterations = iterations.index_add(0, samples, below.iterations)
        largest = torch.maximum(residual[samples], below.residual)
        residual = residual.index_copy(0, samples, largest)
    return ContinuumBounds(
        torch.where(one_sided.view(-1, 1, 1), upper, 0.5 * (lower + upper)),
        lower,
        upper,
        loewner_width(lower, upper),
        iterations,
        residual,
        one_sided,
        torch.full_like(iterations[:, 0], times),
    )


def _upper(cells: Q1Cells, solves: _Solves) -> LeastEnergy:
    """Return the energies of continuous displacements."""
    macro = unit_loads(cells.batch, cells.components, cells.device)
    # A uniform strain's stress is constant per voxel: one quadrature point gives the same forces.
    single = replace(cells, element=ROTATED)
    stress = single.stress(single.spread(macro))
    return least_energy(
        cells,
        single.divergence(stress),
        single.energies(single.spread(macro), stress),
        tolerance=_tolerance(cells.law, solves),
        max_iterations=solves.max_iterations,
        dtype=solves.dtype,
    )


def _lower(cells: Q1Cells, solves: _Solves) -> LeastEnergy:
    """Return the inverse of the complementary energies of equilibrated stresses."""
    ratio = cells.ratio if isinstance(cells, NodalElasticity) else 0.0
    potentials = StressPotentials.of_law(cells.law, ratio)
    force, uniform = potentials.load(unit_loads(cells.batch, cells.components, cells.device))
    found = least_energy(
        potentials,
        force,
        uniform,
        tolerance=_tolerance(cells.law, solves),
        max_iterations=solves.max_iterations,
        dtype=solves.dtype,
    )
    inverse = torch.linalg.inv(found.energy)
    return replace(found, energy=0.5 * (inverse + inverse.mT))


def _porous_lower(cells: Q1Cells, solves: _Solves) -> LeastEnergy | None:
    """Return the bounds from stresses that vanish in pores."""
    ratio = cells.ratio if isinstance(cells, NodalElasticity) else 0.0
    steps = solves.max_iterations
    return skeleton_bound(cells.law, ratio, max_iterations=steps, dtype=solves.dtype)


def _tolerance(law: Law, solves: _Solves) -> Float[Tensor, " batch"]:
    """Return the residual per sample; an energy's relative error grows as residual^2 contrast."""
    match law:
        case IsotropicLaw(_, shear):
            moduli = shear[:, :1]
        case ConductionLaw(conductivity):
            moduli = conductivity
        case AnisotropicLaw(stiffness):
            moduli = stiffness.diagonal(dim1=1, dim2=2)
        case _:
            raise DataError(f"law: no contrast known of a {type(law).__name__}")
    flat = moduli.flatten(1)
    if solves.tolerance is not None:
        return torch.full_like(flat[:, 0], solves.tolerance)
    contrast = flat.amax(1) / torch.where(flat > 0.0, flat, torch.inf).amin(1)
    # Around pores fields vary as they do at a contrast of some hundreds.
    contrast = torch.where(flat.amin(1) > 0.0, contrast, contrast.clamp_min(300.0))
    return (CONVERGED / contrast.sqrt()).clamp_min(1e-3 * CONVERGED)


def _changed(cells: Q1Cells, change: Callable[[Tensor], Tensor]) -> Q1Cells:
    return replace(cells, law=cells.law.map(change))


def _chosen(cells: Q1Cells, samples: Int[Tensor, " some"]) -> Q1Cells:
    return _changed(cells, lambda field: field[samples])


def _replaced(
    bounds: ContinuumBounds, samples: Int[Tensor, " some"], others: ContinuumBounds
) -> ContinuumBounds:
    """Return the bounds with those of some samples exchanged."""
    names = bounds.__dataclass_fields__
    return ContinuumBounds(
        **{k: getattr(bounds, k).index_copy(0, samples, getattr(others, k)) for k in names}
    )


def _checked(
    problem: CellProblem,
    tolerance: float | None,
    bracket_tolerance: float | None,
    max_refinement: int,
    max_iterations: int,
    dtype: torch.dtype,
) -> Q1Cells:
    if not isinstance(problem, NodalElasticity | NodalConduction) or problem.element != Q1:
        raise DataError('problem: expected cells of the scheme "q1" for bounds of the continuum')
    for name, value in (("tolerance", tolerance), ("bracket_tolerance", bracket_tolerance)):
        if value is not None and not 1e-12 <= value < 1.0:
            raise DataError(f"{name}: expected a number from 1e-12 to below 1, got {value!r}")
    for name, value in (("max_refinement", max_refinement), ("max_iterations", max_iterations)):
        if value < 1:
            raise DataError(f"{name}: expected at least 1, got {value!r}")
    if dtype not in (torch.float32, torch.float64):
        raise DataError(f"dtype: expected torch.float32 or torch.float64, got {dtype}")
    return problem
