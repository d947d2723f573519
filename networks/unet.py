"""A U-Net for one to three spatial axes, periodic or reflecting along each of them."""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from networks.padding import PaddedConvolution

POOLS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


class ResidualBlock(nn.Module):
    """Two convolutions with group norm, modulated by a condition (FiLM; Perez et al. 2018)."""

    def __init__(
        self, width_in: int, width_out: int, condition: int, periodic: Sequence[bool]
    ) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(_groups(width_in), width_in)
        self.convolution_in = PaddedConvolution(width_in, width_out, periodic)
        self.modulation = nn.Linear(condition, 2 * width_out)
        self.norm_out = nn.GroupNorm(_groups(width_out), width_out)
        self.convolution_out = PaddedConvolution(width_out, width_out, periodic)
        self.widen = nn.Linear(width_in, width_out, bias=False) if width_in != width_out else None
        # The block starts as the identity, so that depth does not hurt early training.
        nn.init.zeros_(self.convolution_out.convolution.weight)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(
        self, x: Float[Tensor, "batch width *space"], condition: Float[Tensor, "batch features"]
    ) -> Float[Tensor, "batch out *space"]:
        h = self.convolution_in(F.silu(self.norm_in(x)))
        scale, shift = (
            self.modulation(condition).view(*condition.shape[:1], -1, *_ones(x)).chunk(2, 1)
        )
        h = self.convolution_out(F.silu(self.norm_out(h) * (1 + scale) + shift))
        if self.widen is not None:
            # A matrix product: 1x1 convolutions in channels-first layout are several times slower.
            x = rearrange(self.widen(rearrange(x, "b c ... -> b ... c")), "b ... c -> b c ...")
        return x + h


class UNet(nn.Module):
    """A conditional U-Net; sizes must be multiples of `size_multiple`.

    Args:
        in_channels: Channels in.
        out_channels: Channels out (the last layer starts at zero).
        widths: Channels of each level; each level halves the grid.
        blocks: Residual blocks per level on the way down (one more on the way up).
        condition: Length of the condition vector.
        periodic: One flag per spatial axis: wrap or reflect at the border.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int],
        blocks: int,
        condition: int,
        periodic: Sequence[bool],
    ) -> None:
        super().__init__()
        self.size_multiple = 2 ** (len(widths) - 1)
        self.first = PaddedConvolution(in_channels, widths[0], periodic)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        width, skips = widths[0], [widths[0]]
        for level, wide in enumerate(widths):
            stage = nn.ModuleList()
            for _ in range(blocks):
                stage.append(ResidualBlock(width, wide, condition, periodic))
                width = wide
                skips.append(width)
            self.down.append(stage)
            if level < len(widths) - 1:
                skips.append(width)
        self.middle = ResidualBlock(width, width, condition, periodic)
        for wide in reversed(widths):
            stage = nn.ModuleList()
            for _ in range(blocks + 1):
                stage.append(ResidualBlock(width + skips.pop(), wide, condition, periodic))
                width = wide
            self.up.append(stage)
        self.last_norm = nn.GroupNorm(_groups(width), width)
        self.last = PaddedConvolution(width, out_channels, periodic)
        nn.init.zeros_(self.last.convolution.weight)

    def forward(
        self, x: Float[Tensor, "batch channel *space"], condition: Float[Tensor, "batch features"]
    ) -> Float[Tensor, "batch out *space"]:
        x = self.first(x)
        skips = [x]
        for level, stage in enumerate(self.down):
            if level:
                x = halve(x)
                skips.append(x)
            for block in cast(nn.ModuleList, stage):
                x = block(x, condition)
                skips.append(x)
        x = self.middle(x, condition)
        for level, stage in enumerate(self.up):
            if level:
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            for block in cast(nn.ModuleList, stage):
                x = block(torch.cat([x, skips.pop()], 1), condition)
        return self.last(F.silu(self.last_norm(x)))


class Encoder(nn.Module):
    """A conditional image encoder that averages over space, so shifts do not change its code.

    The mean over space makes the code independent of position (on periodic axes) and of size.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_features: int,
        widths: Sequence[int],
        condition: int,
        periodic: Sequence[bool],
    ) -> None:
        super().__init__()
        self.size_multiple = 2 ** (len(widths) - 1)
        self.first = PaddedConvolution(in_channels, widths[0], periodic)
        befores = [widths[0], *widths[:-1]]
        self.blocks = nn.ModuleList(
            ResidualBlock(before, after, condition, periodic)
            for before, after in zip(befores, widths, strict=True)
        )
        self.last = nn.Linear(2 * widths[-1], out_features)

    def forward(
        self, x: Float[Tensor, "batch channel *space"], condition: Float[Tensor, "batch features"]
    ) -> Float[Tensor, "batch code"]:
        x = self.first(x)
        for level, block in enumerate(self.blocks):
            x = block(halve(x) if level else x, condition)
        flat = x.flatten(2)
        return self.last(torch.cat([flat.mean(2), flat.std(2)], 1))


def halve(x: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch channel *half"]:
    """Average 2^dim blocks: the grid at half resolution."""
    return POOLS[x.ndim - 2](x, 2)


def _groups(width: int) -> int:
    return next(g for g in (8, 4, 2, 1) if width % g == 0)


def _ones(x: Tensor) -> list[int]:
    return [1] * (x.ndim - 2)
