"""SectionDiffusion: volumes from models that have only ever seen plane sections."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from generators.ancestral import ancestral_logits
from generators.denoiser import PhaseDenoiser
from generators.diffusion import ConditionalDiffusion
from generators.generator import ConditionalGenerator
from generators.given_voxels import pin_given
from generators.phase_net import PhaseNet
from generators.smoothing import smooth
from microstructures import DataError, ProcessSpace

STEPS = 24
"""Default noise levels: with 8 the sections do not come to agree (twice the interfaces)."""

SECTION_PIXELS = 2**18
"""Pixels of sections that a net denoises at a time: bounds memory."""


class SectionDenoiser(PhaseNet):
    """A denoiser of volumes made of denoisers of sections.

    Every voxel lies in three sections, one normal to each axis. The logits of a section are what
    its context says plus the evidence of the voxel's own noisy value; their mean over the three
    is the mean context plus that evidence once, so that no voxel is counted three times (a
    geometric mean of three opinions; Lee and Yun 2024 take the planes in turn instead).

    Args:
        nets: One net for all sections of an isotropic material, or three, for sections normal
            to axis 0, 1 and 2. A section keeps the order of the axes that it has.
    """

    def __init__(self, nets: Sequence[PhaseDenoiser]) -> None:
        super().__init__()
        _check_nets(nets)
        self.nets = nn.ModuleList(nets)
        first = nets[0]
        self.n_phases, self.dim = first.n_phases, 3
        self.latent_dim = first.latent_dim
        self.size_multiple = max(net.size_multiple for net in nets)
        self.config = {
            "space": first.config["space"],
            "sections": [dict(net.config) for net in nets],
            "periodic": _periodic([net.config["periodic"] for net in nets]),
        }
        self.process = _JointEmbedding(nets)  # type: ignore[assignment]

    @property
    def smoothing(self) -> float:
        """Share of each neighbour's logits mixed in before the cut: the mean of the nets'."""
        shares = [net.smoothing for net in cast(Sequence[PhaseDenoiser], self.nets)]
        return sum(shares) / len(shares)

    def condition(
        self, process: Float[Tensor, "batch features"], code: Float[Tensor, "batch latent"]
    ) -> Float[Tensor, "batch features"]:
        """Return the condition vectors of all nets, side by side; they share the code."""
        return torch.cat([net.condition(part, code) for net, part in self._each(process)], 1)

    def fractions(
        self, condition: Float[Tensor, "batch features"]
    ) -> tuple[Float[Tensor, "batch phase"], Float[Tensor, "batch phase"]]:
        """Return the mean of what the nets expect of the fractions."""
        means, spreads = zip(
            *(net.fractions(part) for net, part in self._each(condition)), strict=True
        )
        return torch.stack(means).mean(0), torch.stack(spreads).mean(0)

    def standard_code(
        self, x: Float[Tensor, "batch phase *space"], process: Float[Tensor, "batch features"]
    ) -> Float[Tensor, "batch latent"]:
        """Return the mean code of the sections of clean volumes in ±1."""
        codes = []
        for normal, (net, part) in enumerate(self._by_normal(process)):
            sections = _sections(x, normal)
            count = x.shape[2 + normal]
            found = net.standard_code(sections, part.repeat_interleave(count, 0))
            codes.append(found.unflatten(0, (len(x), count)).mean(1))
        return torch.stack(codes).mean(0)

    def forward(
        self,
        x: Float[Tensor, "batch phase *space"],
        sigma: Float[Tensor, " batch"],
        condition: Float[Tensor, "batch features"],
    ) -> Float[Tensor, "batch phase *space"]:
        """Return logits of the phases of the clean volume."""
        total = torch.zeros_like(x)
        for normal, (net, part) in enumerate(self._by_normal(condition)):
            sections, count = _sections(x, normal), x.shape[2 + normal]
            rows = max(1, SECTION_PIXELS // sections[0, 0].numel())
            pieces = zip(
                sections.split(rows),
                sigma.repeat_interleave(count).split(rows),
                part.repeat_interleave(count, 0).split(rows),
                strict=True,
            )
            logits = torch.cat([net(*piece) for piece in pieces])
            total = total + logits.unflatten(0, (len(x), count)).movedim(1, 2 + normal)
        return total / self.dim

    def _each(self, features: Tensor) -> list[tuple[PhaseDenoiser, Tensor]]:
        """Return every net with its own features."""
        nets = cast(Sequence[PhaseDenoiser], self.nets)
        return list(zip(nets, features.chunk(len(nets), 1), strict=True))

    def _by_normal(self, features: Tensor) -> list[tuple[PhaseDenoiser, Tensor]]:
        """Return the net and its features for the sections normal to each axis."""
        pairs = self._each(features)
        return pairs * self.dim if len(pairs) == 1 else pairs


class SectionDiffusion(ConditionalGenerator):
    """Volumes whose plane sections look like those that 2-D diffusion models were trained on.

    Process, code, exact volume fractions and given voxels work as in every family.

    Limits: sections fix the two-point statistics of an isotropic material and the fractions, but
    not all of a volume: connectivity in 3-D is what the nets' idea of sections implies. Three
    models are taken to belong to one material; nothing checks that their sections can meet.
    Interfaces come out some 10 % too dense. A volume of n^3 costs 3 n sections of n^2 per step.

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
            [PhaseDenoiser(**{**section, "space": space}) for section in config["sections"]]
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
        logits = ancestral_logits(
            self.net,
            generators,
            condition,
            size=(len(self.phase_names), *shape),
            steps=steps,
            fractions=fractions,
            given=given,
        )
        share = cast(SectionDenoiser, self.net).smoothing
        smoothed = smooth(logits, share, periodic=self.periodic)
        return pin_given(smoothed, given)


class _JointEmbedding(nn.Module):
    """The process embeddings of all nets, side by side."""

    def __init__(self, nets: Sequence[PhaseDenoiser]) -> None:
        super().__init__()
        # A tuple: the nets are registered elsewhere, and must not be saved twice.
        self._each = tuple(net.process for net in nets)

    def forward(self, units: Tensor, *, drop: Tensor | None = None) -> Tensor:
        return torch.cat([embed(units, drop=drop) for embed in self._each], 1)


def _sections(x: Tensor, normal: int) -> Tensor:
    """Return all sections normal to an axis, `(batch * count, phase, *plane)`."""
    return x.movedim(2 + normal, 1).flatten(0, 1)


def _check_nets(nets: Sequence[PhaseDenoiser]) -> None:
    flat = all(net.dim == 2 for net in nets)
    kinds = [(net.config["space"], net.n_phases, net.latent_dim) for net in nets]
    features = {net.config["features"] for net in nets}
    if not flat or any(kind != kinds[0] for kind in kinds) or len(features) > 1:
        raise DataError(
            "expected models of 2-D sections with one process space, phase count, code and "
            "condition length, got models that differ or are not 2-D"
        )


def _periodic(planes: Sequence[Sequence[bool]]) -> list[bool]:
    """Return one flag per axis of the volume; each axis lies in two of the sections."""
    planes = list(planes) * 3 if len(planes) == 1 else list(planes)
    flags: list[set[bool]] = [set(), set(), set()]
    for normal, plane in enumerate(planes):
        for axis, flag in zip([a for a in range(3) if a != normal], plane, strict=True):
            flags[axis].add(bool(flag))
    if any(len(flag) > 1 for flag in flags):
        raise DataError(
            f"expected sections that agree on which axes are periodic, got {list(planes)}"
        )
    return [flag.pop() for flag in flags]
