"""The fraction head of a trained net, fitted to the volume fractions of the data."""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.encoded_net import EncodedNet
from generators.phase_net import PhaseNet
from microstructures.dataset import MicrostructureDataset
from microstructures.seeds import generator_for

STEPS, BATCH, RATE = 4000, 512, 3e-3
CELLS_AT_ONCE = 512


def fraction_loss(net: PhaseNet, condition: Tensor, actual: Tensor) -> Tensor:
    """Return the negative log-likelihood of volume fractions per phase, less a constant."""
    expected, log_spread = net.fractions(condition)
    return (0.5 * ((actual - expected) / log_spread.exp()).square() + log_spread).mean()


def fit_fraction_head(
    net: EncodedNet, dataset: MicrostructureDataset, *, parameter_dropout: float, seed: int
) -> float:
    """Fit the head with everything else frozen; return the RMS error over the data.

    In joint training the head chases a condition that still moves, and fractions that a process
    fixes to a thousandth need a head that rests. Codes are drawn at random, so that the fraction
    follows the process and its spread, and not what a few thousand cells say of the code. Each
    cell enters twice, once with values hidden at random so that unknown ones are learned.
    """
    generator = generator_for(seed, "fraction head")
    process, actual = _processes(net, dataset, parameter_dropout, generator)

    def loss() -> Tensor:
        rows = torch.randint(len(process), (BATCH,), generator=generator)
        code = torch.randn(BATCH, net.latent_dim, generator=generator)
        with torch.no_grad():
            condition = net.condition(process[rows], code)
        return fraction_loss(net, condition, actual[rows])

    descend(loss, net.fraction_head.parameters(), steps=STEPS, rate=RATE)
    with torch.no_grad():
        known = slice(0, len(dataset))
        code = torch.zeros(len(dataset), net.latent_dim)
        expected, _ = net.fractions(net.condition(process[known], code))
        return float((expected - actual[known]).square().mean().sqrt())


def descend(
    loss: Callable[[], Tensor],
    weights: Iterable[nn.Parameter],
    *,
    steps: int,
    rate: float,
    warmup: int = 0,
) -> float:
    """Bring a loss down by Adam, its rate falling to zero; return its mean over the last half."""
    optimizer, total = torch.optim.Adam(weights, lr=rate), 0.0
    for step in range(steps):
        value = loss()
        warm = min(1.0, step / warmup) if warmup else 1.0
        optimizer.param_groups[0]["lr"] = rate * warm * (1 - step / steps)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        total += float(value.detach()) * (step >= steps // 2)
    return total / (steps - steps // 2)


@torch.no_grad()
def _processes(
    net: EncodedNet, dataset: MicrostructureDataset, dropout: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return embedded processes, known and with values hidden, and the fractions that go along."""
    units = dataset.process_units
    hidden = torch.rand(units.shape, generator=generator) < dropout
    embedded = torch.cat([net.process(units), net.process(units, drop=hidden)])
    rows = []
    for start in range(0, len(dataset), CELLS_AT_ONCE):
        cells = dataset.phases[start : start + CELLS_AT_ONCE].long()
        rows.append(F.one_hot(cells, dataset.n_phases).flatten(1, -2).float().mean(1))
    return embedded, torch.cat(rows).repeat(2, 1)
