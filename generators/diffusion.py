"""ConditionalDiffusion: process parameters and a latent code → microstructures."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor

from generators.denoiser import PhaseDenoiser
from generators.generator import ConditionalGenerator
from generators.sampler import MOST_STEPS, sample_logits
from microstructures import ProcessSpace


class ConditionalDiffusion(ConditionalGenerator):
    """A diffusion autoencoder conditioned on process parameters.

    The denoiser's probability-flow ODE turns unit noise into phases in at most 16 net
    evaluations, 8 by default; given voxels guide every one of them. See `ConditionalGenerator`
    for what a request may hold and for the limits.

    >>> model = ConditionalDiffusion.from_pretrained("spinodal-2d-diffusion")  # doctest: +SKIP
    >>> model.sample({"composition": 0.5}, n=4, shape=(64, 64), seed=0)  # doctest: +SKIP
    """

    least_steps: ClassVar[int] = 2
    most_steps: ClassVar[int] = MOST_STEPS

    @property
    def denoiser(self) -> PhaseDenoiser:
        """The denoising net."""
        return cast(PhaseDenoiser, self.net)

    @staticmethod
    def _net(config: Mapping[str, Any], space: ProcessSpace) -> PhaseDenoiser:
        return PhaseDenoiser(**{**config, "space": space})

    def _logits(
        self,
        condition: Float[Tensor, "batch features"],
        generators: Sequence[torch.Generator],
        *,
        shape: Sequence[int],
        fractions: Float[Tensor, "batch phase"] | None,
        given: Tensor | None,
        steps: int,
    ) -> Float[Tensor, "batch phase *space"]:
        size = (len(self.phase_names), *shape)
        noise = torch.stack([torch.randn(size, generator=g) for g in generators])
        return sample_logits(
            self.denoiser, noise, condition, steps=steps, fractions=fractions, given=given
        )
