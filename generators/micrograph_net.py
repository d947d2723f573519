"""The denoising net of grey micrographs: noisy grey and phases → clean grey."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from microstructures import ProcessSpace
from networks.conditioning import ProcessEmbedding, ScalarEmbedding
from networks.folding import FOLD, fold, unfold
from networks.unet import UNet

# Grey levels that make tones numbers of order one.
MIDDLE_GREY, USUAL_CONTRAST = 128.0, 16.0


class MicrographDenoiser(nn.Module):
    """Mean grey image given a noisy one, the phases, and how the micrograph was taken.

    Grey is standardised by the tone, the mean and the standard deviation of the whole picture
    (brightness and contrast are knobs of the detector), so data has unit variance and the
    preconditioning of Karras et al. (2022) with sigma_data = 1 applies:

        D(x) = x / (1 + sigma^2) + sigma / sqrt(1 + sigma^2) F(x / sqrt(1 + sigma^2), phases, ...)

    with F the U-Net, which sees one-hot phases (±1) as further channels at every noise level.

    Args:
        space: Parameters of the data's process, by which micrographs of one material differ.
        n_phases: Number of phases.
        periodic: One flag per axis: wrap or reflect at the border.
        widths: Channels per level of the U-Net; the first level is a 2x space-to-depth grid.
        blocks: Residual blocks per level.
        features: Length of the condition vector.
    """

    def __init__(
        self,
        *,
        space: ProcessSpace,
        n_phases: int,
        periodic: Sequence[bool],
        widths: Sequence[int],
        blocks: int,
        features: int,
    ) -> None:
        super().__init__()
        self.config = {
            "space": space.to_json(),
            "n_phases": n_phases,
            "periodic": list(periodic),
            "widths": list(widths),
            "blocks": blocks,
            "features": features,
        }
        self.dim, self.n_phases = len(periodic), n_phases
        self.process = ProcessEmbedding(space, features)
        self.tone = nn.Sequential(nn.Linear(2, features), nn.SiLU(), nn.Linear(features, features))
        self.noise = ScalarEmbedding(features)
        self.unet = UNet(
            in_channels=(1 + n_phases) * FOLD**self.dim,
            out_channels=FOLD**self.dim,
            widths=widths,
            blocks=blocks,
            condition=features,
            periodic=periodic,
        )
        self.size_multiple = FOLD * self.unet.size_multiple

    def condition(
        self, units: Float[Tensor, "batch parameter"], tone: Float[Tensor, "batch 2"]
    ) -> Float[Tensor, "batch features"]:
        """Return the condition vector of process coordinates and (mean, deviation) in grey."""
        mean, deviation = tone.unbind(1)
        scaled = [mean / MIDDLE_GREY - 1, (deviation.clamp_min(1) / USUAL_CONTRAST).log()]
        return self.process(units) + self.tone(torch.stack(scaled, 1))

    def raw(
        self,
        x: Float[Tensor, "batch 1 *space"],
        sigma: Float[Tensor, " batch"],
        indicators: Float[Tensor, "batch phase *space"],
        condition: Float[Tensor, "batch features"],
    ) -> Float[Tensor, "batch 1 *space"]:
        """Return F, the U-Net's own output, of which training makes unit variance."""
        column = sigma.view(-1, *[1] * (x.ndim - 1))
        seen = torch.cat([x / (1 + column.square()).sqrt(), indicators], 1)
        features = F.silu(condition + self.noise(sigma.log()))
        return unfold(self.unet(fold(seen), features), self.dim).float()
