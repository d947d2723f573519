"""Guarantees for fields from anywhere: bounds of the discrete energy, and compatible strains."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool, Complex, Float, Shaped
from torch import Tensor

from microstructures import DataError
from physics.mechanics.cells import joined, slabs
from physics.mechanics.conductivity import conduction_problem
from physics.mechanics.crystals import ElasticMaterial
from physics.mechanics.discrete_bounds import bracket
from physics.mechanics.discretisation import elastic_problem
from physics.mechanics.grid import SHEAR_PAIRS, difference_symbols
from physics.mechanics.problem import CellProblem
from physics.mechanics.staggered import mandel_at_centres, staggered_strain
from physics.mechanics.trial_state import trial_state, unit_loads


@dataclass(frozen=True)
class Certificate:
    """Guaranteed bounds of the discrete energies E_l : C* : E_m, in the Loewner order.

    In GPa, or the unit of the conductivities. With the unit loads they bound the effective
    stiffness or conductivity itself. `energy_error` bounds, per load case, the relative error of
    the trial gradient in the energy norm, sqrt((upper - lower) / upper). `one_sided` marks cells
    with a phase that carries nothing, whose lower bound is 0.
    """

    lower: Float[Tensor, "batch load load"]
    upper: Float[Tensor, "batch load load"]
    energy_error: Float[Tensor, "batch load"]
    one_sided: Bool[Tensor, "batch"]


def certify_elastic(
    phases: Shaped[Tensor, "batch *dims"],
    materials: Sequence[ElasticMaterial],
    *,
    displacement: Float[Tensor, "batch load dim *space"],
    macro_strain: Float[Tensor, "batch load n"] | None = None,
    scheme: str = "staggered",
    orientations: Float[Tensor, "batch 4 *space"] | None = None,
) -> Certificate:
    """Return guaranteed bounds of the scheme's exact energies from any displacement.

    Upper: the energy of the (compatible) trial strain. Lower: its stress, made divergence-free by
    one application of the reference Green operator, by the principle of complementary energy.
    Evaluated in float64 on the scheme's own quadrature points, for about the price of one
    iteration; differentiable in the displacement. What is bounded is the scheme's answer, free of
    iteration error; the voxel geometry's own is bounded by `continuum_bounds`.

    Args:
        phases: labels `(batch, *space)` or fractions `(batch, phase, *space)`.
        materials: one per phase.
        displacement: periodic fluctuation in voxels; staggered, component i on the lower faces
            normal to axis i (see `displacement_from_strain` for a bare strain field), else on the
            voxels' lower corners.
        macro_strain: Mandel; the unit loads when None, and then `load` must be n.
        orientations: unit quaternions (w, x, y, z) per voxel, for crystals.

    Raises:
        DataError: shapes do not fit, or the displacement is not finite.
    """
    problem = elastic_problem(phases, materials, scheme, orientations)
    names = ("displacement", "macro_strain")
    return certify_cells(problem, displacement, macro_strain, names=names)


def certify_conductive(
    phases: Shaped[Tensor, "batch *dims"],
    conductivities: Sequence[float | int],
    *,
    potential: Float[Tensor, "batch load *space"],
    macro_gradient: Float[Tensor, "batch load dim"] | None = None,
    scheme: str = "staggered",
) -> Certificate:
    """Return guaranteed bounds of the scheme's exact conduction energies from any potential.

    As `certify_elastic`: above the energy of the trial gradient, below that of its flux, made
    free of sources by one application of the reference Green operator.

    Args:
        phases: labels `(batch, *space)` or fractions `(batch, phase, *space)`.
        conductivities: one per phase.
        potential: periodic fluctuation of the temperature per unit gradient times voxel edge, at
            voxel centres (staggered) or lower corners (q1, rotated); also with a component axis
            of length 1 after the loads.
        macro_gradient: the unit gradients when None, and then `load` must be the dimension.

    Raises:
        DataError: shapes do not fit, or the potential is not finite.

    Example:
        >>> phases = torch.randint(2, (1, 16, 16))
        >>> rough = torch.zeros(1, 2, 16, 16)
        >>> certify_conductive(phases, [1.0, 10.0], potential=rough).upper    # Wiener's mean
    """
    problem = conduction_problem(phases, conductivities, scheme)
    trial = potential.unsqueeze(2) if potential.ndim == len(problem.shape) + 2 else potential
    return certify_cells(problem, trial, macro_gradient, names=("potential", "macro_gradient"))


def certify_cells(
    problem: CellProblem,
    trial: Float[Tensor, "batch load c *space"],
    macro: Float[Tensor, "batch load n"] | None = None,
    *,
    names: tuple[str, str] = ("trial", "macro"),
) -> Certificate:
    """Return the certificate of a trial unknown of any cell problem, in the problem's units.

    The unit loads where `macro` is None; `names` are what errors call the two.

    Raises:
        DataError: shapes do not fit, or a number is not finite.
    """
    problem = problem.detach()
    n = problem.components
    loads = unit_loads(problem.batch, n, problem.device) if macro is None else macro.double()
    if loads.ndim != 3 or (len(loads), loads.shape[2]) != (problem.batch, n) or not loads.shape[1]:
        raise DataError(
            f"{names[1]}: expected shape ({problem.batch}, load, {n}), got {tuple(loads.shape)}"
        )
    wanted = (problem.batch, loads.shape[1], problem.unknowns, *problem.shape)
    if tuple(trial.shape) != wanted:
        raise DataError(
            f"{names[0]}: expected one field per load and unknown at the scheme's nodes, {wanted} "
            f"in all, got {tuple(trial.shape)}"
        )
    for name, values in zip(names, (trial, loads), strict=True):
        if not bool(values.detach().isfinite().all()):
            raise DataError(f"{name}: expected finite numbers, got NaN or infinity")
    parts = []
    for part in slabs(problem, loads.shape[1]):
        cells = problem.select(part)
        state = trial_state(cells, loads[part], trial[part].to(torch.float64))
        parts.append(bracket(cells, loads[part], [state]))
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
