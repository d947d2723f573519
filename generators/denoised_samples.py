"""Samples of the denoiser's sampler, drawn so that its last steps can be trained."""

from collections.abc import Sequence

import torch
from torch import Tensor

from generators.denoiser import PhaseDenoiser
from generators.sample_noise import fractions_around
from generators.sampler import sample_logits

SLOPED_STEPS = 2  # net evaluations, from the last back, through which slopes run


class DenoisedSamples:
    """Samples as `ConditionalDiffusion` draws them, differentiable in the last net evaluations.

    The noise at the start of those evaluations is what the net itself made of it, so what they
    learn is to mend the errors that the steps before left. Slopes through all steps would cost
    three times as much and, each being small, add up to little but noise.

    Args:
        denoiser: The net, its code's prior and smoothing fitted.
        shape: Voxels along each axis of the samples.
        steps: Net evaluations per sample.
        match_fractions: Draw fractions from the fraction head as generation does; else samples
            keep the amounts that they come to.
    """

    def __init__(
        self, denoiser: PhaseDenoiser, *, shape: Sequence[int], steps: int, match_fractions: bool
    ) -> None:
        self.denoiser, self.shape = denoiser, tuple(shape)
        self.steps, self.match_fractions = steps, match_fractions
        self.periodic = denoiser.config["periodic"]

    def noises(self, n: int, generator: torch.Generator) -> list[Tensor]:
        """Return white noise: for the code, for the fractions, for the image."""
        phases = self.denoiser.n_phases
        sizes = [(self.denoiser.latent_dim,), (phases,), (phases, *self.shape)]
        return [torch.randn(n, *size, generator=generator) for size in sizes]

    def __call__(
        self, clean: Tensor, units: Tensor, drop: Tensor, noises: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """Return logits and fractions (see `PriorSamples`)."""
        net, (code, amounts, image) = self.denoiser, noises
        condition = net.condition(net.process(units, drop=drop), code)
        fractions = None
        if self.match_fractions:
            with torch.no_grad():
                fractions = fractions_around(*net.fractions(condition), amounts)
        logits = sample_logits(
            net, image, condition, steps=self.steps, fractions=fractions, sloped=SLOPED_STEPS
        )
        return logits, fractions
