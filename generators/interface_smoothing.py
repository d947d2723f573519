"""How much smoothing gives samples the specific surface of the data."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from generators.denoiser import PhaseDenoiser
from generators.fractions import cut_exactly
from generators.phase_net import signed_indicators
from generators.sampler import sample_logits
from generators.smoothing import MOST_SMOOTHING, smooth, smooth_in_place
from microstructures.dataset import MicrostructureDataset
from microstructures.seeds import generator_for
from physics.statistics import specific_surface

MOST_VOXELS = 2**21  # 512 cells of 64 x 64: their mean surface is known to about 0.2 %
VOXELS_AT_ONCE = 2**18
HALVINGS = 8


@torch.no_grad()
def fit_smoothing(
    denoiser: PhaseDenoiser,
    dataset: MicrostructureDataset,
    *,
    steps: int,
    seed: int,
    match_fractions: bool = True,
    voxels: int = MOST_VOXELS,
) -> float:
    """Return the share of each neighbour's logits that matches the data's specific surface.

    Few-step samples have interfaces a few per cent too rough, and more so the less the net was
    trained. Samples are drawn at the process points of training cells, cut at those cells'
    fractions if they are to match, and smoothed until the mean surface over phases is theirs; not
    at all if it is not too large, and at most by `MOST_SMOOTHING`. At most `voxels` are drawn.
    """
    generator = generator_for(seed, "smoothing")
    side = dataset.phases.shape[1:]
    n = min(len(dataset), max(4, voxels // math.prod(side)))
    rows = torch.randperm(len(dataset), generator=generator)[:n]
    real = signed_indicators(dataset.phases[rows], dataset.n_phases)
    fractions = ((real.flatten(2).mean(2) + 1) / 2).double() if match_fractions else None
    was, denoiser.smoothing = denoiser.smoothing, 0.0
    logits = torch.cat(
        [
            _sampled(
                denoiser,
                dataset.process_units[part],
                None if fractions is None else fractions[part_k],
                side,
                steps,
                generator,
            )
            for part, part_k in _chunks(rows, math.prod(side))
        ]
    )
    denoiser.smoothing = was
    wanted = _surface(real > 0, dataset.periodic)

    def excess(share: float) -> float:
        if fractions is None:
            cut = smooth_in_place(logits, share, periodic=dataset.periodic).argmax(1)
        else:
            cut = cut_exactly(smooth(logits, share, periodic=dataset.periodic), fractions)
        made = signed_indicators(cut, dataset.n_phases) > 0
        return float(_surface(made, dataset.periodic) - wanted)

    if excess(0.0) <= 0:
        return 0.0
    low, high = 0.0, MOST_SMOOTHING
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return (low + high) / 2


def _chunks(rows: Tensor, voxels: int) -> list[tuple[Tensor, slice]]:
    size = max(1, VOXELS_AT_ONCE // voxels)
    return [(rows[k : k + size], slice(k, k + size)) for k in range(0, len(rows), size)]


def _sampled(
    denoiser: PhaseDenoiser,
    units: Tensor,
    fractions: Tensor | None,
    side: torch.Size,
    steps: int,
    generator: torch.Generator,
) -> Float[Tensor, "batch phase *space"]:
    code = torch.randn(len(units), denoiser.latent_dim, generator=generator)
    noise = torch.randn(len(units), denoiser.n_phases, *side, generator=generator)
    condition = denoiser.condition(denoiser.process(units), code)
    return sample_logits(denoiser, noise, condition, steps=steps, fractions=fractions)


def _surface(indicators: Tensor, periodic: tuple[bool, ...]) -> Tensor:
    return specific_surface(indicators.flatten(0, 1), periodic=periodic).mean()
