"""Elastic-plastic cells along a loading path: stress-strain curves and final fields."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from microstructures import DataError
from physics.mechanics.cells import joined, slabs
from physics.mechanics.discretisation import elastic_problem
from physics.mechanics.equilibrium import NewtonSettings
from physics.mechanics.hardening import ElasticPlastic
from physics.mechanics.load_stepping import Equilibrium, SteppedCells, mean_stress
from physics.mechanics.loading_path import LoadingPath
from physics.mechanics.materials import IsotropicElastic
from physics.mechanics.nodal import NodalElasticity
from physics.mechanics.radial_return import PlasticLaw


@dataclass(frozen=True)
class PlasticResponse:
    """Curves and final fields of `solve_plasticity`; Mandel, strain dimensionless, GPa.

    Curves have one entry per step, at its end; `mean_stress_33` is the one along direction 3, which
    in 2-D is out of the plane. Energies are per volume since the start, in GPa:
    `work` is the trapezoidal integral of the mean stress over the mean strain and equals
    `elastic_energy` + `plastic_work`, step for step, to the residual. `plastic_work` is the
    trapezoidal integral of stress over plastic strain; for small steps it tends to `dissipation`
    (sigma_0 p) + `hardening_energy` (the yield curve's integral beyond sigma_0 p).

    Fields are means per voxel (of the Gauss points of q1). `stress` and `plastic_strain` are whole:
    m = 4 components (11, 22, 33, √2·12) in 2-D. `displacement` is the periodic fluctuation in
    voxels at the voxels' lower corners.
    """

    mean_strain: Float[Tensor, "batch step n"]
    mean_stress: Float[Tensor, "batch step n"]
    mean_stress_33: Float[Tensor, "batch step"]
    work: Float[Tensor, "batch step"]
    elastic_energy: Float[Tensor, "batch step"]
    plastic_work: Float[Tensor, "batch step"]
    hardening_energy: Float[Tensor, "batch step"]
    dissipation: Float[Tensor, "batch step"]
    newton_iterations: Int[Tensor, "batch step"]
    cg_iterations: Int[Tensor, "batch step"]
    substeps: Int[Tensor, "batch step"]
    residual: Float[Tensor, "batch step"]
    strain: Float[Tensor, "batch n *space"]
    stress: Float[Tensor, "batch m *space"]
    plastic_strain: Float[Tensor, "batch m *space"]
    equivalent_plastic_strain: Float[Tensor, "batch *space"]
    displacement: Float[Tensor, "batch dim *space"]


@dataclass(frozen=True)
class _Curves:
    """The curves of one step."""

    mean_strain: Float[Tensor, "batch n"]
    mean_stress: Float[Tensor, "batch n"]
    mean_stress_33: Float[Tensor, " batch"]
    work: Float[Tensor, " batch"]
    elastic_energy: Float[Tensor, " batch"]
    plastic_work: Float[Tensor, " batch"]
    hardening_energy: Float[Tensor, " batch"]
    dissipation: Float[Tensor, " batch"]
    newton_iterations: Int[Tensor, " batch"]
    cg_iterations: Int[Tensor, " batch"]
    substeps: Int[Tensor, " batch"]
    residual: Float[Tensor, " batch"]


def solve_plasticity(
    phases: Shaped[Tensor, "batch *space"],
    materials: Sequence[ElasticPlastic | IsotropicElastic],
    path: LoadingPath,
    *,
    scheme: str = "rotated",
    tolerance: float = 1e-5,
    max_newton: int = 20,
    max_iterations: int = 2000,
    max_halvings: int = 6,
    progress: Callable[[int, int], None] | None = None,
) -> PlasticResponse:
    """Return the elastic-plastic response of periodic cells to a test, in GPa.

    Small strains, von Mises' yield criterion, associated flow, isotropic hardening, implicit Euler
    in the load. Each step is a convex minimisation solved by Newton's method with the consistent
    tangent, conjugate gradients with an FFT preconditioner inside, and a line search. Where that
    fails for some samples their step is halved, and halved again.

    Limits: rate-independent and isothermal, no kinematic hardening (no Bauschinger effect of a
    phase's own), no damage, no size effect; 2-D is plane strain. Where the direction of flow
    turns, the result depends on the steps, to first order in their size. Perfectly plastic cells
    have no equilibrium beyond their limit load under prescribed stress. A perfectly plastic
    phase beside pores or one far stiffer takes hundreds to thousands of iterations a step.

    Args:
        phases: integer labels `(batch, *space)`, 2-D or 3-D.
        materials: one per phase; an elastic phase may be given as `IsotropicElastic`, modulus 0
            is a pore.
        path: mean strains and stresses, `(batch or nothing, step, n)`.
        scheme: "rotated" (one point per voxel) or "q1" (2^d Gauss points, each with a state). Fully
            integrated elements resist flow, which keeps the volume (they lock): on coarse voxels
            q1 overrates the stress beyond yield, far more than in elasticity.
        tolerance: unbalanced part of the stress field, in the reference material's energy norm,
            relative to the stress field (the largest so far, if it has fallen).
        max_newton: Newton iterations of one step before it is halved.
        max_iterations: conjugate gradient iterations of one Newton step.
        max_halvings: how often a step may be halved.
        progress: called with the number of finished steps and of all steps.

    Raises:
        DataError: phases, materials, path or settings do not fit together.
        ConvergenceError: a step failed at its shortest.

    Example:
        >>> steel = IsotropicElastic(youngs_modulus_gpa=210.0, poisson_ratio=0.3)
        >>> soft, hard = (
        ...     ElasticPlastic(elastic=steel, hardening=LinearHardening(yield_stress_gpa=s,
        ...     modulus_gpa=2.0)) for s in (0.3, 0.6)
        ... )
        >>> phases = torch.randint(2, (1, 16, 16))
        >>> test = solve_plasticity(phases, [soft, hard], LoadingPath.uniaxial(strain=0.02, dim=2))
        >>> test.mean_strain[0, :, 0], test.mean_stress[0, :, 0]       # the curve
    """
    _check_settings(scheme, tolerance, max_newton, max_iterations, max_halvings)
    _check_labels(phases)
    laws = [_with_law(material) for material in materials]
    problem = elastic_problem(phases, [law.elastic for law in laws], scheme)
    assert isinstance(problem, NodalElasticity)
    _check_path(path, len(phases), problem.unknowns)
    targets = path.of_samples(len(phases), phases.device)
    law = PlasticLaw.of_voxels(phases, laws, problem.points)
    settings = NewtonSettings(tolerance, max_newton, max_iterations)
    parts = list(slabs(problem, 1))
    responses = []
    for part in parts:
        cells = SteppedCells(problem, law.select(part), settings, max_halvings)
        report = _report(progress, len(responses), len(parts), path.steps)
        responses.append(_follow(cells, targets[part], path.strain_driven, report))
    return joined(responses)


def _report(
    progress: Callable[[int, int], None] | None, part: int, parts: int, steps: int
) -> Callable[[int], None]:
    def finished(step: int) -> None:
        if progress is not None:
            progress(part * steps + step + 1, parts * steps)

    return finished


@torch.no_grad()
def _follow(
    cells: SteppedCells, targets: Tensor, driven: Tensor, report: Callable[[int], None]
) -> PlasticResponse:
    """Return the response of a slab of cells to all steps of the path."""
    driven = driven.to(targets.device)
    state, curves = cells.unloaded(), []
    for step in range(len(driven)):
        after = cells.advance(state, targets[:, step], driven[step], step)
        curves.append(_entries(cells, state, after))
        state = after
        report(step)
    return _response(cells.problem, state, curves)


def _entries(cells: SteppedCells, before: Equilibrium, after: Equilibrium) -> _Curves:
    """Return the curves' entries at the end of a step."""
    trial, law = after.trial, cells.law
    state = trial.update.state
    dissipation = law.dissipation(state).flatten(1).mean(1)
    return _Curves(
        trial.mean_strain[:, 0],
        mean_stress(cells.problem, trial),
        trial.update.stress[:, :, 2].flatten(1).mean(1),
        after.work,
        law.elastic_energy(trial.strain, trial.update).flatten(1).mean(1),
        after.plastic_work,
        law.plastic_energy(state).flatten(1).mean(1) - dissipation,
        dissipation,
        after.newton - before.newton,
        after.cg - before.cg,
        after.substeps - before.substeps,
        trial.norm / after.largest.clamp_min(torch.finfo(torch.float64).tiny),
    )


def _response(
    problem: NodalElasticity, state: Equilibrium, curves: list[_Curves]
) -> PlasticResponse:
    """Return the curves of all steps with the final fields."""
    names = _Curves.__dataclass_fields__
    stacked = {name: torch.stack([getattr(c, name) for c in curves], 1) for name in names}
    trial, plastic = state.trial, state.trial.update.state
    fields = (trial.strain, trial.update.stress, plastic.strain, plastic.equivalent.unsqueeze(2))
    strain, stress, flow, p = (problem.centred(field)[:, 0] for field in fields)
    return PlasticResponse(
        **stacked,
        strain=strain,
        stress=stress,
        plastic_strain=flow,
        equivalent_plastic_strain=p[:, 0],
        displacement=trial.displacement[:, 0],
    )


def _with_law(material: ElasticPlastic | IsotropicElastic) -> ElasticPlastic:
    match material:
        case ElasticPlastic():
            return material
        case IsotropicElastic():
            return ElasticPlastic(elastic=material)
        case _:
            raise DataError(
                f"materials: expected ElasticPlastic or IsotropicElastic, got {material!r}; "
                "plasticity of crystals is not modelled"
            )


def _check_labels(phases: Tensor) -> None:
    if phases.is_floating_point():
        raise DataError(
            f"phases: expected integer labels, got {phases.dtype}; a yield curve cannot be mixed"
        )


def _check_settings(
    scheme: str, tolerance: float, max_newton: int, max_iterations: int, max_halvings: int
) -> None:
    if scheme not in ("rotated", "q1"):
        raise DataError(
            f'scheme: expected "rotated" or "q1", got {scheme!r}; plasticity needs all strain '
            "components at one point"
        )
    if not 1e-12 <= tolerance <= 1e-2:
        raise DataError(f"tolerance: expected a number from 1e-12 to 1e-2, got {tolerance!r}")
    if min(max_newton, max_iterations) < 1 or max_halvings < 0:
        raise DataError(
            "expected max_newton >= 1, max_iterations >= 1 and max_halvings >= 0, got "
            f"{max_newton}, {max_iterations} and {max_halvings}"
        )


def _check_path(path: LoadingPath, batch: int, dim: int) -> None:
    if path.components != dim * (dim + 1) // 2:
        raise DataError(
            f"path: expected {dim * (dim + 1) // 2} Mandel components for a {dim}-D cell, got "
            f"{path.components}"
        )
    if path.targets.ndim == 3 and len(path.targets) != batch:
        raise DataError(
            f"path: expected targets of {batch} samples like the phases, got {len(path.targets)}"
        )
