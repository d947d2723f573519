"""Embedding of process parameters, noise levels and codes into condition vectors."""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from microstructures import ProcessSpace
from microstructures.structure import ProcessValue

FREQUENCIES = (0.5, 1.0, 2.0)


class ProcessEmbedding(nn.Module):
    """Features of process parameters with a null token for the unknown ones.

    A continuous parameter at unit coordinate u gives u and sines and cosines of it, a choice its
    one-hot code; each has a learnt vector that stands in when the value is unknown (NaN).
    """

    frequencies: Tensor

    def __init__(self, space: ProcessSpace, features: int) -> None:
        super().__init__()
        self.choices = [len(p.choices) if p.scale == "choice" else 0 for p in space]
        lengths = [n or 1 + 2 * len(FREQUENCIES) for n in self.choices]
        self.projections = nn.ModuleList(nn.Linear(n, features) for n in lengths)
        self.unknown = nn.Parameter(0.02 * torch.ones(len(lengths), features))
        self.register_buffer(
            "frequencies", 2 * math.pi * torch.tensor(FREQUENCIES), persistent=False
        )
        self.mix = nn.Sequential(
            nn.SiLU(), nn.Linear(features, features), nn.SiLU(), nn.Linear(features, features)
        )

    def forward(
        self,
        units: Float[Tensor, "batch parameter"],
        *,
        drop: Bool[Tensor, "batch parameter"] | None = None,
    ) -> Float[Tensor, "batch features"]:
        """Embed unit coordinates; NaN, or True in `drop`, means unknown."""
        known = ~torch.isnan(units)
        if drop is not None:
            known = known & ~drop
        units = units.nan_to_num(0.0)
        total = units.new_zeros(len(units), self.unknown.shape[1])
        for index, projection in enumerate(self.projections):
            features = projection(self._features(units[:, index], self.choices[index]))
            total = total + torch.where(known[:, index, None], features, self.unknown[index])
        return self.mix(total)

    def _features(self, u: Tensor, choices: int) -> Tensor:
        if choices:
            index = (u * choices).long().clamp(0, choices - 1)
            return nn.functional.one_hot(index, choices).to(u.dtype)
        angles = u[:, None] * self.frequencies
        return torch.cat([u[:, None], angles.sin(), angles.cos()], 1)


class ScalarEmbedding(nn.Module):
    """Random-free Fourier features of one number per sample (a noise level), then a small net."""

    bands: Tensor

    def __init__(self, features: int, frequencies: int = 16) -> None:
        super().__init__()
        bands = torch.logspace(-1, 1.3, frequencies)
        self.register_buffer("bands", bands, persistent=False)
        self.mix = nn.Sequential(
            nn.Linear(2 * frequencies, features), nn.SiLU(), nn.Linear(features, features)
        )

    def forward(self, value: Float[Tensor, " batch"]) -> Float[Tensor, "batch features"]:
        angles = value[:, None] * self.bands
        return self.mix(torch.cat([angles.sin(), angles.cos()], 1))


def process_units(
    space: ProcessSpace, processes: Sequence[Mapping[str, ProcessValue]]
) -> Float[Tensor, "batch parameter"]:
    """Return unit coordinates of process dicts as float32, NaN for unknown values.

    Raises:
        DataError: A value is out of bounds or a name is not in the space.
    """
    return torch.tensor([space.to_unit(p) for p in processes], dtype=torch.float32)
