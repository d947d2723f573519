"""neuraloperator's FNO behind a thin safe subclass; importing this module imports the library."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from microstructures import DataError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the library's own imports warn
    from neuralop.layers.spectral_convolution import SpectralConv
    from neuralop.models import FNO


class Float32SpectralConv(SpectralConv):
    """A spectral convolution that stays in float32 under autocast: there is no bfloat16 FFT."""

    def forward(self, x: Tensor, output_shape: Any = None) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float(), output_shape)


class FourierOperator(FNO):
    """An FNO (Li et al. 2021) that commutes with periodic shifts and has a plain state dict.

    The library's model adds an entry `_metadata` to its state dict, which breaks safe loading,
    nesting and accelerate; a grid embedding, which breaks periodic shifts; and is wrong on odd
    grids. Here the state dict holds float tensors only (complex weights as pairs, so that
    averages, half precision and hashes treat them as any other), there is no embedding, and odd
    grids are refused. Its `from_checkpoint` unpickles and is closed.

    Args:
        modes: Frequencies kept along each axis, both signs counted; even.
        in_channels: Channels in.
        out_channels: Channels out.
        width: Hidden channels.
        layers: Fourier layers.
    """

    def __init__(
        self,
        *,
        modes: tuple[int, ...],
        in_channels: int,
        out_channels: int,
        width: int,
        layers: int,
    ) -> None:
        super().__init__(
            n_modes=modes,
            in_channels=in_channels,
            out_channels=out_channels,
            hidden_channels=width,
            n_layers=layers,
            positional_embedding=None,  # pyright: ignore[reportArgumentType]
            conv_module=Float32SpectralConv,  # pyright: ignore[reportArgumentType]
        )
        self.register_load_state_dict_pre_hook(_pairs_to_complex)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Float[Tensor, "batch channel *space"]
    ) -> Float[Tensor, "batch out *space"]:
        """Return the operator's output on the same grid.

        Raises:
            DataError: A side is odd.
        """
        if any(side % 2 for side in x.shape[2:]):
            raise DataError(
                f"expected even sides for the Fourier operator, got {tuple(x.shape[2:])}: the "
                "spectral convolution is wrong on odd grids; crop or resample to even sides"
            )
        return super().forward(x)

    def state_dict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, *args: Any, **options: Any
    ) -> dict[str, Tensor]:
        """Return the weights, complex ones as pairs of floats, without the library's metadata."""
        state = nn.Module.state_dict(self, *args, **options)
        for key, value in state.items():
            if value.is_complex():
                state[key] = torch.view_as_real(value)
        return state

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load what `state_dict` returned."""
        return nn.Module.load_state_dict(self, state_dict, strict=strict, assign=assign)

    @classmethod
    def from_checkpoint(cls, *args: Any, **options: Any) -> Any:
        """Refuse: the library's checkpoints are pickles."""
        raise DataError(
            "expected a mesoforge model folder, got a call to from_checkpoint, which unpickles; "
            "use FieldSurrogate.from_pretrained"
        )


def _pairs_to_complex(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    for name, parameter in module.named_parameters():
        key = prefix + name
        if parameter.is_complex() and key in state and not state[key].is_complex():
            state[key] = torch.view_as_complex(state[key].float().contiguous())
