"""What the levels of a property net's encoder answer to: activation maps, and Grad-CAM."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from microstructures import DataError
from networks.unet import Encoder
from physics.mechanics.materials import check_phases
from surrogates.properties import PropertySurrogate
from surrogates.quantities import local_moduli, scaled

UPSAMPLING = {2: "bilinear", 3: "trilinear"}


def activation_maps(
    surrogate: PropertySurrogate,
    phases: Shaped[Tensor, "batch *space"],
    materials: Sequence,
    *,
    level: int = -1,
    member: int = 0,
) -> Float[Tensor, "batch channel *coarse"]:
    """Return the channels of one level of a member's encoder, on that level's grid.

    Level 0 has half the resolution of the cell, each further one half of the one before; -1 is
    the last, whose mean and scatter over space are all that the answer reads.

    Raises:
        DataError: No such level or member, or phases or materials do not fit the net.
    """
    moduli = _moduli(surrogate, phases, materials)
    block = _block(surrogate, level, member)
    with torch.no_grad(), _recorded([block]) as found:
        surrogate.estimate(moduli)
    return found[0]


def strongest_channels(
    maps: Float[Tensor, "batch channel *coarse"], count: int
) -> Int[Tensor, "batch count"]:
    """Return the channels that vary most over each cell, the most varied first.

    A channel's mean says little of where it looks: its standard deviation over space ranks it.

    Raises:
        DataError: The level has fewer channels.
    """
    if not 1 <= count <= maps.shape[1]:
        raise DataError(f"expected 1 to {maps.shape[1]} channels, got {count}")
    return maps.flatten(2).std(2).topk(count, dim=1).indices


def grad_cam(
    surrogate: PropertySurrogate,
    phases: Shaped[Tensor, "batch *space"],
    materials: Sequence,
    *,
    entry: tuple[int, int] = (0, 0),
    level: int = -1,
) -> Float[Tensor, "batch *space"]:
    """Return where the channels that raise C_ij are active (Grad-CAM; Selvaraju et al. 2017).

    With the activations A_c of a level, weights w_c = mean over space of d C_ij / d A_c:

        map = ReLU(sum over c of w_c A_c), at most 1,

    interpolated to the cell's grid, mean over the members. It shows features by what they count
    for on average, at that level's resolution: not a derivative, so its scale has no unit. It
    shifts with the cell by the net's `size_multiple` voxels.

    Raises:
        DataError: No such level, or phases or materials do not fit the net.
    """
    moduli = _moduli(surrogate, phases, materials)
    blocks = [_block(surrogate, level, k) for k in range(len(surrogate.net.members))]
    with torch.enable_grad(), _recorded(blocks, as_leaves=True) as found:
        matrix, _ = surrogate.estimate(moduli)
        slopes = torch.autograd.grad(matrix[:, *entry].sum(), found)
    shape = tuple(phases.shape[1:])
    maps = []
    for channels, slope in zip(found, slopes, strict=True):
        weights = slope.flatten(2).mean(2).view(*slope.shape[:2], *[1] * len(shape))
        raised = F.relu((weights * channels.detach()).sum(1))
        highest = raised.flatten(1).amax(1).view(-1, *[1] * len(shape))
        maps.append(upsampled(raised / highest.clamp_min(1e-30), shape))
    return torch.stack(maps).mean(0)


def upsampled(
    maps: Float[Tensor, "batch *coarse"], shape: tuple[int, ...]
) -> Float[Tensor, "batch *space"]:
    """Return maps on a finer periodic grid whose sides are multiples, linear in between.

    Raises:
        DataError: A side is no multiple of the map's.
    """
    coarse = tuple(maps.shape[1:])
    if len(coarse) != len(shape) or any(n % c for n, c in zip(shape, coarse, strict=True)):
        raise DataError(f"expected sides that are multiples of {coarse}, got {shape}")
    factors = [n // c for n, c in zip(shape, coarse, strict=True)]
    # A ring of neighbours around the border makes the interpolation wrap.
    wrapped = F.pad(maps.unsqueeze(1), [1] * (2 * len(coarse)), mode="circular")
    fine = F.interpolate(
        wrapped,
        scale_factor=tuple(float(f) for f in factors),
        mode=UPSAMPLING[len(coarse)],
        align_corners=False,
    )
    inside = [slice(f, f + n) for f, n in zip(factors, shape, strict=True)]
    return fine[(slice(None), 0, *inside)]


def _moduli(surrogate: PropertySurrogate, phases: Tensor, materials: Sequence) -> Tensor:
    shape = check_phases(phases, len(materials))
    surrogate.check_shape(shape)
    values = surrogate.quantity.phase_moduli(materials, len(shape)).unsqueeze(0)
    return scaled(local_moduli(phases, values))[0].float()


def _block(surrogate: PropertySurrogate, level: int, member: int) -> nn.Module:
    members = surrogate.net.members
    if not 0 <= member < len(members):
        raise DataError(f"expected a member 0 to {len(members) - 1}, got {member}")
    blocks = cast(Encoder, members[member].encoder).blocks
    if not -len(blocks) <= level < len(blocks):
        raise DataError(
            f"expected an encoder level 0 to {len(blocks) - 1} (-1: the last), got {level}"
        )
    return blocks[level]


@contextmanager
def _recorded(blocks: Sequence[nn.Module], *, as_leaves: bool = False) -> Iterator[list[Tensor]]:
    """Give what blocks return, in their order; as leaves, what follows is derived by them."""
    found: dict[int, Tensor] = {}
    ordered: list[Tensor] = []

    def hook(place: int):
        def record(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
            found[place] = output.detach().requires_grad_(as_leaves)
            ordered[:] = [found[k] for k in sorted(found)]
            return found[place]

        return record

    handles = [block.register_forward_hook(hook(k)) for k, block in enumerate(blocks)]
    try:
        yield ordered
    finally:
        for handle in handles:
            handle.remove()
