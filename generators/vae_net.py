"""The ladder net of the VAE: white noise, code and process → logits of the phases, and back."""

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from generators.encoded_net import EncodedNet
from microstructures import ProcessSpace
from networks.conditioning import ProcessEmbedding
from networks.folding import FOLD, fold, unfold
from networks.padding import PaddedConvolution
from networks.unet import ResidualBlock, halve

LOG_RATIO = 3.0  # bound of the posterior's log standard deviation and of the noise's log gain
SLOPE = 0.2


class Rung(nn.Module):
    """One step of the ladder: refine the state, then add noise to it.

    The state decides how much noise each place takes. With evidence the noise is drawn from its
    posterior N(mean, sd²), else from the prior N(0, I); its divergence is
    (mean² + sd² - 1 - log sd²) / 2 per number. No normalisation over the cell: it would tie
    distant places together and make samples depend on the size of the cell.
    """

    def __init__(
        self, width: int, evidence: int, latent: int, condition: int, periodic: Sequence[bool]
    ) -> None:
        super().__init__()
        self.modulation = nn.Linear(condition, 2 * width)
        self.convolution_in = PaddedConvolution(width, width, periodic)
        self.convolution_out = PaddedConvolution(width, width, periodic)
        self.gain = PaddedConvolution(width, latent, periodic)
        self.posterior = PaddedConvolution(width + evidence, 2 * latent, periodic)
        self.inject = nn.Linear(latent, width)
        with torch.no_grad():
            self.convolution_out.convolution.weight.mul_(0.3)
            self.modulation.weight.mul_(0.3)
            self.modulation.bias.zero_()
            self.gain.convolution.weight.zero_()
            self.posterior.convolution.weight.mul_(0.1)

    def forward(
        self,
        state: Float[Tensor, "batch width *space"],
        condition: Float[Tensor, "batch features"],
        noise: Float[Tensor, "batch latent *space"],
        evidence: Float[Tensor, "batch evidence *space"] | None,
    ) -> tuple[Float[Tensor, "batch width *space"], Float[Tensor, " batch"]]:
        """Return the new state and the divergence of the noise from its prior in nats."""
        ones = [1] * (state.ndim - 2)
        scale, shift = self.modulation(condition).view(len(state), -1, *ones).chunk(2, 1)
        h = self.convolution_in(F.leaky_relu(state, SLOPE))
        state = state + self.convolution_out(F.leaky_relu(h * (1 + scale) + shift, SLOPE))
        nats = state.new_zeros(len(state), dtype=torch.float32)
        if evidence is not None:
            both = torch.cat([F.leaky_relu(state, SLOPE), evidence], 1)
            mean, log_sd = self.posterior(both).float().chunk(2, 1)
            log_sd = _bounded(log_sd)
            terms = mean.square() + (2 * log_sd).exp() - 1 - 2 * log_sd
            nats = 0.5 * terms.flatten(1).sum(1)
            noise = mean + log_sd.exp() * noise
        noise = noise * _bounded(self.gain(F.leaky_relu(state, SLOPE))).exp()
        return state + self.inject(noise.movedim(1, -1)).movedim(-1, 1), nats


class PhaseLadder(EncodedNet):
    """A hierarchical VAE of phases: noise on grids from coarse to fine, and a global code.

    The decoder goes from a coarse grid to the voxels; on the way rungs add white noise, N(0, I)
    in every sample, so that the prior is exact and any size can be sampled. The posterior of a
    rung sees the decoder's own state and the image at that grid (a ladder; Sønderby et al. 2016,
    Child 2020), so that each rung only has to say what the coarser ones left open: with noise
    down to half the voxel grid nothing is left to blur. The global code is that of a diffusion
    autoencoder: an encoder's mean over the cell, held near a Gaussian prior that is a function
    of the process, made standard.

    Args:
        space: Process parameters.
        n_phases: Number of phases.
        periodic: One flag per axis: wrap or reflect at the border.
        widths: Channels of each level, from the finest (half the voxel grid) to the coarsest.
        rungs: Rungs of each level.
        noise_channels: Noise per rung and position of each level.
        latent_dim: Length of the code.
        features: Length of the condition vector.
    """

    def __init__(
        self,
        *,
        space: ProcessSpace,
        n_phases: int,
        periodic: Sequence[bool],
        widths: Sequence[int],
        rungs: Sequence[int],
        noise_channels: Sequence[int],
        latent_dim: int,
        features: int,
    ) -> None:
        super().__init__()
        self.config = {
            "space": space.to_json(),
            "n_phases": n_phases,
            "periodic": list(periodic),
            "widths": list(widths),
            "rungs": list(rungs),
            "noise_channels": list(noise_channels),
            "latent_dim": latent_dim,
            "features": features,
        }
        self.n_phases, self.latent_dim, self.dim = n_phases, latent_dim, len(periodic)
        self.rungs, self.noise_channels = tuple(rungs), tuple(noise_channels)
        self.size_multiple = FOLD * 2 ** (len(widths) - 1)
        folded = n_phases * FOLD**self.dim
        self.process = ProcessEmbedding(space, features)
        self.build_code(widths, features, periodic)
        self.evidence_in = PaddedConvolution(folded, widths[0], periodic)
        self.evidence = nn.ModuleList(
            ResidualBlock(before, width, features, periodic) for before, width in pairwise(widths)
        )
        self.start = nn.Parameter(torch.zeros(widths[-1]))
        self.up = nn.ModuleList(
            nn.Linear(width, before, bias=False) for before, width in pairwise(widths)
        )
        self.levels = nn.ModuleList(
            nn.ModuleList(Rung(width, width, latent, features, periodic) for _ in range(count))
            for width, count, latent in zip(widths, rungs, noise_channels, strict=True)
        )
        self.last = PaddedConvolution(widths[0], folded, periodic)

    def noise_shapes(self, shape: Sequence[int]) -> list[tuple[int, ...]]:
        """Return the shapes of one sample's white noise, coarsest grid first."""
        return [
            (self.noise_channels[level], *(side // (FOLD * 2**level) for side in shape))
            for level in reversed(range(len(self.rungs)))
            for _ in range(self.rungs[level])
        ]

    def forward(
        self,
        noises: Sequence[Tensor],
        condition: Float[Tensor, "batch features"],
        clean: Float[Tensor, "batch phase *space"] | None = None,
    ) -> tuple[Float[Tensor, "batch phase *space"], Float[Tensor, " batch"]]:
        """Return logits of the phases and the divergence of the noise from N(0, I) in nats.

        With clean images in ±1 the noise comes from the posterior of each of them.
        """
        features = F.silu(condition)
        evidence = None if clean is None else self._evidence(clean, features)
        fields = iter(noises)
        space = noises[0].shape[2:]
        start = self.start.view(1, -1, *[1] * self.dim)
        state = start.expand(len(condition), -1, *space)
        nats = condition.new_zeros(len(condition), dtype=torch.float32)
        for level in reversed(range(len(self.levels))):
            for rung in cast(nn.ModuleList, self.levels[level]):
                seen = None if evidence is None else evidence[level]
                state, more = rung(state, features, next(fields), seen)
                nats = nats + more
            if level:
                state = self.up[level - 1](state.movedim(1, -1)).movedim(-1, 1)
                state = F.interpolate(state, scale_factor=2.0, mode="nearest")
        return unfold(self.last(F.leaky_relu(state, SLOPE)).float(), self.dim), nats

    def _evidence(self, clean: Tensor, features: Tensor) -> list[Tensor]:
        found = [self.evidence_in(fold(clean))]
        for block in self.evidence:
            found.append(block(halve(found[-1]), features))
        return found


def _bounded(x: Tensor) -> Tensor:
    return LOG_RATIO * torch.tanh(x / LOG_RATIO)
