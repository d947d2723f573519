"""The two kinds of operator inside a displacement net, as settings that build them."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from torch import nn


class FourierSettings(BaseModel):
    """A Fourier neural operator (Li et al. 2021): long wavelengths, even grids only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    modes: int = Field(16, ge=2, multiple_of=2, description="Fourier modes kept along each axis")
    width: int = Field(32, ge=1, description="hidden channels")
    layers: int = Field(4, ge=1, description="Fourier layers")

    def build(self, *, dim: int, in_channels: int, out_channels: int) -> nn.Module:
        """Return the untrained operator."""
        from surrogates.fourier_operator import FourierOperator

        return FourierOperator(
            modes=(self.modes,) * dim,
            in_channels=in_channels,
            out_channels=out_channels,
            width=self.width,
            layers=self.layers,
        )

    @property
    def size_multiple(self) -> int:
        """Of the grid that the operator works on."""
        return 2


class ConvolutionalSettings(BaseModel):
    """A U-Net: sees every wavelength, a neighbourhood at a time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (48, 64, 96), min_length=1, description="channels per level"
    )
    blocks: int = Field(1, ge=1, description="residual blocks per level")
    features: int = Field(64, ge=4, description="length of the condition vector")

    def build(self, *, dim: int, in_channels: int, out_channels: int) -> nn.Module:
        """Return the untrained operator."""
        from surrogates.convolutional_operator import ConvolutionalOperator

        return ConvolutionalOperator(
            in_channels=in_channels,
            out_channels=out_channels,
            widths=self.widths,
            blocks=self.blocks,
            features=self.features,
            dim=dim,
        )

    @property
    def size_multiple(self) -> int:
        """Of the grid that the operator works on."""
        return 2 ** (len(self.widths) - 1)


OperatorSettings = FourierSettings | ConvolutionalSettings


def operator_settings(config: Mapping[str, Any]) -> OperatorSettings:
    """Return the settings of a saved operator: only a U-Net has widths."""
    kind = ConvolutionalSettings if "widths" in config else FourierSettings
    return kind.model_validate(dict(config))
