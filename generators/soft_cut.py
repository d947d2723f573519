"""Hard phases with slopes: how the shapes of a cut at given fractions follow the field under it."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from generators.fractions import balance, cut_exactly
from generators.phase_net import signed_indicators
from networks.padding import pad

SOFTNESS = 2.5  # slope of soft phases per unit spread of the field: a few voxels per interface
SHARPNESS = 2.0  # of the soft phases whose slopes train a net, in logits per voxel of distance
# Share of the mean squared slope of a field below which distances to its interfaces are not told:
# near saddle points and extremes.
LEAST_SLOPE = 0.1


def centred(field: Float[Tensor, "batch phase *space"]) -> Float[Tensor, "batch phase *space"]:
    """Return fields of zero mean over space, near which `balance` finds its fixed point."""
    return field - field.mean(tuple(range(2, field.ndim)), keepdim=True)


def cut_through(
    field: Float[Tensor, "batch phase *space"],
    fractions: Float[Tensor, "batch phase"] | None,
    *,
    periodic: Sequence[bool],
) -> tuple[Float[Tensor, "batch phase *space"], Float[Tensor, "batch phase *space"]]:
    """Return hard phases in ±1 whose gradient is that of soft ones, and the soft ones.

    A critic sees what sampling gives, images cut at their fractions, and cannot tell generated
    ones by grey voxels; the gradient reaches the voxels around each interface (Bengio et al.
    2013). Soft phases are functions of the distance to the interface, the field over its own
    slope, so that what changes the profile across an interface and not its place has no gradient:
    no cut would show it, and a net that followed it would drift. For the same reason the cut
    moves with the field such that the fractions stay (an implicit derivative).

    Args:
        field: The phase with the largest field wins, after an offset per phase.
        fractions: Wanted fractions; None cuts without offsets.
        periodic: One flag per axis.
    """
    with torch.autocast(field.device.type, enabled=False):
        return _cut_through(field.float(), fractions, periodic)


def _cut_through(
    field: Tensor, fractions: Tensor | None, periodic: Sequence[bool]
) -> tuple[Tensor, Tensor]:
    if fractions is not None:
        field = centred(field)
    fixed = field.detach()
    if fractions is None:
        labels, offsets = fixed.argmax(1), torch.zeros_like(fixed.flatten(2)[..., 0])
    else:
        labels, offsets = _cut(fixed, fractions)
    sharpness = SHARPNESS / slope(field, periodic)
    logits = (field + _over_space(offsets, field)) * sharpness
    if fractions is not None:
        logits = logits + _over_space(_kept(logits, sharpness), field) * sharpness
    soft = 2 * F.softmax(logits, 1) - 1
    return signed_indicators(labels, field.shape[1]) + soft - soft.detach(), soft


def slope(
    field: Float[Tensor, "batch phase *space"], periodic: Sequence[bool]
) -> Float[Tensor, "batch 1 *space"]:
    """Return how fast the field turns from one phase to another, per voxel; never near 0.

    The norm of the gradient of the difference of two phases' fields; of more phases, that of the
    gradients of all.
    """
    field = field - field.mean(1, keepdim=True)
    wide = pad(field, periodic)
    square = torch.zeros_like(field[:, :1])
    for axis in range(2, field.ndim):
        inside = wide
        for other in range(2, field.ndim):
            if other != axis:
                inside = inside.narrow(other, 1, field.shape[other])
        n = field.shape[axis]
        step = (inside.narrow(axis, 2, n) - inside.narrow(axis, 0, n)) / 2
        square = square + 2 * step.square().sum(1, keepdim=True)
    mean = square.mean(tuple(range(1, square.ndim)), keepdim=True)
    return (square + LEAST_SLOPE * mean + 1e-8).sqrt()


def _kept(
    logits: Float[Tensor, "batch phase *space"], sharpness: Float[Tensor, "batch 1 *space"]
) -> Float[Tensor, "batch phase"]:
    """Return offsets, zero in value, whose gradient keeps the mean soft phases.

    With M the means and J = dM/d(offsets), the offsets that keep M follow the field by
    -J^-1 dM/d(field): one Newton step from where they are.
    """
    mean = F.softmax(logits, 1).flatten(2).mean(2)
    with torch.no_grad():
        share = F.softmax(logits, 1).flatten(2)
        weighted = share * sharpness.flatten(2) / share.shape[2]
        jacobian = torch.diag_embed(weighted.sum(2)) - weighted @ share.mT
        # Offsets that are all alike move nothing: in float32 a value near zero, taken as zero.
        inverse = torch.linalg.pinv(jacobian, rtol=1e-4, hermitian=True)
    return -(inverse @ (mean - mean.detach())[..., None])[..., 0]


def _cut(
    field: Float[Tensor, "batch phase *space"], fractions: Float[Tensor, "batch phase"]
) -> tuple[Int[Tensor, "batch *space"], Float[Tensor, "batch phase"]]:
    """Return the labels of `cut_exactly`, and offsets per phase that cut there.

    Exact for two phases, and for the whole batch at once; of more phases the offsets are those
    that give soft phases their fractions.
    """
    if field.shape[1] != 2:
        return cut_exactly(field, fractions), balance(SOFTNESS * field, fractions) / SOFTNESS
    edge = (field[:, 1] - field[:, 0]).flatten(1)
    counts = (fractions[:, 1:] * edge.shape[1]).round().long()
    order = edge.argsort(1, descending=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(edge.shape[1]).expand_as(order))
    places = torch.cat([counts - 1, counts], 1).clamp(0, edge.shape[1] - 1)
    threshold = edge.gather(1, order.gather(1, places)).mean(1)
    labels = (rank < counts).long().view(len(field), *field.shape[2:])
    return labels, torch.stack([threshold, -threshold], 1) / 2


def _over_space(values: Tensor, like: Tensor) -> Tensor:
    return values.view(*values.shape, *[1] * (like.ndim - 2))
