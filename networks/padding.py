"""Convolutions that wrap around periodic axes, with a lean backward pass of any order."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class PaddedConvolution(nn.Module):
    """A 3-wide convolution whose padding wraps on periodic axes and reflects on the others."""

    def __init__(self, width_in: int, width_out: int, periodic: Sequence[bool]) -> None:
        super().__init__()
        self.periodic = tuple(periodic)
        self.convolution = CONVOLUTIONS[len(self.periodic)](width_in, width_out, 3)

    def forward(self, x: Float[Tensor, "batch width *space"]) -> Float[Tensor, "batch out *space"]:
        return self.convolution(pad(x, self.periodic))


def pad(
    x: Float[Tensor, "batch width *space"], periodic: Sequence[bool]
) -> Float[Tensor, "batch width *padded"]:
    """Widen every axis by one voxel on both sides: wrapped, or reflected where not periodic."""
    if all(periodic):
        # Half of the time of a small convolution's backward pass would go into that of `F.pad`,
        # which copies the gradient once per side.
        return _Wrap.apply(x)  # pyright: ignore[reportReturnType]
    for axis, wraps in enumerate(periodic):
        sides = [0] * (2 * len(periodic))
        sides[2 * (len(periodic) - 1 - axis)] = sides[2 * (len(periodic) - 1 - axis) + 1] = 1
        x = F.pad(x, sides, mode="circular" if wraps else "reflect")
    return x


class _Wrap(torch.autograd.Function):
    """Wrapping; its adjoint, adding the rims to the far ends, has wrapping as its derivative."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        for axis in range(2, x.ndim):
            n = x.shape[axis]
            x = torch.cat([x.narrow(axis, n - 1, 1), x, x.narrow(axis, 0, 1)], axis)
        return x

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return _Unwrap.apply(gradient)  # pyright: ignore[reportReturnType]


class _Unwrap(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        for axis in range(x.ndim - 1, 1, -1):
            n = x.shape[axis] - 2
            inner = x.narrow(axis, 1, n).clone()
            inner.narrow(axis, n - 1, 1).add_(x.narrow(axis, 0, 1))
            inner.narrow(axis, 0, 1).add_(x.narrow(axis, n + 1, 1))
            x = inner
        return x

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return _Wrap.apply(gradient)  # pyright: ignore[reportReturnType]
