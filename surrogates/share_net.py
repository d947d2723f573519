"""A pooled net for one number per specimen, from its crops and the numbers known beside them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from microstructures import DataError
from networks.folding import FOLD, fold
from networks.unet import Encoder
from surrogates.specimens import Specimens

CROPS_AT_ONCE = 64
EDGE = 0.01  # nearest that a regression's share comes to a bound, where a net corrects it


class ShareNet(nn.Module):
    """What a regression on descriptors misses of one number per crop, by a pooled conv net.

    The net is told the inputs and what the regression says (FiLM), adds its correction, which
    starts at zero, and with `bounded` answers with a share between 0 and 1 (a logistic function),
    whatever the weights; without, with a standardised number.

    Args:
        n_phases: Number of labels.
        periodic: One flag per axis: wrap or reflect at the border.
        inputs: Numbers known beside the crop, standardised.
        widths: Channels per level; the first level is a 2x space-to-depth grid.
        features: Pooled features.
        bounded: Whether the answer is a share.
    """

    def __init__(
        self,
        *,
        n_phases: int,
        periodic: Sequence[bool],
        inputs: int,
        widths: Sequence[int],
        features: int,
        bounded: bool,
    ) -> None:
        super().__init__()
        self.config: Mapping[str, Any] = {
            "n_phases": n_phases,
            "periodic": list(periodic),
            "inputs": inputs,
            "widths": list(widths),
            "features": features,
            "bounded": bounded,
        }
        self.n_phases, self.dim, self.bounded = n_phases, len(periodic), bounded
        self.size_multiple = FOLD * 2 ** (len(widths) - 1)
        self.told = nn.Sequential(
            nn.Linear(inputs + 1, features), nn.SiLU(), nn.Linear(features, features), nn.SiLU()
        )
        self.encoder = Encoder(
            in_channels=n_phases * FOLD**self.dim,
            out_features=features,
            widths=widths,
            condition=features,
            periodic=periodic,
        )
        last = nn.Linear(features, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.answer = nn.Sequential(nn.Linear(2 * features, features), nn.SiLU(), last)

    def forward(
        self,
        phases: UInt8[Tensor, "crop *space"],
        inputs: Float[Tensor, "crop input"],
        start: Float[Tensor, " crop"],
    ) -> Float[Tensor, " crop"]:
        """Return one number per crop; `start` is the regression's, of the same kind.

        Raises:
            DataError: A side is no multiple of `size_multiple`.
        """
        self.check_shape(phases.shape[1:])
        start = start.clamp(EDGE, 1 - EDGE).logit() if self.bounded else start
        told = self.told(torch.cat([start[:, None], inputs], 1).float())
        indicators = F.one_hot(phases.long(), self.n_phases).movedim(-1, 1).float()
        seen = torch.cat([F.silu(self.encoder(fold(indicators), told)), told], 1)
        answer = start + self.answer(seen)[:, 0].to(start)
        return answer.sigmoid() if self.bounded else answer

    def check_shape(self, shape: Sequence[int]) -> None:
        """Refuse crops that the net cannot take.

        Raises:
            DataError: The dimension differs, or a side is not a multiple of `size_multiple`.
        """
        if len(shape) != self.dim or any(side % self.size_multiple for side in shape):
            raise DataError(
                f"expected {self.dim} sides that are multiples of {self.size_multiple}, got "
                f"{tuple(shape)}; set crop to such a side"
            )

    @torch.no_grad()
    def of_crops(
        self,
        specimens: Specimens,
        inputs: Float[Tensor, "specimen input"],
        start: Float[Tensor, " specimen"],
    ) -> Float[Tensor, " crop"]:
        """Return one number per crop of the specimens, in float64."""
        owner = specimens.owner
        parts = [
            self(specimens.phases[rows], inputs[owner[rows]], start[owner[rows]])
            for rows in torch.arange(len(specimens.owner)).split(CROPS_AT_ONCE)
        ]
        return torch.cat(parts).double()


class ShareDraw:
    """Draw specimens, one of their crops each, mirrored (and shifted where periodic) at random."""

    def __init__(
        self,
        specimens: Specimens,
        inputs: Tensor,
        start: Tensor,
        targets: Tensor,
        periodic: Sequence[bool],
    ) -> None:
        self.specimens, self.inputs, self.start, self.targets = specimens, inputs, start, targets
        self.periodic = tuple(periodic)
        self.own = [(specimens.owner == row).nonzero().flatten() for row in range(len(specimens))]

    def __call__(self, batch: Tensor, generator: torch.Generator) -> list[Tensor]:
        crops = []
        for row in batch.tolist():
            u = torch.rand(1 + 2 * len(self.periodic), generator=generator).tolist()
            own = self.own[row]
            crop = self.specimens.phases[own[int(u[0] * len(own))]]
            for axis, wraps in enumerate(self.periodic):
                if wraps:
                    crop = crop.roll(int(u[1 + 2 * axis] * crop.shape[axis]), axis)
                if u[2 + 2 * axis] < 0.5:
                    crop = crop.flip(axis)
            crops.append(crop)
        numbers = (self.inputs, self.start, self.targets)
        return [torch.stack(crops), *[part[batch].float() for part in numbers]]


class ShareObjective(nn.Module):
    """Mean square error."""

    def __init__(self, net: ShareNet) -> None:
        super().__init__()
        self.net = net

    def forward(
        self, phases: Tensor, inputs: Tensor, start: Tensor, targets: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        error = (self.net(phases, inputs, start) - targets).square().mean()
        return error, {"rms_error": error.detach().sqrt()}
