"""The randomness of samples: each draws its noise, its code and its fractions from its own seed."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from microstructures import DataError
from microstructures.seeds import generator_for


def noise_generators(seed: int, samples: Iterable[int]) -> list[torch.Generator]:
    """Return one generator per sample, the same for a sample whatever is drawn beside it."""
    return [generator_for(seed, "sample", k) for k in samples]


def white_noise(
    generators: Sequence[torch.Generator], size: Sequence[int]
) -> Float[Tensor, "batch *size"]:
    """Return white noise N(0, 1) of one size, each sample's from its own generator."""
    return torch.stack([torch.randn(tuple(size), generator=g) for g in generators])


def latent_codes(latent: Any, n: int, *, length: int, seed: int) -> Float[Tensor, "n latent"]:
    """Return given codes, one for all samples or one each; codes from N(0, I) when None.

    Raises:
        DataError: The codes have another shape, or are not finite.
    """
    if latent is None:
        return white_noise([generator_for(seed, "code", k) for k in range(n)], (length,))
    codes = torch.as_tensor(latent, dtype=torch.float32)
    codes = codes.expand(n, -1) if codes.ndim == 1 else codes
    if codes.shape != (n, length) or not torch.isfinite(codes).all():
        raise DataError(
            f"expected finite codes of shape ({n}, {length}) or ({length},), got shape "
            f"{tuple(codes.shape)}"
        )
    return codes


def scattered_fractions(
    mean: Float[Tensor, "batch phase"],
    log_spread: Float[Tensor, "batch phase"],
    generators: Sequence[torch.Generator],
) -> Float[Tensor, "batch phase"]:
    """Return volume fractions around their means; they sum to 1."""
    return fractions_around(mean, log_spread, white_noise(generators, mean.shape[1:]))


def fractions_around(
    mean: Float[Tensor, "batch phase"],
    log_spread: Float[Tensor, "batch phase"],
    noise: Float[Tensor, "batch phase"],
) -> Float[Tensor, "batch phase"]:
    """Return volume fractions that white noise puts around their means; they sum to 1."""
    phases = mean.shape[1]
    # Deviations that sum to zero and keep unit variance per phase.
    deviations = (noise - noise.mean(1, keepdim=True)) * (phases / max(phases - 1, 1)) ** 0.5
    fractions = (mean + log_spread.exp() * deviations).clamp(0, 1).double()
    return fractions / fractions.sum(1, keepdim=True)
