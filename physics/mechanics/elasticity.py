"""Linear elasticity of periodic voxel cells: fields and effective stiffness."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from physics.mechanics.cells import MAX_ITERATIONS, check_settings, joined, slabs, solve_cells
from physics.mechanics.crystals import ElasticMaterial
from physics.mechanics.discretisation import eigenstress, elastic_problem
from physics.mechanics.effective import (
    EffectiveProperty,
    bracketed_property,
    check_bracket,
    effective_property,
)
from physics.mechanics.problem import CellProblem
from physics.mechanics.trial_state import TrialState, unit_loads


@dataclass(frozen=True)
class ElasticFields:
    """Fields of `solve_elasticity`: Mandel, strain dimensionless, stress in GPa.

    `strain` and `stress` are means per voxel (of the edge values of shear on the staggered grid,
    of the Gauss points of q1): their volume means are the macroscopic strain and stress.
    `displacement` is the periodic fluctuation in voxels at the scheme's nodes: staggered,
    component i on the lower faces normal to axis i; q1 and rotated, on the voxels' lower corners.
    """

    strain: Float[Tensor, "batch load n *space"]
    stress: Float[Tensor, "batch load n *space"]
    displacement: Float[Tensor, "batch load dim *space"]
    iterations: Int[Tensor, "batch load"]
    residual: Float[Tensor, "batch load"]


def solve_elasticity(
    phases: Shaped[Tensor, "batch *dims"],
    materials: Sequence[ElasticMaterial],
    macro_strain: Float[Tensor, "batch load n"] | None = None,
    *,
    scheme: str = "staggered",
    tolerance: float = 1e-4,
    orientations: Float[Tensor, "batch 4 *space"] | None = None,
    eigenstrain: Float[Tensor, "..."] | Sequence[float | int] | None = None,
    displacement: Float[Tensor, "batch load dim *space"] | None = None,
    max_iterations: int = MAX_ITERATIONS,
    dtype: torch.dtype = torch.float64,
) -> ElasticFields:
    """Return the elastic fields of periodic cells under macroscopic strains.

    Solves div C : (E + grad u - eigenstrain) = 0 by conjugate gradients with an FFT preconditioner.

    Args:
        phases: integer labels `(batch, *space)` or float fractions `(batch, phase, *space)`,
            mixed by Voigt's rule.
        materials: one per phase (`IsotropicElastic`, modulus 0 is a pore; `CubicElastic`;
            `TransverselyIsotropicElastic`).
        macro_strain: Mandel, `(batch, load, n)`; all unit loads when None.
        scheme: "staggered" (safe with pores, cheapest), "q1" (conforming: an upper bound of the
            voxel geometry's energy) or "rotated" (one point per voxel; on even grids fields may
            carry an alternating mode).
        tolerance: residual force relative to that of zero displacement, in the energy norm of the
            reference material.
        orientations: unit quaternions (w, x, y, z) per voxel, crystal to sample axes; all axes
            aligned when None.
        eigenstrain: stress-free strain (see `effective_stiffness`), the same in all load cases;
            `.strain` is the total strain.
        displacement: a start, for instance a surrogate's field; zero when None.
        dtype: precision of the iterations and of the returned fields.

    Raises:
        DataError: shapes or settings do not fit.
        ConvergenceError: not converged within `max_iterations`.

    Example:
        >>> phases = torch.randint(2, (1, 16, 16))
        >>> soft, stiff = (IsotropicElastic(youngs_modulus_gpa=e) for e in (1.0, 10.0))
        >>> solve_elasticity(phases, [soft, stiff]).stress.shape
        torch.Size([1, 3, 3, 16, 16])
    """
    problem = elastic_problem(phases, materials, scheme, orientations).detach()
    macro = (
        unit_loads(len(phases), problem.components, phases.device)
        if macro_strain is None
        else macro_strain.to(torch.float64)
    )
    limits = {"tolerance": tolerance, "max_iterations": max_iterations, "dtype": dtype}
    check_settings(problem, macro, displacement, **limits)
    prestress = None
    if eigenstrain is not None:
        voxels = eigenstress(phases, materials, eigenstrain, orientations)
        prestress = problem.voxel_stress(voxels)
    return _solve_slabs(problem, macro, displacement, prestress, **limits)


@torch.no_grad()
def _solve_slabs(
    problem: CellProblem,
    macro: Tensor,
    displacement: Tensor | None,
    prestress: Tensor | None,
    **limits: Any,
) -> ElasticFields:
    fields, records = [], []
    for part in slabs(problem, macro.shape[1]):
        states, record = solve_cells(
            problem.select(part),
            macro[part],
            displacement=None if displacement is None else displacement[part].double(),
            prestress=None if prestress is None else prestress[part],
            **limits,
        )
        fields.append(_centred(problem, states, limits["dtype"]))
        records.append(record)
    strain, stress, moved = (torch.cat(parts) for parts in zip(*fields, strict=True))
    record = joined(records)
    return ElasticFields(strain, stress, moved, record.iterations, record.residual)


def _centred(problem: CellProblem, states: list[TrialState], dtype: torch.dtype) -> list[Tensor]:
    """Return strain and stress at the voxel centres, and the displacement, of all loads."""
    runs = (
        [problem.centred(state.strain).to(dtype) for state in states],
        [problem.centred_stress(state.stress).to(dtype) for state in states],
        [state.displacement.to(dtype) for state in states],
    )
    return [torch.cat(run, 1) for run in runs]


def effective_stiffness(
    phases: Shaped[Tensor, "batch *dims"],
    materials: Sequence[ElasticMaterial],
    *,
    scheme: str = "staggered",
    tolerance: float | None = None,
    bracket: bool = False,
    bracket_tolerance: float | None = None,
    lower: bool = True,
    orientations: Float[Tensor, "batch 4 *space"] | None = None,
    eigenstrain: Float[Tensor, "..."] | Sequence[float | int] | None = None,
    displacement: Float[Tensor, "batch n dim *space"] | None = None,
    max_iterations: int = MAX_ITERATIONS,
    dtype: torch.dtype = torch.float64,
) -> EffectiveProperty:
    """Return the effective Mandel stiffness in GPa, `(batch, n, n)`, with bounds.

    With `bracket=True` the bounds are those of the voxel geometry's own continuum, whatever the
    scheme: a conforming q1 displacement above, an equilibrated stress below (see
    `continuum_bounds` for what exactly is guaranteed). `bracket_tolerance` refines the voxels of
    cells whose relative `width` is above it, up to 4 times; `width` says what was reached.
    `tolerance` None is 1e-4, and 0.01 / sqrt(contrast) in a bracket. `lower=False` leaves out the
    discrete lower bound (`one_sided`), for about one iteration less.

    Other arguments and errors as in `solve_elasticity`, with all unit loads. At the discrete level
    `.value` is differentiable with respect to float fractions by the self-adjoint identity
    dC* = <eps : dC : eps>: no iteration is unrolled.

    `eigenstrain` is what each phase would strain on its own: one number per phase (isotropic),
    `(phase, 6)` Mandel in crystal axes, or a field `(batch, 6, *space)` in sample axes. Then
    `.eigenstrain` is that of the cell, at no further solve: C* alpha = <eps_l : C : eigenstrain>
    (Levin 1967; Rosen and Hashin 1970). Given per kelvin it is the thermal expansion. In 2-D it
    is the in-plane part under plane strain. Its error is proportional to the residual, not to its
    square.

    Example:
        >>> halves = torch.zeros(1, 8, 8, dtype=torch.long)
        >>> halves[:, 4:] = 1
        >>> effective_stiffness(halves, [soft, stiff]).value[0, 0, 0]   # 1 / <1 / (lame + 2 G)>
    """
    check_bracket(bracket, bracket_tolerance, displacement, eigenstrain)
    problem = elastic_problem(phases, materials, "q1" if bracket else scheme, orientations)
    if bracket:
        return bracketed_property(
            problem,
            bracket_tolerance=bracket_tolerance,
            tolerance=tolerance,
            max_iterations=max_iterations,
            dtype=dtype,
        )
    prestress = None
    if eigenstrain is not None:
        voxels = eigenstress(phases, materials, eigenstrain, orientations)
        prestress = problem.voxel_stress(voxels)
    return effective_property(
        problem,
        prestress=prestress,
        lower=lower,
        displacement=displacement,
        tolerance=1e-4 if tolerance is None else tolerance,
        max_iterations=max_iterations,
        dtype=dtype,
    )
