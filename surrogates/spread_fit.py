"""The spread that each member of a property net states, fitted to its errors."""

import torch
from jaxtyping import Float
from torch import Tensor

from microstructures.seeds import generator_for
from surrogates.labels import LabelledCells
from surrogates.pooled_net import PooledNet

STEPS, BATCH, RATE = 2000, 128, 3e-3
CELLS_AT_ONCE = 64


def fit_spread(net: PooledNet, labels: LabelledCells, *, seed: int) -> None:
    """Fit each member's spread heads to its errors on labelled cells, everything else held.

    Beside a net that still learns, a spread lags behind what the errors have become. The heads
    read fixed features, so that thousands of steps cost less than one pass of the net; the score
    is the Gaussian log-likelihood (Nix, Weigend 1994).
    """
    net.eval()
    for member in range(len(net.members)):
        seen, off = _features_and_errors(net, labels, member)
        head = net.spread_head(member).requires_grad_(True)
        optimizer = torch.optim.Adam(head.parameters(), lr=RATE)
        generator = generator_for(seed, "spread", member)
        for step in range(STEPS):
            for group in optimizer.param_groups:
                group["lr"] = RATE * (1 - step / STEPS)
            rows = torch.randint(len(seen), (BATCH,), generator=generator)
            log_spread = head(seen[rows])
            score = (0.5 * (off[rows] / log_spread.exp()).square() + log_spread).mean()
            optimizer.zero_grad()
            score.backward()
            optimizer.step()


@torch.no_grad()
def _features_and_errors(
    net: PooledNet, labels: LabelledCells, member: int
) -> tuple[Float[Tensor, "cell feature"], Float[Tensor, "cell entry"]]:
    """Return a member's pooled features and the errors of its share's distinct entries."""
    seen, off = [], []
    rows, columns = torch.tril_indices(net.n, net.n).unbind(0)
    for part in torch.arange(len(labels)).split(CELLS_AT_ONCE):
        channels, numbers, steps = net.described(labels.fields(part, labels.phases[part]))
        found = net.estimate(member, channels, numbers, steps).mean
        error = steps.interval.share(labels.effective[part]) - found
        seen.append(net.pooled(member, channels, numbers))
        off.append(error[:, rows, columns].float())
    return torch.cat(seen), torch.cat(off)
