"""What a regression sees of a specimen: fractions, correlations, a frozen encoder's features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from microstructures import CheckpointError, DataError
from microstructures.publishing import folder_digest
from networks.saving import resolve_model
from physics.statistics.correlation import two_point_correlation
from surrogates.properties import PropertySurrogate
from surrogates.quantities import local_moduli, scaled
from surrogates.saved_nets import SHIPPED

REACH = 16  # voxels up to which the map of correlations is used
CELLS_AT_ONCE = 64
NOMINAL_CONTRAST = 10.0  # of the moduli that stand for the labels where an encoder looks


@dataclass(frozen=True)
class CropDescriptors:
    """Descriptors of crops, whose means over the crops of a specimen describe the specimen.

    "fractions" of phases 1, 2, ...; "correlations": the maps of their two-point correlations up to
    16 voxels (half the side of smaller crops), divided by the true number of pairs where an axis
    is not periodic; "features": the pooled features of a property surrogate's frozen encoders,
    the labels standing for stiffnesses that rise by a factor of 10 from the first to the last.

    Args:
        n_phases: Number of labels.
        periodic: One flag per axis of the crops.
        encoder: Shipped name or folder of a property surrogate; None for no features.
        encoder_hash: That model's hash: other weights have other features.
    """

    n_phases: int
    periodic: tuple[bool, ...]
    encoder: str | None = None
    encoder_hash: str = ""

    @classmethod
    def of(cls, n_phases: int, periodic: Sequence[bool], encoder: str | None) -> "CropDescriptors":
        """Return the descriptors with the hash of the encoder as it is now.

        Raises:
            CheckpointError: No such model, or its files were altered.
        """
        found = "" if encoder is None else encoder_digest(encoder)
        return cls(n_phases, tuple(periodic), encoder, found)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "CropDescriptors":
        """Return the descriptors of a saved model.

        Raises:
            CheckpointError: The encoder is gone, or is another one by now.
        """
        made = cls(**{**config, "periodic": tuple(config["periodic"])})
        if made.encoder is not None and encoder_digest(made.encoder) != made.encoder_hash:
            raise CheckpointError(
                f"expected the weights of {made.encoder} that the model was trained with "
                f"({made.encoder_hash[:12]}), found others; train the model again"
            )
        return made

    @torch.no_grad()
    def of_crops(self, phases: UInt8[Tensor, "crop *space"]) -> dict[str, Float[Tensor, "crop _"]]:
        """Return the descriptors of crops by kind, in float64.

        Raises:
            DataError: A label is out of range, or the encoder does not take this shape.
        """
        if int(phases.max()) >= self.n_phases:
            raise DataError(
                f"expected labels 0 to {self.n_phases - 1}, got {int(phases.max())}; predict "
                "pictures of the phases that the model was trained on"
            )
        parts = [self._of_some(part) for part in phases.split(CELLS_AT_ONCE)]
        return {kind: torch.cat([part[kind] for part in parts]) for kind in parts[0]}

    def _of_some(self, phases: Tensor) -> dict[str, Tensor]:
        indicators = F.one_hot(phases.long(), self.n_phases).movedim(-1, 1)[:, 1:].float()
        maps = [self._near(indicators[:, k]) for k in range(self.n_phases - 1)]
        found = {
            "fractions": indicators.flatten(2).mean(2).double(),
            "correlations": torch.cat(maps, 1).double(),
        }
        if self.encoder is not None:
            found["features"] = _encoded(_encoder(self.encoder), phases, self.n_phases).double()
        return found

    def _near(self, indicator: Tensor) -> Tensor:
        correlation = two_point_correlation(indicator, periodic=self.periodic)
        for axis, side in enumerate(indicator.shape[1:], start=1):
            reach = min(REACH, side // 2)
            near = torch.arange(-reach, reach + 1) % correlation.shape[axis]
            correlation = correlation.index_select(axis, near)
        return correlation.flatten(1)


def encoder_digest(name: str) -> str:
    """Return the hash over the files of a shipped or saved property surrogate."""
    return folder_digest(resolve_model(name, SHIPPED))


@lru_cache(maxsize=2)
def _encoder(name: str) -> PropertySurrogate:
    return PropertySurrogate.from_pretrained(name)


def _encoded(model: PropertySurrogate, phases: Tensor, n_phases: int) -> Tensor:
    """Return the pooled features of all members' encoders, side by side."""
    net = model.net
    values = NOMINAL_CONTRAST ** torch.linspace(0, 1, n_phases)
    rows = values.expand(1, net.quantity.moduli, n_phases).clone()
    rows[:, 0] *= 2.0 if net.quantity.moduli > 1 else 1.0  # bulk over shear: Poisson's ratio 0.25
    moduli, _ = scaled(local_moduli(phases, rows.double()))
    channels, numbers, _ = net.described(moduli.float())
    return torch.cat([m.encoder(channels, m.told(numbers)) for m in net.members], 1)  # pyright: ignore
