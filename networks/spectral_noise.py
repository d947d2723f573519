"""Gaussian random fields whose spectra follow a condition: the linear part of pattern formation."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

LONGEST, SHORTEST = 96.0, 2.5  # wavelengths in voxels between which the spectrum is resolved
BANDS = 16
LARGEST = 6.0  # of the logarithm of an amplitude


class SpectralNoise(nn.Module):
    """White noise filtered by isotropic amplitudes that depend on a condition.

    The amplitude at wave number k is exp(sum_b w_b(condition) B_b(log k)) with Gaussian bands B_b,
    scaled so that every field has unit variance in the mean. Any size and dimension; wraps around
    every axis. A cut through such a field is Cahn's (1965) picture of spinodal structures.

    Args:
        channels: Number of independent fields.
        condition: Length of the condition vector.
        wavelength: Where the amplitudes peak at first, in voxels.
    """

    centres: Tensor

    def __init__(self, channels: int, condition: int, *, wavelength: float = 16.0) -> None:
        super().__init__()
        self.channels = channels
        centres = torch.linspace(math.log(1 / LONGEST), math.log(1 / SHORTEST), BANDS)
        self.register_buffer("centres", centres, persistent=False)
        self.bands = nn.Linear(condition, channels * BANDS)
        with torch.no_grad():
            peak = -2 * (centres + math.log(wavelength)).square()
            self.bands.bias.copy_(peak.clamp(min=-LARGEST).repeat(channels))
            self.bands.weight.mul_(0.3)

    def forward(
        self,
        white: Float[Tensor, "batch channel *space"],
        condition: Float[Tensor, "batch features"],
    ) -> Float[Tensor, "batch channel *space"]:
        """Return smooth fields of zero mean and unit variance."""
        shape = white.shape[2:]
        axes = tuple(range(2, white.ndim))
        with torch.autocast(white.device.type, enabled=False):
            weights = self.bands(condition.float()).view(len(white), self.channels, BANDS)
            amplitude, share = self._amplitudes(weights, shape)
            power = (amplitude.square() * share).flatten(2).sum(2).clamp_min(1e-12)
            scale = power.rsqrt().view(*power.shape, *[1] * len(shape))
            spectrum = torch.fft.rfftn(white.float(), dim=axes) * (amplitude * scale)
            return torch.fft.irfftn(spectrum, s=shape, dim=axes)

    def _amplitudes(self, weights: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return amplitudes on the half spectrum, and the share of all waves each stands for."""
        lines = [torch.fft.fftfreq(n) for n in shape[:-1]] + [torch.fft.rfftfreq(shape[-1])]
        grid = torch.meshgrid(*lines, indexing="ij")
        k = torch.stack(grid).square().sum(0).sqrt().to(weights)
        step = float(self.centres[1] - self.centres[0])
        # Wave numbers beyond the bands take the amplitude of the last one.
        log_k = k.clamp(1 / LONGEST, 1 / SHORTEST).log()
        near = torch.exp(-0.5 * ((log_k[..., None] - self.centres) / step).square())
        near = near / near.sum(-1, keepdim=True)
        log_amplitude = torch.einsum("bcn,...n->bc...", weights, near)
        log_amplitude = LARGEST * torch.tanh(log_amplitude / LARGEST)
        twice = torch.full((shape[-1] // 2 + 1,), 2.0).to(weights)
        twice[0] = 1.0
        if shape[-1] % 2 == 0:
            twice[-1] = 1.0
        share = (k > 0) * twice / math.prod(shape)
        return log_amplitude.exp() * (k > 0), share
