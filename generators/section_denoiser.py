"""SectionDenoiser: a denoiser of volumes made of denoisers of their plane sections."""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from generators.denoiser import PhaseDenoiser
from generators.phase_net import PhaseNet
from generators.plane_sections import all_sections, volume_periodicity
from microstructures import DataError

LOG_SPREAD = -16.0

SECTION_PIXELS = 2**18
"""Pixels of sections that a net denoises at a time: bounds memory."""

OPINIONS = 2.0
"""How many independent opinions three sections are worth, unless it is fitted: rather too few, as
a volume that comes out rough is smoothed, and one too smooth stays so."""


class SectionDenoiser(PhaseNet):
    """A denoiser of volumes made of denoisers of sections.

    Every voxel lies in three sections, one normal to each axis. The logits of a section are what
    its context says plus the evidence 2 x / sigma^2 of the voxel's own noisy value, which must
    count once, while the mean context counts w times:

        logits = 2 x / sigma^2 + w (mean context).

    Three opinions that repeat each other are worth one (w = 1, their geometric mean), independent
    ones multiply (w = 3; Hinton 2002). With w = 1 volumes are denoised too timidly, come out
    rough, and lose their longer correlations with the smoothing that this takes; with too large a
    w they come out smoother than the sections. Lee and Yun (2024) take the planes in turn instead.

    Args:
        nets: One net for all sections of an isotropic material, or three, for sections normal
            to axis 0, 1 and 2. A section keeps the order of the axes that it has.
        opinions: The weight w of the mean context.
        interfaces: Interfaces per voxel (`unlike_neighbours`) of the sections that the nets
            learned from, which volumes are matched to; without it, those of sections they draw.
    """

    def __init__(
        self,
        nets: Sequence[PhaseDenoiser],
        *,
        opinions: float = OPINIONS,
        interfaces: float | None = None,
    ) -> None:
        super().__init__()
        _check_nets(nets)
        # A sixth faster on a processor: sections are many, and their channels few.
        self.nets = nn.ModuleList(nets).to(memory_format=torch.channels_last)  # type: ignore
        first = nets[0]
        self.n_phases, self.dim = first.n_phases, 3
        self.latent_dim = first.latent_dim
        self.size_multiple = max(net.size_multiple for net in nets)
        self.config = {
            "space": first.config["space"],
            "sections": [dict(net.config) for net in nets],
            "periodic": volume_periodicity([net.config["periodic"] for net in nets]),
            "opinions": float(opinions),
            "interfaces": interfaces,
        }
        self.process = _JointEmbedding(nets)  # type: ignore[assignment]

    def condition(
        self, process: Float[Tensor, "batch features"], code: Float[Tensor, "batch latent"]
    ) -> Float[Tensor, "batch features"]:
        """Return the condition vectors of all nets, side by side; they share the code."""
        return torch.cat([net.condition(part, code) for net, part in self._each(process)], 1)

    def fractions(
        self, condition: Float[Tensor, "batch features"]
    ) -> tuple[Float[Tensor, "batch phase"], Float[Tensor, "batch phase"]]:
        """Return the mean of what the nets expect of the fractions, all but without spread.

        The spread that a net knows is that of single crops; a volume is made of hundreds.
        """
        means, spreads = zip(
            *(net.fractions(part) for net, part in self._each(condition)), strict=True
        )
        return torch.stack(means).mean(0), torch.full_like(spreads[0], LOG_SPREAD)

    def standard_code(
        self, x: Float[Tensor, "batch phase *space"], process: Float[Tensor, "batch features"]
    ) -> Float[Tensor, "batch latent"]:
        """Return the mean code of the sections of clean volumes in ±1."""
        codes = []
        for normal, (net, part) in enumerate(self.by_normal(process)):
            sections = all_sections(x, normal)
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
        for normal, (net, part) in enumerate(self.by_normal(condition)):
            sections, count = all_sections(x, normal), x.shape[2 + normal]
            rows = max(1, SECTION_PIXELS // sections[0, 0].numel())
            pieces = zip(
                sections.split(rows),
                sigma.repeat_interleave(count).split(rows),
                part.repeat_interleave(count, 0).split(rows),
                strict=True,
            )
            logits = torch.cat([net(*piece) for piece in pieces])
            total = total + logits.unflatten(0, (len(x), count)).movedim(1, 2 + normal)
        evidence = 2 * x / _per_sample(sigma, x).square()
        return evidence + self.opinions * (total / self.dim - evidence)

    @property
    def opinions(self) -> float:
        """Weight of the mean context."""
        return self.config["opinions"]

    @opinions.setter
    def opinions(self, weight: float) -> None:
        self.config = {**self.config, "opinions": float(weight)}

    @property
    def interfaces(self) -> float | None:
        """Interfaces per voxel of the sections that the nets learned from, where known."""
        return self.config["interfaces"]

    @interfaces.setter
    def interfaces(self, share: float | None) -> None:
        self.config = {**self.config, "interfaces": share}

    def _each(self, features: Tensor) -> list[tuple[PhaseDenoiser, Tensor]]:
        """Return every net with its own features."""
        nets = cast(Sequence[PhaseDenoiser], self.nets)
        return list(zip(nets, features.chunk(len(nets), 1), strict=True))

    def by_normal(self, features: Tensor) -> list[tuple[PhaseDenoiser, Tensor]]:
        """Return the net and its features for the sections normal to each axis."""
        pairs = self._each(features)
        return pairs * self.dim if len(pairs) == 1 else pairs


class _JointEmbedding(nn.Module):
    """The process embeddings of all nets, side by side."""

    def __init__(self, nets: Sequence[PhaseDenoiser]) -> None:
        super().__init__()
        # A tuple: the nets are registered elsewhere, and must not be saved twice.
        self._each = tuple(net.process for net in nets)

    def forward(self, units: Tensor, *, drop: Tensor | None = None) -> Tensor:
        return torch.cat([embed(units, drop=drop) for embed in self._each], 1)


def _per_sample(values: Tensor, x: Tensor) -> Tensor:
    return values.view(-1, *[1] * (x.ndim - 1)).to(x)


def _check_nets(nets: Sequence[PhaseDenoiser]) -> None:
    flat = all(net.dim == 2 for net in nets)
    kinds = [(net.config["space"], net.n_phases, net.latent_dim) for net in nets]
    features = {net.config["features"] for net in nets}
    if not flat or any(kind != kinds[0] for kind in kinds) or len(features) > 1:
        raise DataError(
            "expected models of 2-D sections with one process space, phase count, code and "
            "condition length, got models that differ or are not 2-D"
        )
