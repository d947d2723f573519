"""The code's prior: which codes belong to a process point, so that N(0, I) draws fit the data."""

import torch
from torch import Tensor

from generators.denoiser import PhaseDenoiser
from generators.phase_net import signed_indicators
from microstructures.dataset import MicrostructureDataset
from microstructures.seeds import generator_for

STEPS, BATCH, RATE = 1500, 256, 2e-3
CELLS_AT_ONCE = 64


def divergence(mean: Tensor, log_variance: Tensor, m: Tensor, log_v: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of N(mean, variance) from N(m, v), in nats."""
    ratio = (log_variance - log_v).exp()
    return 0.5 * ((mean - m).square() / log_v.exp() + ratio - 1 - (log_variance - log_v)).sum(1)


def fit_code_prior(
    denoiser: PhaseDenoiser, dataset: MicrostructureDataset, *, parameter_dropout: float, seed: int
) -> float:
    """Fit the prior to the codes of the data, and return the information in the code in nats.

    The joint training holds the code's divergence at a target, which a prior that is too wide
    also satisfies; codes drawn from it then lie outside the data's own. With everything else
    frozen, the Gaussian that minimises the mean divergence is the one that has the moments of
    the aggregated posterior at each process point, and what divergence remains is information.
    Each cell enters twice, once with values hidden at random so that unknown ones are learned.
    """
    generator = generator_for(seed, "code prior")
    process, mean, log_variance = _encoded(denoiser, dataset, parameter_dropout, generator)
    optimizer = torch.optim.Adam(denoiser.prior.parameters(), lr=RATE)
    for step in range(STEPS):
        rows = torch.randint(len(process), (BATCH,), generator=generator)
        nats = divergence(mean[rows], log_variance[rows], *denoiser.code_prior(process[rows]))
        optimizer.param_groups[0]["lr"] = RATE * (1 - step / STEPS)
        optimizer.zero_grad()
        nats.mean().backward()
        optimizer.step()
    with torch.no_grad():
        known = slice(0, len(dataset))
        return float(
            divergence(
                mean[known], log_variance[known], *denoiser.code_prior(process[known])
            ).mean()
        )


@torch.no_grad()
def _encoded(
    denoiser: PhaseDenoiser,
    dataset: MicrostructureDataset,
    dropout: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    rows = []
    for hide in (False, True):
        for start in range(0, len(dataset), CELLS_AT_ONCE):
            part = slice(start, start + CELLS_AT_ONCE)
            units = dataset.process_units[part]
            drop = torch.rand(units.shape, generator=generator) < dropout
            process = denoiser.process(units, drop=drop if hide else None)
            clean = signed_indicators(dataset.phases[part], dataset.n_phases)
            rows.append((process, *denoiser.encode(clean, process)))
    process, mean, log_variance = (torch.cat(column) for column in zip(*rows, strict=True))
    return process, mean, log_variance
