"""What one step of training on sections draws: process points, noise of volumes, real sections."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from generators.augmentation import augment
from generators.axis_symmetry import augmentation_settings
from generators.descriptor_matching import DEGREE, DescriptorMatching, least_squares
from generators.gan_net import PhaseGenerator
from generators.gan_training import GanSettings, phase_shares
from generators.phase_net import signed_indicators
from generators.plane_sections import AXES, volume_shape
from microstructures.dataset import MicrostructureDataset


class SectionDraw:
    """Draw process points, codes, white noise of volumes, and real sections of those points.

    The tensors: units, hidden values, code, white noise, the first section that is judged along
    each axis, and for each judge its real sections, as many per volume as it sees made ones.
    """

    def __init__(
        self,
        sections: Sequence[MicrostructureDataset],
        settings: GanSettings,
        net: PhaseGenerator,
    ) -> None:
        self.sections, self.settings = list(sections), settings
        self.sides = volume_sides(sections)
        self.noise_shape = net.noise_shape(self.sides)
        points, self.point = _points(sections[0])
        self.rows = [_rows_nearest(data, points) for data in sections]
        self.augmentations = [augmentation_settings(settings, data) for data in sections]
        if len(self.sections) == AXES:
            self.augmentations = [{**each, "isotropic": False} for each in self.augmentations]

    def __call__(self, batch: Tensor, generator: torch.Generator) -> list[Tensor]:
        settings = self.settings
        units = self.sections[0].process_units[batch]
        drop = torch.rand(units.shape, generator=generator) < settings.parameter_dropout
        code = torch.randn(len(batch), settings.latent_dim, generator=generator)
        white = torch.randn(len(batch), *self.noise_shape, generator=generator)
        starts = (torch.rand(AXES, generator=generator) * torch.tensor(self.sides)).long()
        counts = [min(settings.sections, side) for side in self.sides]
        counts = counts if len(self.sections) == AXES else [sum(counts)]
        real = [
            self._real(kind, batch, count, generator)
            for kind, count in zip(self._kinds(), counts, strict=True)
        ]
        return [units, drop, code, white, starts, *real]

    def _kinds(self) -> Iterator[tuple[MicrostructureDataset, list[Tensor], dict[str, Any]]]:
        return zip(self.sections, self.rows, self.augmentations, strict=True)

    def _real(
        self,
        kind: tuple[MicrostructureDataset, list[Tensor], dict[str, Any]],
        batch: Tensor,
        count: int,
        generator: torch.Generator,
    ) -> Tensor:
        (data, rows, augmentation), chosen = kind, []
        for point in self.point[batch].tolist():
            fitting = rows[point]
            chosen.append(fitting[torch.randint(len(fitting), (count,), generator=generator)])
        phases = augment(
            data.phases[torch.cat(chosen)],
            periodic=data.periodic,
            generator=generator,
            **augmentation,
        )
        return signed_indicators(phases, data.n_phases)


def expected_shares(data: MicrostructureDataset) -> Float[Tensor, "sample phase"]:
    """Return the fractions that sections have in the mean at the process point of each.

    Single sections scatter by several hundredths, which a net would learn by heart: a polynomial
    in the process parameters takes the mean, of the degree with the least generalised
    cross-validation error (Golub et al. 1979).
    """
    shares, units = phase_shares(data), data.process_units
    best, least = shares.mean(0).expand_as(shares), float("inf")
    for degree in range(1, DEGREE + 1):
        matching = DescriptorMatching(data.space, [data.n_phases], degree=degree)
        features = matching.features(units, torch.ones_like(units, dtype=torch.bool))
        terms = torch.linalg.matrix_rank(features)
        if terms >= len(data):
            break
        found = features @ least_squares(features, shares)
        error = float((shares - found).square().mean() / (1 - terms / len(data)) ** 2)
        if error < least:
            best, least = found, error
    best = best.clamp_min(0)
    return best / best.sum(1, keepdim=True)


def volume_sides(sections: Sequence[MicrostructureDataset]) -> list[int]:
    """Return the sides of the volumes whose sections these are, in voxels."""
    return volume_shape([data.shape for data in sections])


def _points(data: MicrostructureDataset) -> tuple[Tensor, Tensor]:
    """Return the different process points, unknown values as -1, and that of every row."""
    points, index = data.process_units.nan_to_num(-1.0).unique(dim=0, return_inverse=True)
    return points, index


def _rows_nearest(data: MicrostructureDataset, points: Tensor) -> list[Tensor]:
    """Return the rows of the data's process point that is nearest to each point."""
    own, index = _points(data)
    if not own.shape[1]:
        return [torch.arange(len(data))] * len(points)
    nearest = torch.cdist(points, own).argmin(1)
    return [(index == k).nonzero()[:, 0] for k in nearest.tolist()]
