"""A critic for adversarial training: how real a microstructure looks for its process."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from microstructures import ProcessSpace
from networks.conditioning import ProcessEmbedding
from networks.folding import FOLD, fold
from networks.padding import PaddedConvolution
from networks.unet import halve

SLOPE = 0.2  # of the leaky rectifier


class PlainBlock(nn.Module):
    """Two convolutions around a shortcut, without normalisation.

    Normalisation would hide amounts that a critic has to see, and it ties samples or places
    together in ways that a gradient penalty cannot hold; the second convolution starts at zero
    instead (Zhang et al. 2019; Huang et al. 2024).
    """

    def __init__(self, width_in: int, width_out: int, periodic: Sequence[bool]) -> None:
        super().__init__()
        self.convolution_in = PaddedConvolution(width_in, width_out, periodic)
        self.convolution_out = PaddedConvolution(width_out, width_out, periodic)
        self.widen = nn.Linear(width_in, width_out, bias=False) if width_in != width_out else None
        nn.init.zeros_(self.convolution_out.convolution.weight)

    def forward(self, x: Float[Tensor, "batch width *space"]) -> Float[Tensor, "batch out *space"]:
        h = self.convolution_in(F.leaky_relu(x, SLOPE))
        h = self.convolution_out(F.leaky_relu(h, SLOPE))
        if self.widen is not None:
            x = self.widen(x.movedim(1, -1)).movedim(-1, 1)
        return x + h


class Critic(nn.Module):
    """Scores of phase images given their process, blind to position on periodic axes.

    score = w . h + e . h / sqrt(features), with h from means and spreads over space of
    convolutional features of every level, and e the embedded process (projection; Miyato and
    Koyama 2018). The spread of h over the batch is one feature more, so that samples which are
    all alike give themselves away (minibatch statistics; Karras et al. 2018).

    Args:
        space: Process parameters.
        n_phases: Channels of the images.
        periodic: One flag per axis: wrap or reflect at the border.
        widths: Channels per level; the first level is a 2x space-to-depth grid, each further
            one halves it.
        features: Length of h and of the embedded process.
    """

    def __init__(
        self,
        *,
        space: ProcessSpace,
        n_phases: int,
        periodic: Sequence[bool],
        widths: Sequence[int],
        features: int,
    ) -> None:
        super().__init__()
        self.size_multiple = FOLD * 2 ** (len(widths) - 1)
        self.process = ProcessEmbedding(space, features)
        self.first = PaddedConvolution(n_phases * FOLD ** len(periodic), widths[0], periodic)
        befores = [widths[0], *widths[:-1]]
        self.blocks = nn.ModuleList(
            PlainBlock(before, after, periodic)
            for before, after in zip(befores, widths, strict=True)
        )
        self.mix = nn.Sequential(
            nn.Linear(2 * sum(widths) + 1, features),
            nn.LeakyReLU(SLOPE),
            nn.Linear(features, features),
            nn.LeakyReLU(SLOPE),
        )
        self.last = nn.Linear(features, 1)

    def forward(
        self,
        x: Float[Tensor, "batch phase *space"],
        units: Float[Tensor, "batch parameter"],
        drop: Bool[Tensor, "batch parameter"] | None = None,
    ) -> Float[Tensor, " batch"]:
        """Return the score of images in ±1 at unit coordinates of the process (NaN: unknown)."""
        h = self.first(fold(x))
        pooled = []
        for level, block in enumerate(self.blocks):
            h = block(halve(h) if level else h)
            flat = h.to(torch.promote_types(h.dtype, torch.float32)).flatten(2)
            mean = flat.mean(2)
            variance = flat.square().mean(2) - mean.square()
            # A square root has no bounded slope at zero, which a gradient penalty would meet.
            pooled += [mean, (variance.clamp_min(0) + 1e-4).sqrt()]
        statistics = torch.cat(pooled, 1)
        h = self.mix(torch.cat([statistics, batch_spread(statistics)], 1))
        e = self.process(units, drop=drop)
        return self.last(h)[:, 0] + (e * h).sum(1) / h.shape[1] ** 0.5


def batch_spread(
    features: Float[Tensor, "batch feature"],
) -> Float[Tensor, "batch 1"]:
    """Return the mean over features of their standard deviation over the batch, for each sample."""
    spread = (features.var(0, correction=0) + 1e-8).sqrt().mean()
    return spread.expand(len(features), 1)


def relativistic_loss(
    better: Float[Tensor, " batch"], worse: Float[Tensor, " batch"]
) -> Float[Tensor, ""]:
    """Return the loss of whoever wants the one score above its partner's.

    mean softplus(worse - better): the critic's with real against generated, the generator's with
    generated against real (Jolicoeur-Martineau 2018; with `gradient_penalty` on both sides the
    loss of Huang et al. 2024, "The GAN is dead; long live the GAN!").
    """
    return F.softplus(worse - better).mean()


def gradient_penalty(
    critic: Critic,
    x: Float[Tensor, "batch phase *space"],
    units: Float[Tensor, "batch parameter"],
    drop: Bool[Tensor, "batch parameter"] | None = None,
) -> Float[Tensor, ""]:
    """Return half the mean squared norm of the score's gradient with respect to the images.

    On real images R1, on generated ones R2 (Mescheder et al. 2018): zero where the critic has
    nothing left to say, which is what makes the game converge.
    """
    x = x.detach().requires_grad_()
    score = critic(x, units, drop).sum()
    (slope,) = torch.autograd.grad(score, x, create_graph=True)
    return 0.5 * slope.float().square().flatten(1).sum(1).mean()
