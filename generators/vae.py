"""ConditionalVAE: process parameters and a latent code → microstructures, in one evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from generators.fractions import balance
from generators.generator import ConditionalGenerator
from generators.given_voxels import fit_noise
from generators.sample_noise import white_noise
from generators.vae_net import PhaseLadder
from microstructures import ProcessSpace


class ConditionalVAE(ConditionalGenerator):
    """A hierarchical variational autoencoder conditioned on process parameters.

    White noise on grids from coarse to fine, and a global code, decode to logits of the phases
    in one net evaluation; the noise is fixed by the seed, so that samples are cuts of sharp
    logits and no blurred means. Given voxels are met by gradient steps on the noise before they
    are kept. See `ConditionalGenerator` for what a request may hold and for the limits.

    >>> model = ConditionalVAE.from_pretrained("spinodal-2d-vae")  # doctest: +SKIP
    >>> model.sample({"composition": 0.5}, n=4, shape=(64, 64), seed=0)  # doctest: +SKIP
    """

    @property
    def ladder(self) -> PhaseLadder:
        """The net."""
        return cast(PhaseLadder, self.net)

    @staticmethod
    def _net(config: Mapping[str, Any], space: ProcessSpace) -> PhaseLadder:
        return PhaseLadder(**{**config, "space": space})

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
        noises = [white_noise(generators, size) for size in self.ladder.noise_shapes(shape)]

        def render(fields: list[Tensor]) -> Tensor:
            logits, _ = self.ladder(fields, condition)
            if fractions is None:
                return logits
            offsets = balance(logits.detach(), fractions)
            return logits + offsets.view(*offsets.shape, *[1] * len(shape))

        return render(noises if given is None else fit_noise(render, noises, given))
