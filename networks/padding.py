"""Convolutions that wrap around periodic axes, with a lean backward pass of any order."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from networks.unet import PaddedConvolution


class WrappingConvolution(PaddedConvolution):
    """A `PaddedConvolution` (same weights, same values) that differentiates two times faster.

    Half of the time of a small convolution's backward pass goes into that of `F.pad`, which
    copies the gradient once per side; here wrapping and its adjoint, adding the rims to the far
    ends, are each other's derivative.
    """

    def forward(self, x: Float[Tensor, "batch width *space"]) -> Float[Tensor, "batch out *space"]:
        return self.convolution(pad(x, self.periodic))


def pad(
    x: Float[Tensor, "batch width *space"], periodic: Sequence[bool]
) -> Float[Tensor, "batch width *padded"]:
    """Widen every axis by one voxel on both sides: wrapped, or reflected where not periodic."""
    if all(periodic):
        return _Wrap.apply(x)  # pyright: ignore[reportReturnType]
    for axis, wraps in enumerate(periodic):
        sides = [0] * (2 * len(periodic))
        sides[2 * (len(periodic) - 1 - axis)] = sides[2 * (len(periodic) - 1 - axis) + 1] = 1
        x = F.pad(x, sides, mode="circular" if wraps else "reflect")
    return x


class _Wrap(torch.autograd.Function):
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
