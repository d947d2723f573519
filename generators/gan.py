"""ConditionalGAN: process parameters, a code and white noise → microstructures in one step."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from generators.fractions import balance
from generators.gan_net import PhaseGenerator
from generators.generator import ConditionalGenerator
from generators.given_voxels import fit_noise, pin_given
from generators.sample_noise import white_noise
from generators.soft_cut import SOFTNESS, centred
from microstructures import ProcessSpace

SHARPNESS = 32.0  # of the phases that come out, relative to those of training
ROUNDS = 5  # of doubling the slope, which reach it


class ConditionalGAN(ConditionalGenerator):
    """A generator trained against a critic; one net evaluation per sample.

    Trained on whole cells (`train_gan`), or on plane sections of volumes (`train_gan_on_sections`).

    Limits: those of every family, and that a GAN shows what its critic and its descriptors can
    tell from real structures, with no likelihood to fall back on. The volume fraction depends on
    the process and not on the code.

    >>> model = ConditionalGAN.from_pretrained("spinodal-2d-gan")  # doctest: +SKIP
    >>> model.sample({"composition": 0.5}, n=4, shape=(64, 64), seed=0)  # doctest: +SKIP
    """

    net: PhaseGenerator

    @staticmethod
    def _net(config: Mapping[str, Any], space: ProcessSpace) -> PhaseGenerator:
        return PhaseGenerator(**{**config, "space": space})

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
        """Return sharp logits; given voxels are met by fitting the noise to them."""
        size = self.net.noise_shape(shape)
        white = white_noise(generators, size)
        shifts = [self._shift(g) for g in generators]
        if given is not None:
            fixed = condition.detach()
            (white,) = fit_noise(
                lambda noise: _balanced(self._field(noise[0], fixed, shifts), fractions, rounds=0),
                [white],
                given,
            )
        logits = _balanced(self._field(white, condition, shifts), fractions, rounds=ROUNDS)
        return pin_given(logits, given)

    def _field(self, white: Tensor, condition: Tensor, shifts: Sequence[Sequence[int]]) -> Tensor:
        axes = tuple(range(1, self.net.dim + 1))
        fields = SOFTNESS * self.net(white, condition)
        moved = [x.roll(tuple(shift), axes) for x, shift in zip(fields, shifts, strict=True)]
        return torch.stack(moved)

    def _shift(self, generator: torch.Generator) -> list[int]:
        """Draw how far a sample is moved along its periodic axes.

        Interfaces are a tenth denser at some places of the net's coarsest blocks than at others;
        moved by up to a block, samples are alike everywhere.
        """
        block = self.net.size_multiple
        moves = torch.randint(block, (self.net.dim,), generator=generator).tolist()
        return [m if wraps else 0 for m, wraps in zip(moves, self.periodic, strict=True)]


def _balanced(
    logits: Float[Tensor, "batch phase *space"],
    fractions: Float[Tensor, "batch phase"] | None,
    *,
    rounds: int,
) -> Float[Tensor, "batch phase *space"]:
    """Return logits made steeper, shifted so that their mean phases are the fractions.

    The fixed point of `balance` contracts for soft phases alone; from there the slope doubles
    `rounds` times, and each time a few iterations follow the cut.
    """
    if fractions is not None:
        logits = centred(logits)
    for round_ in range(rounds + 1):
        logits = logits * (1.0 if round_ == 0 else SHARPNESS ** (1 / rounds))
        if fractions is not None:
            offsets = balance(logits.detach(), fractions, iterations=12 if round_ == 0 else 4)
            logits = logits + offsets.view(*offsets.shape, *[1] * (logits.ndim - 2))
    return logits
