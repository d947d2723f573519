"""The denoising net of the diffusion generator: noisy phases → probability of each phase."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from generators.phase_net import PhaseNet
from microstructures import ProcessSpace
from networks.conditioning import ProcessEmbedding, ScalarEmbedding
from networks.folding import FOLD, fold, unfold
from networks.unet import Encoder, UNet


class PhaseDenoiser(PhaseNet):
    """Posterior phase probabilities of a noisy microstructure, its code, and its fractions.

    Phases are one-hot channels scaled to ±1. With noise of standard deviation sigma on each
    channel the exact log-likelihood of phase p at a voxel is 2 x_p / sigma^2 + const, so the net
    only has to learn what the neighbourhood says:

        logits = net(x / sqrt(1 + sigma^2), log sigma, process, code) + 2 x / sigma^2.

    The denoised image is 2 softmax(logits) - 1: at any noise level it is a true mean of one-hot
    images (a categorical take on Karras et al. 2022). The code comes from a jointly trained
    encoder (diffusion autoencoder; Preechakul et al. 2022) held near a Gaussian prior that is
    itself a function of the process, so that the code need not repeat what the process says; the
    public code is that Gaussian made standard, N(0, I). A small head predicts mean and spread of
    the volume fractions from process and code.

    Args:
        space: Process parameters.
        n_phases: Number of phases.
        periodic: One flag per axis: wrap or reflect at the border.
        widths: Channels per level of the U-Net; the first level is a 2x space-to-depth grid.
        blocks: Residual blocks per level.
        latent_dim: Length of the code.
        features: Length of the condition vector.
        smoothing: Share of each neighbour's logits that the sampler mixes in before the cut.
    """

    def __init__(
        self,
        *,
        space: ProcessSpace,
        n_phases: int,
        periodic: Sequence[bool],
        widths: Sequence[int],
        blocks: int,
        latent_dim: int,
        features: int,
        smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.config = {
            "space": space.to_json(),
            "n_phases": n_phases,
            "periodic": list(periodic),
            "widths": list(widths),
            "blocks": blocks,
            "latent_dim": latent_dim,
            "features": features,
            "smoothing": float(smoothing),
        }
        self.n_phases, self.latent_dim, self.dim = n_phases, latent_dim, len(periodic)
        folded = n_phases * FOLD**self.dim
        self.process = ProcessEmbedding(space, features)
        self.noise = ScalarEmbedding(features)
        self.code = nn.Linear(latent_dim, features)
        self.prior = nn.Sequential(
            nn.SiLU(), nn.Linear(features, features), nn.SiLU(), nn.Linear(features, 2 * latent_dim)
        )
        self.unet = UNet(
            in_channels=folded,
            out_channels=folded,
            widths=widths,
            blocks=blocks,
            condition=features,
            periodic=periodic,
        )
        self.encoder = Encoder(
            in_channels=folded,
            out_features=2 * latent_dim,
            widths=[max(8, w // 2) for w in widths],
            condition=features,
            periodic=periodic,
        )
        self.fraction_head = nn.Sequential(
            nn.Linear(features, features), nn.SiLU(), nn.Linear(features, 2 * n_phases)
        )
        self.size_multiple = FOLD * self.unet.size_multiple

    @property
    def smoothing(self) -> float:
        """Share of each neighbour's logits that the sampler mixes in before the cut."""
        return self.config["smoothing"]

    @smoothing.setter
    def smoothing(self, share: float) -> None:
        self.config = {**self.config, "smoothing": float(share)}

    def condition(
        self,
        process: Float[Tensor, "batch features"],
        code: Float[Tensor, "batch latent"],
    ) -> Float[Tensor, "batch features"]:
        """Return the condition vector of an embedded process and a standard code."""
        mean, log_variance = self.code_prior(process)
        return self.condition_raw(process, mean + (log_variance / 2).exp() * code)

    def condition_raw(
        self,
        process: Float[Tensor, "batch features"],
        raw_code: Float[Tensor, "batch latent"],
    ) -> Float[Tensor, "batch features"]:
        """Return the condition vector of an embedded process and a code of the encoder."""
        return process + self.code(raw_code)

    def code_prior(
        self, process: Float[Tensor, "batch features"]
    ) -> tuple[Float[Tensor, "batch latent"], Float[Tensor, "batch latent"]]:
        """Return mean and log-variance of the encoder's codes at an embedded process."""
        mean, log_variance = self.prior(process).chunk(2, 1)
        return mean, log_variance.clamp(-8, 2)

    def forward(
        self,
        x: Float[Tensor, "batch phase *space"],
        sigma: Float[Tensor, " batch"],
        condition: Float[Tensor, "batch features"],
    ) -> Float[Tensor, "batch phase *space"]:
        """Return logits of the phases of the clean image."""
        sigma_column = sigma.view(-1, *[1] * (x.ndim - 1))
        scaled = x / (1 + sigma_column.square()).sqrt()
        features = F.silu(condition + self.noise(sigma.log()))
        context = unfold(self.unet(fold(scaled), features), self.dim)
        return context + 2 * x / sigma_column.square()

    def encode(
        self,
        x: Float[Tensor, "batch phase *space"],
        process: Float[Tensor, "batch features"],
    ) -> tuple[Float[Tensor, "batch latent"], Float[Tensor, "batch latent"]]:
        """Return mean and log-variance of the raw code of clean images in ±1."""
        mean, log_variance = self.encoder(fold(x), F.silu(process)).chunk(2, 1)
        return mean, log_variance.clamp(-8, 4)

    def standard_code(
        self,
        x: Float[Tensor, "batch phase *space"],
        process: Float[Tensor, "batch features"],
    ) -> Float[Tensor, "batch latent"]:
        """Return the mean code of clean images in ±1, standardised by the process's prior."""
        mean, log_variance = self.code_prior(process)
        return (self.encode(x, process)[0] - mean) / (log_variance / 2).exp()

    def fractions(
        self, condition: Float[Tensor, "batch features"]
    ) -> tuple[Float[Tensor, "batch phase"], Float[Tensor, "batch phase"]]:
        """Return expected volume fractions (they sum to 1) and the log of their spread."""
        logits, log_spread = self.fraction_head(F.silu(condition)).chunk(2, 1)
        return F.softmax(logits, 1), 4 * torch.tanh(log_spread / 4) - 5
