"""ConditionalDiffusion: process parameters and a latent code → microstructures."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor

from generators.denoiser import PhaseDenoiser
from generators.generator import ConditionalGenerator
from generators.guidance import GuidedDenoiser
from generators.sample_noise import white_noise
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
        """The denoising net, without guidance."""
        net = self.net.denoiser if isinstance(self.net, GuidedDenoiser) else self.net
        return cast(PhaseDenoiser, net)

    @staticmethod
    def _net(config: Mapping[str, Any], space: ProcessSpace) -> PhaseDenoiser | GuidedDenoiser:
        weight = config.get("guidance")
        own = {key: value for key, value in config.items() if key != "guidance"}
        denoiser = PhaseDenoiser(**{**own, "space": space})
        return denoiser if weight is None else GuidedDenoiser(denoiser, weight)

    def guided(self, weight: float) -> "ConditionalDiffusion":
        """Return this model with classifier-free guidance on the process (`GuidedDenoiser`).

        Raises:
            DataError: The weight is not between 1 and 5.
        """
        return ConditionalDiffusion(
            GuidedDenoiser(self.denoiser, weight),
            space=self.space,
            voxel_size_um=self.voxel_size_um,
            periodic=self.periodic,
            phase_names=self.phase_names,
            match_fractions=self.match_fractions,
            density=self.training_density,
            steps=self.steps,
        )

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
        noise = white_noise(generators, size)
        net = cast(PhaseDenoiser | GuidedDenoiser, self.net)
        return sample_logits(net, noise, condition, steps=steps, fractions=fractions, given=given)
