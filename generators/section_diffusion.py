"""SectionDiffusion: volumes from models that have only ever seen plane sections."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor

from generators.ancestral import ancestral_logits
from generators.denoiser import PhaseDenoiser
from generators.diffusion import ConditionalDiffusion
from generators.fractions import cut_exactly
from generators.generator import ConditionalGenerator, Process
from generators.given_voxels import pin_given
from generators.section_denoiser import OPINIONS, SectionDenoiser
from generators.section_matching import (
    SHARE_OF_PIXELS,
    matching_passes,
    smooth_often,
    unlike_neighbours,
    wanted_interfaces,
)
from microstructures import DataError, ProcessSpace
from microstructures.seeds import generator_for
from networks.conditioning import process_units

STEPS = 24
"""Default noise levels: fewer come out rougher, and lose longer correlations with smoothing."""

FEWEST_OPINIONS, MOST_OPINIONS = 1.0, 4.0
ROUGH_EXCESS = 1.05
SLOPE = -0.25
"""First guess of the change of the logarithm of interfaces with an opinion more."""


class SectionDiffusion(ConditionalGenerator):
    """Volumes whose plane sections look like those that 2-D diffusion models were trained on.

    Process, code, exact volume fractions and given voxels work as in every family.

    Limits: sections fix the two-point statistics of an isotropic material and the fractions, but
    not all of a volume: connectivity in 3-D is what the nets' idea of sections implies. Three
    models are taken to belong to one material; nothing checks that their sections can meet.
    Where the sections do not fit together into interfaces as smooth as theirs, the volume is
    smoothed until its own sections have as many, and `fit_opinions` lessens what there is to
    smooth; no volume is ever compared with. Specks of single voxels can remain, which spoil the
    Euler density. A volume of n^3 costs 3 n sections of n^2 per step.

    >>> flat = ConditionalDiffusion.from_pretrained("spinodal-2d-diffusion")  # doctest: +SKIP
    >>> volumes = SectionDiffusion.of_sections(flat)  # doctest: +SKIP
    >>> volumes.sample({"composition": 0.5}, n=1, shape=(64, 64, 64), seed=0)  # doctest: +SKIP
    """

    least_steps: ClassVar[int] = 2
    most_steps: ClassVar[int] = 128

    @classmethod
    def of_sections(cls, *models: ConditionalDiffusion) -> "SectionDiffusion":
        """Return the generator of volumes of one model of sections, or one per normal axis.

        Raises:
            DataError: Not one or three models of 2-D sections, or they differ in process space,
                phases, code, voxel or in the periodicity of an axis.
        """
        if len(models) not in (1, 3):
            raise DataError(
                f"expected one model of sections, or three (normal to axis 0, 1, 2), got "
                f"{len(models)}"
            )
        first = models[0]
        alike = [(m.voxel_size_um, m.phase_names, m.match_fractions) for m in models]
        if any(entry != alike[0] for entry in alike):
            raise DataError(f"expected sections of one voxel size and phases, got {alike}")
        net = SectionDenoiser([model.denoiser for model in models])
        return cls(
            net,
            space=first.space,
            voxel_size_um=first.voxel_size_um,
            periodic=net.config["periodic"],
            phase_names=first.phase_names,
            match_fractions=first.match_fractions,
            density=first.training_density,
            steps=STEPS,
        )

    @staticmethod
    def _net(config: Mapping[str, Any], space: ProcessSpace) -> SectionDenoiser:
        return SectionDenoiser(
            [PhaseDenoiser(**{**section, "space": space}) for section in config["sections"]],
            opinions=config.get("opinions", OPINIONS),
            interfaces=config.get("interfaces"),
        )

    @torch.no_grad()
    def fit_opinions(
        self,
        process: Process,
        *,
        shape: Sequence[int],
        seed: int,
        interfaces: float | None = None,
    ) -> float:
        """Set, and return, how many opinions three sections are worth at a process point.

        Two pilot volumes of the given shape are drawn with different weights and the logarithm of
        their interfaces, before any smoothing, is interpolated to a little more than that of the
        sections: the smoothing of each volume takes the rest. Only sections are used.

        Args:
            process: Process point.
            shape: Voxels of a pilot volume.
            seed: Draws the pilots.
            interfaces: Interfaces per voxel (`unlike_neighbours`) of the sections that the models
                learned from, kept for every volume to come; without it, those that models draw.

        Raises:
            DataError: The process or shape does not fit the model.
        """
        net = cast(SectionDenoiser, self.net)
        self._check_shape(shape)
        net.interfaces = interfaces
        units = process_units(self.space, [process])
        condition = net.condition(net.process(units), torch.zeros(1, self.latent_dim))
        fractions, _ = net.fractions(condition)
        fractions = fractions.double() / fractions.double().sum()

        def excess(weight: float) -> float:
            net.opinions = weight
            generators = [generator_for(seed, "pilot")]
            logits = self._walk(condition, generators, shape, fractions, None, self.steps)
            made = unlike_neighbours(cut_exactly(logits, fractions), self.periodic)
            return math.log(float(made) / wanted)

        generator = generator_for(seed, "pilot sections")
        wanted = ROUGH_EXCESS * self._wanted_interfaces(
            shape, condition[0], generator, fractions[0]
        )
        first = excess(OPINIONS)
        guess = _within(OPINIONS - first / SLOPE)
        slope = SLOPE
        if abs(guess - OPINIONS) > 0.1:
            slope = min((excess(guess) - first) / (guess - OPINIONS), SLOPE / 4)
        net.opinions = _within(OPINIONS - first / slope)
        return net.opinions

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
        logits = self._walk(condition, generators, shape, fractions, given, steps)
        parts = []
        for k, generator in enumerate(generators):
            wanted = None if fractions is None else fractions[k]
            sample = logits[k : k + 1]
            passes = self._passes(sample.detach(), condition[k].detach(), generator, wanted, given)
            parts.append(smooth_often(sample, passes, periodic=self.periodic))
        return pin_given(torch.cat(parts), given)

    def _walk(
        self,
        condition: Tensor,
        generators: Sequence[torch.Generator],
        shape: Sequence[int],
        fractions: Tensor | None,
        given: Tensor | None,
        steps: int,
    ) -> Float[Tensor, "batch phase *space"]:
        """Return the logits at the end of the reverse walk, before any smoothing."""
        return ancestral_logits(
            self.net,
            generators,
            condition,
            size=(len(self.phase_names), *shape),
            steps=steps,
            fractions=fractions,
            given=given,
        )

    def _passes(
        self,
        logits: Tensor,
        condition: Tensor,
        generator: torch.Generator,
        fractions: Tensor | None,
        given: Tensor | None,
    ) -> float:
        """Return the smoothing after which a volume's sections have their nets' interfaces."""
        wanted = self._wanted_interfaces(logits.shape[2:], condition, generator, fractions)

        def cut(soft: Tensor) -> Tensor:
            if fractions is None:
                return pin_given(soft, given).argmax(1)
            return cut_exactly(soft, fractions[None], given)

        return matching_passes(logits, wanted, cut, periodic=self.periodic)

    def _wanted_interfaces(
        self,
        shape: Sequence[int],
        condition: Tensor,
        generator: torch.Generator,
        fractions: Tensor | None,
    ) -> float:
        """Return the interfaces of the sections, else of those that the nets draw, mean of axes."""
        net = cast(SectionDenoiser, self.net)
        if net.interfaces is not None:
            return net.interfaces
        found = [
            wanted_interfaces(
                flat,
                part[0],
                [n for axis, n in enumerate(shape) if axis != normal],
                pixels=int(SHARE_OF_PIXELS * math.prod(shape) / 3),
                fractions=fractions,
                generator=generator,
            )
            for normal, (flat, part) in enumerate(net.by_normal(condition[None]))
        ]
        return sum(found) / len(found)


def _within(weight: float) -> float:
    return min(max(weight, FEWEST_OPINIONS), MOST_OPINIONS)
