"""A periodic U-Net in the place of the Fourier operator: fields in, fields out."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from networks.unet import UNet


class ConvolutionalOperator(nn.Module):
    """A U-Net (Ronneberger et al. 2015) that is told the extremes of its input.

    The extremes carry the contrast, which no local window shows; they modulate every block.

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        widths: Channels per level; each level halves the grid.
        blocks: Residual blocks per level.
        features: Length of the condition vector.
        dim: Axes of space, all periodic.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int],
        blocks: int,
        features: int,
        dim: int,
    ) -> None:
        super().__init__()
        self.told = nn.Sequential(
            nn.Linear(2 * in_channels, features), nn.SiLU(), nn.Linear(features, features)
        )
        self.unet = UNet(
            in_channels=in_channels,
            out_channels=out_channels,
            widths=widths,
            blocks=blocks,
            condition=features,
            periodic=(True,) * dim,
        )
        self.size_multiple = self.unet.size_multiple

    def forward(
        self, x: Float[Tensor, "batch channel *space"]
    ) -> Float[Tensor, "batch out *space"]:
        """Return the answer on the same grid; sides must be multiples of `size_multiple`."""
        flat = x.flatten(2)
        return self.unet(x, self.told(torch.cat([flat.amin(2), flat.amax(2)], 1)))
