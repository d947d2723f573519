"""A critic of patches: how real a field looks for the image that it belongs to, place by place."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from networks.critic import SLOPE, PlainBlock
from networks.folding import FOLD, fold
from networks.padding import PaddedConvolution
from networks.unet import halve


class PatchCritic(nn.Module):
    """Scores of the patches of an image and a field together (Isola et al. 2017, "PatchGAN").

    Convolutions only, without pooling over space: each score looks at one neighbourhood, so that
    the critic judges texture and edges and leaves the large scales to the other losses.

    Args:
        in_channels: Channels of image and field together.
        widths: Channels per level; the first level is a 2x space-to-depth grid, each further one
            halves it.
        periodic: One flag per axis: wrap or reflect at the border.
    """

    def __init__(self, *, in_channels: int, widths: Sequence[int], periodic: Sequence[bool]):
        super().__init__()
        self.size_multiple = FOLD * 2 ** (len(widths) - 1)
        self.first = PaddedConvolution(in_channels * FOLD ** len(periodic), widths[0], periodic)
        befores = [widths[0], *widths[:-1]]
        self.blocks = nn.ModuleList(
            PlainBlock(before, after, periodic)
            for before, after in zip(befores, widths, strict=True)
        )
        self.last = PaddedConvolution(widths[-1], 1, periodic)

    def forward(
        self, image: Float[Tensor, "batch given *space"], field: Float[Tensor, "batch made *space"]
    ) -> Float[Tensor, "batch patch"]:
        """Return the score of every patch of fields, given their images."""
        h = self.first(fold(torch.cat([image, field], 1)))
        for level, block in enumerate(self.blocks):
            h = block(halve(h) if level else h)
        return self.last(F.leaky_relu(h, SLOPE)).flatten(1)


def patch_penalty(
    critic: PatchCritic,
    image: Float[Tensor, "batch given *space"],
    field: Float[Tensor, "batch made *space"],
) -> Float[Tensor, ""]:
    """Return half the mean squared slope of a patch's score with respect to the field.

    R1 on real fields, R2 on generated ones (Mescheder et al. 2018). Of the sum over patches over
    the root of their number, which for patches apart is the slope of one of them.
    """
    field = field.detach().requires_grad_()
    scores = critic(image, field)
    (slope,) = torch.autograd.grad(scores.sum() / scores.shape[1] ** 0.5, field, create_graph=True)
    return 0.5 * slope.float().square().flatten(1).sum(1).mean()
