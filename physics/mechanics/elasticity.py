"""Linear elasticity of periodic voxel cells: fields and effective stiffness."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from microstructures import DataError
from physics.mechanics.cells import (
    MAX_ITERATIONS,
    TrialState,
    check_settings,
    joined,
    slabs,
    solve_cells,
    unit_loads,
)
from physics.mechanics.effective import EffectiveProperty, effective_property
from physics.mechanics.laws import IsotropicLaw
from physics.mechanics.materials import IsotropicElastic, check_phases, phase_field
from physics.mechanics.nodal import Q1, ROTATED, NodalElasticity
from physics.mechanics.problem import CellProblem
from physics.mechanics.staggered import StaggeredElasticity


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


def elastic_problem(
    phases: Shaped[Tensor, "batch *dims"],
    materials: Sequence[IsotropicElastic],
    scheme: str = "staggered",
) -> CellProblem:
    """Return the discrete problem of labels or fractions, its moduli in float64 GPa.

    Raises:
        DataError: phases do not fit the materials, no material carries load, or no such scheme.
    """
    lame, shear, ratio = _moduli(phases, materials)
    match scheme:
        case "staggered":
            return StaggeredElasticity.of_voxels(lame, shear, ratio)
        case "q1" | "rotated":
            element = Q1 if scheme == "q1" else ROTATED
            return NodalElasticity(element, IsotropicLaw(lame, shear.unsqueeze(1)), ratio)
        case _:
            raise DataError(f'scheme: expected "staggered", "q1" or "rotated", got {scheme!r}')


def staggered_problem(
    phases: Shaped[Tensor, "batch *dims"], materials: Sequence[IsotropicElastic]
) -> StaggeredElasticity:
    """Return `elastic_problem` on the staggered grid."""
    return StaggeredElasticity.of_voxels(*_moduli(phases, materials))


def _moduli(
    phases: Shaped[Tensor, "batch *dims"], materials: Sequence[IsotropicElastic]
) -> tuple[Tensor, Tensor, float]:
    """Return the Lame and shear fields, and lame/shear of the reference."""
    dim = len(check_phases(phases, len(materials)))
    shears = [material.shear for material in materials]
    if max(shears) <= 0.0:
        raise DataError("materials: expected at least one with youngs_modulus_gpa > 0, got pores")
    # Reference: middle of the range. Rounding its ratio lets cells of like phases share a symbol.
    bulks = [material.lame + 2.0 * material.shear / dim for material in materials]
    bulk_ratio = float(f"{(min(bulks) + max(bulks)) / (min(shears) + max(shears)):.2g}")
    lame = phase_field(phases, [material.lame for material in materials])
    return lame, phase_field(phases, shears), round(bulk_ratio - 2.0 / dim, 12)


def solve_elasticity(
    phases: Shaped[Tensor, "batch *dims"],
    materials: Sequence[IsotropicElastic],
    macro_strain: Float[Tensor, "batch load n"] | None = None,
    *,
    scheme: str = "staggered",
    tolerance: float = 1e-4,
    displacement: Float[Tensor, "batch load dim *space"] | None = None,
    max_iterations: int = MAX_ITERATIONS,
    dtype: torch.dtype = torch.float64,
) -> ElasticFields:
    """Return the elastic fields of periodic cells under macroscopic strains.

    Solves div C : (E + grad u) = 0 by conjugate gradients with an FFT preconditioner.

    Args:
        phases: integer labels `(batch, *space)` or float fractions `(batch, phase, *space)`,
            mixed by Voigt's rule.
        materials: one per phase; modulus 0 is a pore.
        macro_strain: Mandel, `(batch, load, n)`; all unit loads when None.
        scheme: "staggered" (safe with pores, cheapest), "q1" (conforming: an upper bound of the
            voxel geometry's energy) or "rotated" (one point per voxel; on even grids fields may
            carry an alternating mode).
        tolerance: residual force relative to that of zero displacement, in the energy norm of the
            reference material.
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
    problem = elastic_problem(phases, materials, scheme).detach()
    macro = (
        unit_loads(len(phases), problem.components, phases.device)
        if macro_strain is None
        else macro_strain.to(torch.float64)
    )
    check_settings(
        problem,
        macro,
        displacement,
        tolerance=tolerance,
        max_iterations=max_iterations,
        dtype=dtype,
    )
    fields, records = [], []
    with torch.no_grad():
        for part in slabs(problem, macro.shape[1]):
            states, record = solve_cells(
                problem.select(part),
                macro[part],
                displacement=None if displacement is None else displacement[part].double(),
                tolerance=tolerance,
                max_iterations=max_iterations,
                dtype=dtype,
            )
            fields.append(_centred(problem, states, dtype))
            records.append(record)
    strain, stress, moved = (torch.cat(parts) for parts in zip(*fields, strict=True))
    record = joined(records)
    return ElasticFields(strain, stress, moved, record.iterations, record.residual)


def _centred(problem: CellProblem, states: list[TrialState], dtype: torch.dtype) -> list[Tensor]:
    """Return strain and stress at the voxel centres, and the displacement, of all loads."""
    runs = (
        [problem.centred(state.strain).to(dtype) for state in states],
        [problem.centred(state.stress).to(dtype) for state in states],
        [state.displacement.to(dtype) for state in states],
    )
    return [torch.cat(run, 1) for run in runs]


def effective_stiffness(
    phases: Shaped[Tensor, "batch *dims"],
    materials: Sequence[IsotropicElastic],
    *,
    scheme: str = "staggered",
    tolerance: float = 1e-4,
    displacement: Float[Tensor, "batch n dim *space"] | None = None,
    max_iterations: int = MAX_ITERATIONS,
    dtype: torch.dtype = torch.float64,
) -> EffectiveProperty:
    """Return the effective Mandel stiffness in GPa, `(batch, n, n)`, with discrete bounds.

    Arguments and errors as in `solve_elasticity`, with all unit loads. `.value` is differentiable
    with respect to float fractions by the self-adjoint identity dC* = <eps : dC : eps>: no
    iteration is unrolled.

    Example:
        >>> halves = torch.zeros(1, 8, 8, dtype=torch.long)
        >>> halves[:, 4:] = 1
        >>> effective_stiffness(halves, [soft, stiff]).value[0, 0, 0]   # 1 / <1 / (lame + 2 G)>
    """
    problem = elastic_problem(phases, materials, scheme)
    return effective_property(
        problem,
        displacement=displacement,
        tolerance=tolerance,
        max_iterations=max_iterations,
        dtype=dtype,
    )
