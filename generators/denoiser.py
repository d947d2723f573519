"""The denoising net of the diffusion generator: noisy phases → probability of each phase."""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from generators.encoded_net import EncodedNet
from microstructures import ProcessSpace
from networks.conditioning import ProcessEmbedding, ScalarEmbedding
from networks.folding import FOLD, fold, unfold
from networks.unet import UNet


class PhaseDenoiser(EncodedNet):
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
        self.unet = UNet(
            in_channels=folded,
            out_channels=folded,
            widths=widths,
            blocks=blocks,
            condition=features,
            periodic=periodic,
        )
        self.build_code(widths, features, periodic)
        self.size_multiple = FOLD * self.unet.size_multiple

    @property
    def smoothing(self) -> float:
        """Share of each neighbour's logits that the sampler mixes in before the cut."""
        return self.config["smoothing"]

    @smoothing.setter
    def smoothing(self, share: float) -> None:
        self.config = {**self.config, "smoothing": float(share)}

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
