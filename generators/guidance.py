"""Classifier-free guidance: what the process changes, said louder."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from generators.denoiser import PhaseDenoiser
from generators.phase_net import PhaseNet
from microstructures import DataError
from networks.conditioning import ProcessEmbedding

MOST_GUIDANCE = 5.0


class GuidedDenoiser(PhaseNet):
    """A denoiser that moves away from what it would say of an unknown process.

        logits = unknown + weight (known - unknown),

    both for the same code and noisy image (Ho and Salimans 2022). Weight 1 is the denoiser itself;
    above 1 samples keep closer to what is typical of the process, at twice the cost.

    Limits: the samples are no longer draws from the learned distribution. Their scatter falls and
    their means drift with the weight; measure both before use (`mesoforge bench generators`).

    Args:
        denoiser: The denoiser, trained with hidden process values.
        weight: 1 to 5.
    """

    def __init__(self, denoiser: PhaseDenoiser, weight: float) -> None:
        super().__init__()
        if not 1 <= weight <= MOST_GUIDANCE:
            raise DataError(f"expected a guidance between 1 and {MOST_GUIDANCE:g}, got {weight}")
        self.denoiser, self.weight = denoiser, float(weight)
        self.n_phases, self.latent_dim = denoiser.n_phases, denoiser.latent_dim
        self.dim, self.size_multiple = denoiser.dim, denoiser.size_multiple

    @property
    def config(self) -> Mapping[str, Any]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Constructor arguments of the denoiser, and the guidance."""
        return {**self.denoiser.config, "guidance": self.weight}

    @property
    def process(self) -> ProcessEmbedding:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The denoiser's own embedding."""
        return self.denoiser.process

    @property
    def smoothing(self) -> float:
        """The denoiser's own."""
        return self.denoiser.smoothing

    def condition(
        self, process: Float[Tensor, "batch features"], code: Float[Tensor, "batch latent"]
    ) -> Float[Tensor, "batch twice"]:
        """Return the condition vectors of the known and the unknown process, side by side."""
        net = self.denoiser
        mean, log_variance = net.code_prior(process)
        raw = mean + (log_variance / 2).exp() * code
        units = process.new_full((len(process), len(net.process.unknown)), torch.nan)
        unknown = net.process(units)
        return torch.cat([net.condition_raw(process, raw), net.condition_raw(unknown, raw)], 1)

    def fractions(
        self, condition: Float[Tensor, "batch twice"]
    ) -> tuple[Float[Tensor, "batch phase"], Float[Tensor, "batch phase"]]:
        """Return what the denoiser expects of the fractions at the known process."""
        return self.denoiser.fractions(condition.chunk(2, 1)[0])

    def standard_code(
        self, x: Float[Tensor, "batch phase *space"], process: Float[Tensor, "batch features"]
    ) -> Float[Tensor, "batch latent"]:
        """Return the denoiser's code of clean images in ±1."""
        return self.denoiser.standard_code(x, process)

    def forward(
        self,
        x: Float[Tensor, "batch phase *space"],
        sigma: Float[Tensor, " batch"],
        condition: Float[Tensor, "batch twice"],
    ) -> Float[Tensor, "batch phase *space"]:
        """Return the guided logits of the phases of the clean image."""
        known, unknown = (self.denoiser(x, sigma, part) for part in condition.chunk(2, 1))
        return unknown + self.weight * (known - unknown)
