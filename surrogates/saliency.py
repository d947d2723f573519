"""Where a property net looks: gradients by voxel, against the solver's exact sensitivity."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from microstructures import DataError
from physics.mechanics import IsotropicElastic, effective_stiffness
from surrogates.properties import PropertySurrogate
from surrogates.quantities import Quantity, local_moduli, scaled
from surrogates.solver_steps import SolverSteps


def net_saliency(
    surrogate: PropertySurrogate,
    phases: Shaped[Tensor, "batch *space"],
    materials: Sequence,
    *,
    entry: tuple[int, int] = (0, 0),
) -> Float[Tensor, "batch *space"]:
    """Return d C_ij / d f by voxel as the net sees it, in the property's unit times voxels.

    f is the fraction of phase 1 in a voxel of a two-phase cell, whose moduli are mixed by Voigt's
    rule; the mean over voxels is the derivative by the whole fraction.

    Raises:
        DataError: Not two phases, or phases or materials do not fit the net.
    """
    surrogate.check_shape(tuple(phases.shape[1:]))
    fractions, moduli, unit = _scaled(phases, materials, surrogate.quantity)
    matrix, _ = surrogate.estimate(moduli)
    return _voxelwise(matrix[:, *entry] * unit, fractions)


def bound_saliency(
    surrogate: PropertySurrogate,
    phases: Shaped[Tensor, "batch *space"],
    materials: Sequence,
    *,
    entry: tuple[int, int] = (0, 0),
) -> Float[Tensor, "batch *space"]:
    """Return the same of the bound that the net starts from, the solver's first steps alone.

    What the net's saliency must beat for the net to know more than these steps.

    Raises:
        DataError: Not two phases, or phases or materials do not fit.
    """
    fractions, moduli, unit = _scaled(phases, materials, surrogate.quantity)
    steps = SolverSteps.of(surrogate.quantity.problem(moduli), surrogate.net.steps)
    return _voxelwise(steps.interval.upper[:, *entry] * unit, fractions)


def exact_sensitivity(
    phases: Shaped[Tensor, "batch *space"],
    materials: Sequence[IsotropicElastic],
    *,
    entry: tuple[int, int] = (0, 0),
    tolerance: float = 1e-4,
) -> Float[Tensor, "batch *space"]:
    """Return d C_ij / d f by voxel of the solved cell: strain_i : dC/df : strain_j.

    The identity is self-adjoint, so no further solve is needed; scale and f as in `net_saliency`.

    Raises:
        DataError: Not two phases, or phases or materials do not fit.
    """
    fractions = _fractions(phases, materials)
    solved = effective_stiffness(fractions, materials, tolerance=tolerance)
    return _voxelwise(solved.value[:, *entry], fractions)


def map_correlation(
    a: Float[Tensor, "batch *space"], b: Float[Tensor, "batch *space"]
) -> Float[Tensor, " batch"]:
    """Return Pearson's correlation over the voxels of each pair of maps."""
    flat = [x.flatten(1).double() for x in (a, b)]
    centred = [x - x.mean(1, keepdim=True) for x in flat]
    return F.cosine_similarity(*centred, dim=1)


def share_inside(
    saliency: Float[Tensor, "batch *space"], region: Bool[Tensor, "batch *space"]
) -> Float[Tensor, " batch"]:
    """Return the share of the absolute saliency that lies in a region."""
    size = saliency.abs().flatten(1)
    return (size * region.flatten(1)).sum(1) / size.sum(1).clamp_min(1e-300)


def replaced(
    phases: Shaped[Tensor, "batch *space"],
    ranking: Float[Tensor, "batch *space"],
    *,
    label: int,
    share: float,
) -> Shaped[Tensor, "batch *space"]:
    """Return cells in which the share of the voxels of `label` that rank highest are the other's.

    The deletion score of a saliency map is what the property becomes when the voxels that it
    ranks highest go first (Petsiuk et al. 2018), here by the solver; insertion is the same with
    the soft phase's label.

    Raises:
        DataError: The share is not between 0 and 1.
    """
    if not 0 <= share <= 1:
        raise DataError(f"expected a share between 0 and 1, got {share}")
    flat, rank = phases.flatten(1).clone(), ranking.flatten(1)
    for cell, order in zip(flat, rank, strict=True):
        own = torch.nonzero(cell == label).flatten()
        first = own[order[own].argsort(descending=True)][: round(share * len(own))]
        cell[first] = 1 - label
    return flat.view_as(phases)


def _fractions(phases: Tensor, materials: Sequence) -> Tensor:
    if phases.is_floating_point() or len(materials) != 2:
        kind = "fractions" if phases.is_floating_point() else f"{len(materials)} materials"
        raise DataError(f"expected labels of two phases, got {kind}")
    one_hot = F.one_hot(phases.long(), 2).movedim(-1, 1).double()
    return one_hot.contiguous().requires_grad_()


def _scaled(
    phases: Tensor, materials: Sequence, quantity: Quantity
) -> tuple[Tensor, Tensor, Tensor]:
    """Return fractions, the scaled local moduli that depend on them, and the unit."""
    fractions = _fractions(phases, materials)
    values = quantity.phase_moduli(materials, phases.ndim - 1).unsqueeze(0)
    moduli = local_moduli(fractions, values)
    # The unit is a matter of scale, not of structure: it is held while a voxel changes.
    unit = scaled(moduli.detach())[1]
    return fractions, (moduli / unit.view(-1, *[1] * (moduli.ndim - 1))).float(), unit


def _voxelwise(values: Tensor, fractions: Tensor) -> Tensor:
    (slope,) = torch.autograd.grad(values.sum(), fractions)
    return (slope[:, 1] - slope[:, 0]) * slope[0, 0].numel()
