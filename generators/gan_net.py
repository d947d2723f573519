"""The generating net of the GAN: white noise, code and process → logits of the phases."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from generators.phase_net import PhaseNet
from microstructures import ProcessSpace
from networks.conditioning import ProcessEmbedding
from networks.critic import SLOPE
from networks.folding import FOLD, fold, unfold
from networks.padding import PaddedConvolution, pad
from networks.spectral_noise import SpectralNoise
from networks.unet import Encoder, halve

FIELDS = 2  # random fields beside one per phase
AMOUNT_FEATURES = 32  # of the process, for the fractions
CODE_LOG_VARIANCE = (-6.0, 0.5)


class ModulatedBlock(nn.Module):
    """Two convolutions around a shortcut, modulated by a condition (FiLM; Perez et al. 2018).

    No normalisation: a mean over the cell would tie distant places together and make samples
    depend on the size of the cell.
    """

    def __init__(self, width: int, condition: int, periodic: Sequence[bool]) -> None:
        super().__init__()
        self.convolution_in = PaddedConvolution(width, width, periodic)
        self.modulation = nn.Linear(condition, 2 * width)
        self.convolution_out = PaddedConvolution(width, width, periodic)
        with torch.no_grad():
            self.convolution_out.convolution.weight.mul_(0.3)
            self.modulation.weight.mul_(0.3)
            self.modulation.bias.zero_()

    def forward(
        self, x: Float[Tensor, "batch width *space"], condition: Float[Tensor, "batch features"]
    ) -> Float[Tensor, "batch width *space"]:
        scale, shift = self.modulation(condition).view(len(x), -1, *[1] * (x.ndim - 2)).chunk(2, 1)
        h = self.convolution_in(F.leaky_relu(x, SLOPE))
        h = self.convolution_out(F.leaky_relu(h * (1 + scale) + shift, SLOPE))
        return x + h


class ProcessAndAmounts(ProcessEmbedding):
    """An embedding of the process for shapes, and a second one after it for the fractions.

    Fractions have to be right to a voxel or so, which an embedding that serves shapes does not
    keep; and the code, which is added to the first part, leaves the second one alone.
    """

    def __init__(self, space: ProcessSpace, features: int) -> None:
        super().__init__(space, features)
        self.amounts = ProcessEmbedding(space, AMOUNT_FEATURES)

    def forward(
        self,
        units: Float[Tensor, "batch parameter"],
        *,
        drop: Bool[Tensor, "batch parameter"] | None = None,
    ) -> Float[Tensor, "batch both"]:
        """Embed unit coordinates; NaN, or True in `drop`, means unknown."""
        return torch.cat([super().forward(units, drop=drop), self.amounts(units, drop=drop)], 1)


class PhaseGenerator(PhaseNet):
    """Random fields with the spectrum of the process, and a convolutional net that shapes them.

    White noise at the voxels becomes Gaussian random fields whose isotropic spectra follow code
    and process (`SpectralNoise`): one per phase, which is what comes out at first, and some
    more. From all of them, folded and averaged onto ever coarser grids, a decoder works its way
    back from the coarsest grid, modulated by code and process, and adds what makes the shapes.
    Most of that work is done on few positions. The result is scaled to unit
    spread over space.

    The code is recovered from structures by a jointly trained encoder (Chen et al. 2016), whose
    mean is the public code; its prior is N(0, I) by construction. The fractions depend on the
    process alone.

    Limits: the fields wrap around every axis, periodic or not, so that opposite ends of an axis
    that is not are correlated over a wavelength; long-range order other than a ring of preferred
    wave numbers, directions included, is left to the receptive field of the net.

    Args:
        space: Process parameters.
        n_phases: Number of phases.
        periodic: One flag per axis: wrap or reflect at the border.
        widths: Channels of each level, from the finest (half the voxel grid) to the coarsest.
        blocks: Residual blocks of each level.
        latent_dim: Length of the code.
        features: Length of the condition vector.
        encoder_widths: Channels per level of the encoder.
    """

    process: ProcessAndAmounts

    def __init__(
        self,
        *,
        space: ProcessSpace,
        n_phases: int,
        periodic: Sequence[bool],
        widths: Sequence[int],
        blocks: Sequence[int],
        latent_dim: int,
        features: int,
        encoder_widths: Sequence[int],
    ) -> None:
        super().__init__()
        self.config: Mapping[str, Any] = {
            "space": space.to_json(),
            "n_phases": n_phases,
            "periodic": list(periodic),
            "widths": list(widths),
            "blocks": list(blocks),
            "latent_dim": latent_dim,
            "features": features,
            "encoder_widths": list(encoder_widths),
        }
        self.n_phases, self.latent_dim, self.dim = n_phases, latent_dim, len(periodic)
        folded = n_phases * FOLD**self.dim
        self.features = features
        self.process = ProcessAndAmounts(space, features)
        self.code = nn.Linear(latent_dim, features)
        self.fields = SpectralNoise(n_phases + FIELDS, features)
        folded_fields = (n_phases + FIELDS) * FOLD**self.dim
        self.grids, self.levels, self.up = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for before, width, count in zip(
            [None, *reversed(widths[1:])], reversed(widths), reversed(blocks), strict=True
        ):
            if before is not None:
                self.up.append(nn.Linear(before, width, bias=False))
            self.grids.append(PaddedConvolution(folded_fields, width, periodic))
            self.levels.append(
                nn.ModuleList(ModulatedBlock(width, features, periodic) for _ in range(count))
            )
        self.last = PaddedConvolution(widths[0], folded, periodic)
        # At first the samples are cuts through the random fields themselves.
        nn.init.zeros_(self.last.convolution.weight)
        self.encoder = Encoder(
            in_channels=folded,
            out_features=2 * latent_dim,
            widths=encoder_widths,
            condition=features,
            periodic=periodic,
        )
        last = nn.Linear(features, 2 * n_phases)
        # Spreads start wide, or the first errors would be worth hundreds of them.
        with torch.no_grad():
            last.bias[n_phases:] = 4.0
        self.fraction_head = nn.Sequential(nn.Linear(AMOUNT_FEATURES, features), nn.SiLU(), last)
        coarsest = max(len(widths), len(encoder_widths)) - 1
        self.size_multiple = FOLD * 2**coarsest

    def condition(
        self,
        process: Float[Tensor, "batch features"],
        code: Float[Tensor, "batch latent"],
    ) -> Float[Tensor, "batch features"]:
        """Return the condition vector of an embedded process and a standard code."""
        shape, amounts = process[:, : self.features], process[:, self.features :]
        return torch.cat([shape + self.code(code), amounts], 1)

    def noise_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of one sample's white noise."""
        return (self.fields.channels, *shape)

    def forward(
        self,
        white: Float[Tensor, "batch channel *space"],
        condition: Float[Tensor, "batch features"],
    ) -> Float[Tensor, "batch phase *space"]:
        """Return a field per phase, of unit spread over space."""
        features = F.silu(condition[:, : self.features])
        fields = self.fields(white, features)
        grids = [fold(fields)]
        for _ in self.levels[1:]:
            grids.append(halve(grids[-1]))
        x = self.grids[0](grids.pop())
        for index, blocks in enumerate(self.levels):
            if index:
                x = self.up[index - 1](x.movedim(1, -1)).movedim(-1, 1)
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
                x = x + self.grids[index](grids.pop())
            for block in cast(nn.ModuleList, blocks):
                x = block(x, features)
        # bf16 has too few digits to rank voxels for a cut at their fraction.
        with torch.autocast(x.device.type, enabled=False):
            change = unfold(self.last(F.leaky_relu(x.float(), SLOPE)), self.dim)
            field = fields[:, : self.n_phases] + smooth(change, self.last.periodic)
            field = field - field.mean(1, keepdim=True)
            # Over space alone: a drift of the mean, which no cut feels, must not soften phases.
            spread = field.flatten(2).var(2).mean(1).add(1e-6).sqrt()
            return field / spread.view(-1, *[1] * (field.ndim - 1))

    def encode(
        self,
        x: Float[Tensor, "batch phase *space"],
        process: Float[Tensor, "batch features"],
    ) -> tuple[Float[Tensor, "batch latent"], Float[Tensor, "batch latent"]]:
        """Return mean and log-variance of the code of images in ±1."""
        mean, log_variance = (
            self.encoder(fold(x), F.silu(process[:, : self.features])).float().chunk(2, 1)
        )
        return mean, log_variance.clamp(*CODE_LOG_VARIANCE)

    def standard_code(
        self,
        x: Float[Tensor, "batch phase *space"],
        process: Float[Tensor, "batch features"],
    ) -> Float[Tensor, "batch latent"]:
        """Return the expected code of images in ±1."""
        return self.encode(x, process)[0]

    def fractions(
        self, condition: Float[Tensor, "batch features"]
    ) -> tuple[Float[Tensor, "batch phase"], Float[Tensor, "batch phase"]]:
        """Return expected volume fractions (they sum to 1) and the log of their spread."""
        logits, log_spread = self.fraction_head(condition[:, self.features :]).chunk(2, 1)
        return F.softmax(logits, 1), 4 * torch.tanh(log_spread / 4) - 5


def smooth(
    x: Float[Tensor, "batch channel *space"], periodic: Sequence[bool]
) -> Float[Tensor, "batch channel *space"]:
    """Return x after binomial weights (1, 2, 1)/4 along every axis.

    Nothing that alternates from voxel to voxel is left, so that a cut has no stairs of the
    space-to-depth block and no place in a block is special.
    """
    x = pad(x, periodic)
    for axis in range(2, x.ndim):
        inner = x.shape[axis] - 2
        low, middle, high = (x.narrow(axis, start, inner) for start in range(3))
        x = (low + high) / 4 + middle / 2
    return x
