"""The yield stress of a stress-strain curve."""

import torch
from jaxtyping import Float
from torch import Tensor


def offset_yield_stress(
    strain: Float[Tensor, "batch step"],
    stress: Float[Tensor, "batch step"],
    modulus: Float[Tensor, " batch"],
    *,
    offset: float = 0.002,
) -> Float[Tensor, " batch"]:
    """Return the stress where a curve from zero meets the line modulus (strain - offset).

    The offset yield strength of a tension test (ISO 6892-1: R_p0.2 at 0.002), the curve straight
    between its steps, which start from zero. NaN where the curve ends, or turns, before.
    """
    start = torch.zeros_like(strain[:, :1])
    strain, stress = torch.cat([start, strain], 1), torch.cat([start, stress], 1)
    above = stress - modulus[:, None] * (strain - offset)
    rising = (strain.diff(dim=1) > 0).cummin(1).values
    crossed = rising & (above[:, 1:] <= 0)
    last = crossed.int().argmax(1, keepdim=True)
    before, after = above.gather(1, last), above.gather(1, last + 1)
    share = before / (before - after)
    met = torch.lerp(stress.gather(1, last), stress.gather(1, last + 1), share)[:, 0]
    return torch.where(crossed.any(1), met, torch.nan)
