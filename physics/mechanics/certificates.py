"""Guarantees for fields from anywhere: bounds of the discrete energy, and compatible strains."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool, Complex, Float, Shaped
from torch import Tensor

from microstructures import DataError
from physics.mechanics.cells import (
    bracket,
    check_settings,
    joined,
    slabs,
    trial_state,
    unit_loads,
)
from physics.mechanics.elasticity import elastic_problem
from physics.mechanics.grid import SHEAR_PAIRS, difference_symbols
from physics.mechanics.materials import IsotropicElastic
from physics.mechanics.staggered import mandel_at_centres, staggered_strain


@dataclass(frozen=True)
class Certificate:
    """Guaranteed bounds of the discrete energies E_l : C* : E_m in GPa, Loewner order.

    With the unit loads they bound the effective stiffness itself. `energy_error` bounds, per load
    case, the relative error of the trial strain in the energy norm,
    sqrt((upper - lower) / upper). `one_sided` marks cells with pores, whose lower bound is 0.
    """

    lower: Float[Tensor, "batch load load"]
    upper: Float[Tensor, "batch load load"]
    energy_error: Float[Tensor, "batch load"]
    one_sided: Bool[Tensor, "batch"]


def certify_elastic(
    phases: Shaped[Tensor, "batch *dims"],
    materials: Sequence[IsotropicElastic],
    *,
    displacement: Float[Tensor, "batch load dim *space"],
    macro_strain: Float[Tensor, "batch load n"] | None = None,
    scheme: str = "staggered",
) -> Certificate:
    """Return guaranteed bounds of the scheme's exact energies from any displacement.

    Upper: the energy of the (compatible) trial strain. Lower: its stress, made divergence-free by
    one application of the reference Green operator, by the principle of complementary energy.
    Evaluated in float64 on the scheme's own quadrature points, for about the price of one
    iteration; differentiable in the displacement.

    Args:
        phases: labels `(batch, *space)` or fractions `(batch, phase, *space)`.
        materials: one per phase.
        displacement: periodic fluctuation in voxels, component i on the lower faces normal to
            axis i (see `displacement_from_strain` for a bare strain field).
        macro_strain: Mandel; the unit loads when None, and then `load` must be n.

    Raises:
        DataError: shapes do not fit, or the displacement is not finite.
    """
    problem = elastic_problem(phases, materials, scheme).detach()
    macro = (
        unit_loads(len(phases), problem.components, phases.device)
        if macro_strain is None
        else macro_strain.to(torch.float64)
    )
    check_settings(problem, macro, displacement)
    parts = []
    for part in slabs(problem, macro.shape[1]):
        cells = problem.select(part)
        state = trial_state(cells, macro[part], displacement[part].to(torch.float64))
        parts.append(bracket(cells, macro[part], [state]))
    bounds = joined(parts)
    upper, lower = (torch.diagonal(m, dim1=1, dim2=2) for m in (bounds.upper, bounds.lower))
    tiny = torch.finfo(torch.float64).tiny
    error = ((upper - lower) / upper.clamp_min(tiny)).clamp_min(0.0).sqrt()
    return Certificate(bounds.lower, bounds.upper, error, bounds.one_sided)


def compatible_strain(
    displacement: Float[Tensor, "batch load dim *space"],
    macro_strain: Float[Tensor, "batch load n"] | None = None,
) -> Float[Tensor, "batch load n *space"]:
    """Return the Mandel strain at voxel centres of a staggered displacement, in its precision.

    Equals `solve_elasticity(...).strain` of the same displacement; its mean is the macroscopic
    strain (unit loads when None). Differentiable.
    """
    dim = displacement.ndim - 3
    n = dim * (dim + 1) // 2
    if macro_strain is None:
        macro_strain = unit_loads(len(displacement), n, displacement.device)
    strain = mandel_at_centres(staggered_strain(displacement))
    macro = macro_strain.to(strain.dtype)
    if macro.shape[1:] != strain.shape[1:3]:
        raise DataError(
            f"compatible_strain: expected a macro_strain per load, (batch, {strain.shape[1]}, "
            f"{n}), got shape {tuple(macro.shape)}"
        )
    return strain + macro.view(*macro.shape, *[1] * dim)


def displacement_from_strain(
    strain: Float[Tensor, "batch load n *space"],
) -> Float[Tensor, "batch load dim *space"]:
    """Return the staggered displacement whose strain at voxel centres is nearest in L2.

    The least-squares problem is solved exactly per Fourier mode; the mean strain is ignored and
    the mean displacement is 0. A strain of `solve_elasticity` gives its displacement back, except
    (on even grids) modes that alternate from voxel to voxel and leave no trace at the centres.
    Differentiable; computed in the precision of `strain`.
    """
    space = tuple(strain.shape[3:])
    dim = len(space)
    if strain.shape[2] != dim * (dim + 1) // 2:
        raise DataError(
            f"strain: expected {dim * (dim + 1) // 2} Mandel components in {dim}-D, got "
            f"{strain.shape[2]} in shape {tuple(strain.shape)}"
        )
    axes = tuple(range(-dim, 0))
    inverse = _centre_strain_inverse(space, strain.device)
    spectrum = torch.fft.rfftn(strain, dim=axes)
    moved = torch.einsum("dn...,bln...->bld...", inverse.to(spectrum.dtype), spectrum)
    return torch.fft.irfftn(moved, s=space, dim=axes)


@lru_cache(maxsize=4)
def _centre_strain_inverse(
    shape: tuple[int, ...], device: torch.device
) -> Complex[Tensor, "dim n *frequency"]:
    """Return the pseudo-inverse, per frequency, of displacement -> Mandel strain at centres."""
    dim = len(shape)
    k = difference_symbols(shape, device)
    grid = torch.broadcast_shapes(*(entry.shape for entry in k))
    rows = []
    for i in range(dim):
        rows.append([k[i] if j == i else torch.zeros_like(k[i]) for j in range(dim)])
    for i, j in SHEAR_PAIRS[dim]:
        # Edge value -> centre: mean of this point and the next, along both axes of the shear.
        mean = 0.5**0.5 * (1.0 + 0.5 * k[i]) * (1.0 + 0.5 * k[j])
        row = [torch.zeros_like(mean)] * dim
        row[i], row[j] = -k[j].conj() * mean, -k[i].conj() * mean
        rows.append(row)
    symbol = torch.stack([torch.stack([e.expand(grid) for e in row], -1) for row in rows], -2)
    # Zero modes have singular values of round-off size: 1e-10 parts them from the true ones.
    inverse = torch.linalg.pinv(symbol, atol=1e-10, rtol=0.0)
    return inverse.movedim((-2, -1), (0, 1)).contiguous()
