"""Where a property net looks: gradients by voxel, against the solver's exact sensitivity."""

import math
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
    saliency: Float[Tensor, "batch *space"], region: Bool[Tensor, "batch *marked"]
) -> Float[Tensor, " batch"]:
    """Return the share of the absolute saliency that lies in a region.

    Raises:
        DataError: The region's shape is not that of the saliency.
    """
    if region.shape != saliency.shape:
        raise DataError(
            f"expected a region of shape {tuple(saliency.shape)}, got {tuple(region.shape)}"
        )
    size = saliency.abs().flatten(1)
    return (size * region.flatten(1)).sum(1) / size.sum(1).clamp_min(1e-300)


def near_interface(
    phases: Shaped[Tensor, "batch *space"], reach: int
) -> Bool[Tensor, "batch *space"]:
    """Return the voxels with another label within `reach` voxels along every axis, periodic.

    Raises:
        DataError: The reach is not at least 1.
    """
    if reach < 1:
        raise DataError(f"expected a reach of at least 1 voxel, got {reach}")
    lowest = highest = phases
    for axis in range(1, phases.ndim):
        shifts = range(-reach, reach + 1)
        lowest = torch.stack([lowest.roll(k, axis) for k in shifts]).amin(0)
        highest = torch.stack([highest.roll(k, axis) for k in shifts]).amax(0)
    return lowest != highest


def replacement_curve(
    phases: Shaped[Tensor, "batch *space"],
    ranking: Float[Tensor, "batch *space"],
    materials: Sequence[IsotropicElastic],
    shares: Sequence[float],
    *,
    label: int,
    entry: tuple[int, int] = (0, 0),
    tolerance: float = 1e-3,
) -> Float[Tensor, "batch share"]:
    """Return C_ij of cells with voxels `replaced` over that of the untouched ones, by the solver.

    Raises:
        DataError: A share is not between 0 and 1, or phases or materials do not fit.
    """

    def solved(cells: Tensor) -> Tensor:
        return effective_stiffness(cells, materials, tolerance=tolerance).value[:, *entry]

    changed = [replaced(phases, ranking, label=label, share=share) for share in shares]
    return torch.stack([solved(cells) for cells in changed], 1) / solved(phases).unsqueeze(1)


def ranking_score(
    shares: Sequence[float],
    curve: Sequence[float],
    *,
    at_random: Sequence[float],
    exact: Sequence[float],
) -> float:
    """Return how good a ranking of voxels is: 0 at random, 1 as the exact sensitivity.

    The area between the property's curve and the curve at random, over the same area of the
    exact ranking; deletion and insertion alike (Petsiuk et al. 2018). A ranking that is worse than
    chance scores below 0. The exact sensitivity is that of the untouched cell, so that a ranking
    may beat it by a little where many voxels change.

    Args:
        shares: Of the voxels replaced, increasing from above 0.
        curve: The property at these shares over that of the untouched cell.
        at_random: The same with voxels in random order.
        exact: The same with voxels in the order of the exact sensitivity.

    Raises:
        DataError: Curves and shares differ in length, or the exact ranking is no better than
            chance.
    """
    lengths = {len(values) for values in (shares, curve, at_random, exact)}
    if len(lengths) != 1:
        raise DataError(f"expected one value for each share, got {sorted(lengths)} values")
    x = torch.tensor([0.0, *shares], dtype=torch.float64)
    ys = torch.tensor([[1.0, *y] for y in (curve, at_random, exact)], dtype=torch.float64)
    own, random, best = torch.trapezoid(ys, x, dim=1).tolist()
    if math.isclose(random, best, rel_tol=1e-12):
        raise DataError("expected an exact ranking better than chance, got the same areas")
    return (random - own) / (random - best)


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
