"""EncodedNet: a net whose code comes from an encoder, with a prior that follows the process."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from generators.phase_net import PhaseNet
from networks.folding import FOLD, fold
from networks.unet import Encoder


class EncodedNet(PhaseNet):
    """A net with the code of a diffusion autoencoder (Preechakul et al. 2022).

    An encoder takes the raw code from an image and its process. Training holds it near a Gaussian
    prior that is itself a function of the process, so that the code need not repeat what the
    process says; the public code is that Gaussian made standard, N(0, I). A small head gives mean
    and spread of the volume fractions.
    """

    code: nn.Linear
    prior: nn.Sequential
    encoder: Encoder
    fraction_head: nn.Sequential

    def build_code(self, widths: Sequence[int], features: int, periodic: Sequence[bool]) -> None:
        """Add the layers of code, prior and fractions; `widths` are those of the main net."""
        latent = self.latent_dim
        self.code = nn.Linear(latent, features)
        self.prior = nn.Sequential(
            nn.SiLU(), nn.Linear(features, features), nn.SiLU(), nn.Linear(features, 2 * latent)
        )
        self.encoder = Encoder(
            in_channels=self.n_phases * FOLD**self.dim,
            out_features=2 * latent,
            widths=[max(8, w // 2) for w in widths],
            condition=features,
            periodic=periodic,
        )
        self.fraction_head = nn.Sequential(
            nn.Linear(features, features), nn.SiLU(), nn.Linear(features, 2 * self.n_phases)
        )

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

    def silence_code(self) -> None:
        """Make the condition independent of the code, for good: the code then says nothing."""
        for parameter in self.code.parameters():
            nn.init.zeros_(parameter).requires_grad_(False)

    def code_prior(
        self, process: Float[Tensor, "batch features"]
    ) -> tuple[Float[Tensor, "batch latent"], Float[Tensor, "batch latent"]]:
        """Return mean and log-variance of the encoder's codes at an embedded process."""
        mean, log_variance = self.prior(process).float().chunk(2, 1)
        return mean, log_variance.clamp(-8, 2)

    def encode(
        self,
        x: Float[Tensor, "batch phase *space"],
        process: Float[Tensor, "batch features"],
    ) -> tuple[Float[Tensor, "batch latent"], Float[Tensor, "batch latent"]]:
        """Return mean and log-variance of the raw code of clean images in ±1."""
        mean, log_variance = self.encoder(fold(x), F.silu(process)).float().chunk(2, 1)
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
        logits, log_spread = self.fraction_head(F.silu(condition)).float().chunk(2, 1)
        return F.softmax(logits, 1), 4 * torch.tanh(log_spread / 4) - 5
