"""Exact volume fractions: cut soft phases so that every phase has its share, to one voxel."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from microstructures import DataError


def check_fractions(fractions: float | Sequence[float], n_phases: int) -> Float[Tensor, " phase"]:
    """Return volume fractions of all phases; one number for two phases means phase 1.

    Raises:
        DataError: Not one fraction per phase, or they are not in [0, 1] with sum 1.
    """
    values = [float(f) for f in np.atleast_1d(np.asarray(fractions, dtype=float))]
    if n_phases == 2 and len(values) == 1:
        values = [1 - values[0], values[0]]
    fits = len(values) == n_phases and min(values) >= 0 and abs(sum(values) - 1) <= 1e-6
    if not fits:  # NaN fails every comparison
        raise DataError(
            f"expected {n_phases} volume fractions in [0, 1] with sum 1, got {fractions!r}"
        )
    return torch.tensor(values, dtype=torch.float64)


def balance(
    logits: Float[Tensor, "batch phase *space"],
    fractions: Float[Tensor, "batch phase"],
    *,
    iterations: int = 12,
) -> Float[Tensor, "batch phase"]:
    """Return the offsets per phase that make the mean softmax equal the fractions.

    Fixed-point scaling (Sinkhorn's half step) on the logarithm of the ratio, which contracts; a
    dozen rounds reach about 1e-3, and the exact cut comes at the end of sampling.
    """
    wanted = fractions.to(logits.dtype).clamp_min(1e-4).log()
    offsets = torch.zeros_like(wanted)
    space = [1] * (logits.ndim - 2)
    for _ in range(iterations):
        share = F.softmax(logits + offsets.view(*offsets.shape, *space), 1).flatten(2).mean(2)
        offsets = offsets + 1.5 * (wanted - share.clamp_min(1e-6).log())
    return offsets - offsets.mean(1, keepdim=True)


def cut_exactly(
    logits: Float[Tensor, "batch phase *space"],
    fractions: Float[Tensor, "batch phase"],
    given: Int[Tensor, "*space"] | None = None,
) -> Int[Tensor, "batch *space"]:
    """Return labels with round(fraction * voxels) voxels of each phase (largest remainders).

    Two phases: the voxels with the largest logit difference. More: voxels are taken from phases
    that have too many and given to phases that lack some where that costs the least. Given
    voxels (labels from 0, -1 where free) keep their label and count towards the fractions, which
    must leave room for them (`attainable`).
    """
    flat = logits.flatten(2).double()
    given = torch.full(logits.shape[2:], -1) if given is None else given
    fixed = given.flatten().to(torch.int64)
    free = fixed < 0
    kept = torch.bincount(fixed[~free], minlength=flat.shape[1]).tolist()
    labels = fixed.repeat(len(flat), 1)
    for k, field in enumerate(flat):
        counts = _counts(fractions[k], flat.shape[2])
        labels[k, free] = _cut_one(
            field[:, free], [c - g for c, g in zip(counts, kept, strict=True)]
        )
    return labels.view(len(flat), *logits.shape[2:])


def attainable(
    fractions: Float[Tensor, "batch phase"], given: Int[Tensor, "*space"]
) -> Float[Tensor, "batch phase"]:
    """Return the fractions nearest to the wanted ones that leave room for the given voxels.

    A phase keeps at least its share of given voxels; what that adds is taken from the free part
    of the other phases in proportion.
    """
    share = given_share(given, fractions.shape[1])
    free = (fractions - share).clamp_min(0)
    room = 1 - share.sum()
    return share + free * (room / free.sum(1, keepdim=True).clamp_min(1e-12))


def wanted_fractions(
    volume_fraction: float | Sequence[float], n_phases: int, given: Tensor | None
) -> Float[Tensor, " phase"]:
    """Return asked volume fractions (of phase 1, or of all phases) as given voxels allow them.

    Raises:
        DataError: They are no fractions, or the given voxels alone exceed them by a voxel.
    """
    wanted = check_fractions(volume_fraction, n_phases)
    if given is None:
        return wanted
    share = given_share(given, len(wanted))
    if bool((share - wanted >= 1 / given.numel()).any()):
        raise DataError(
            f"expected volume fractions that leave room for the given voxels, which make up "
            f"{[round(s, 4) for s in share.tolist()]}, got {volume_fraction!r}"
        )
    return attainable(wanted[None], given)[0]


def given_share(given: Int[Tensor, "*space"], n_phases: int) -> Float[Tensor, " phase"]:
    """Return the share of all voxels that is given as each phase."""
    return torch.bincount(given[given >= 0], minlength=n_phases).double() / given.numel()


def _counts(fractions: Tensor, voxels: int) -> list[int]:
    exact = [float(f) * voxels for f in fractions]
    counts = [int(e) for e in exact]
    order = sorted(range(len(exact)), key=lambda p: counts[p] - exact[p])
    for p in order[: voxels - sum(counts)]:
        counts[p] += 1
    return counts


def _cut_one(logits: Tensor, counts: Sequence[int]) -> Tensor:
    labels = logits.argmax(0)
    # Each round moves the cheapest voxels from phases in excess to the neediest phase, from any
    # phase that has too many, until all counts hold: at most one round per phase.
    for _ in range(len(counts)):
        have = torch.bincount(labels, minlength=len(counts))
        lack = torch.tensor(counts) - have
        needy = int(lack.argmax())
        if lack[needy] <= 0:
            break
        labels = _give(labels, logits, needy, lack)
    return labels


def _give(labels: Tensor, logits: Tensor, needy: int, lack: Tensor) -> Tensor:
    """Give `needy` its missing voxels, the cheapest first, never more than a phase can spare."""
    regret = logits.gather(0, labels[None])[0] - logits[needy]
    order = torch.argsort(regret)
    owner = labels[order]
    spare = (-lack).clamp_min(0)
    # Rank of each voxel among its owner's voxels in order of regret: only the first `spare` go.
    rank = F.one_hot(owner, len(spare)).cumsum(0).gather(1, owner[:, None])[:, 0] - 1
    movable = order[rank < spare[owner]][: int(lack[needy])]
    labels = labels.clone()
    labels[movable] = needy
    return labels
