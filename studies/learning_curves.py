"""Learning curves of rules that pick cells to label: error against labels, seed by seed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from microstructures.seeds import generator_for
from surrogates.active_learning import next_cells

Learn = Callable[[Tensor], tuple[list[float], Tensor]]
"""Learns from the labels of these rows; returns the error of each test group and the pool's
spread."""


@dataclass(frozen=True)
class Asked:
    """What a rule may look at: nothing in it is a label that was not paid for."""

    spread: Tensor
    width: Tensor
    features: Tensor
    known: Tensor
    seed: int

    def apart(self, doubt: Tensor, count: int) -> Tensor:
        """Return doubtful cells that are not alike."""
        return next_cells(doubt, self.features, count, known=self.known, seed=self.seed)


Rule = Callable[[Asked, int], Tensor]
"""Returns so many rows to label next."""


def at_random(asked: Asked, count: int) -> Tensor:
    """Return any cells: as many of each group as the pool has."""
    return _order(len(asked.spread), asked.seed)[len(asked.known) :][:count]


def by_spread(asked: Asked, count: int) -> Tensor:
    """Return cells of large predicted spread that are not alike."""
    return asked.apart(asked.spread, count)


def by_highest_spread(asked: Asked, count: int) -> Tensor:
    """Return the cells of the largest predicted spread, alike or not."""
    left = asked.spread.clone()
    left[asked.known] = -1
    return left.topk(count).indices


def by_width(asked: Asked, count: int) -> Tensor:
    """Return cells of a wide certificate of the solver's first steps that are not alike."""
    return asked.apart(asked.width, count)


def by_distance(asked: Asked, count: int) -> Tensor:
    """Return cells that are unlike each other and the labelled ones (Sener, Savarese 2018)."""
    return asked.apart(torch.ones_like(asked.width), count)


RULES: Mapping[str, Rule] = {
    "at random": at_random,
    "spread, apart": by_spread,
    "spread alone": by_highest_spread,
    "first steps' width, apart": by_width,
    "apart alone": by_distance,
}
RANDOM, OURS = "at random", "spread, apart"


def learning_curve(
    rule: Rule,
    learn: Learn,
    sizes: Sequence[int],
    *,
    features: Tensor,
    width: Tensor,
    seed: int,
) -> tuple[list[list[float]], Tensor]:
    """Return the errors `(size, group)` and the rows that were labelled.

    The first cells are the same for every rule of a seed.
    """
    known, found = _order(len(width), seed)[: sizes[0]], []
    for size in sizes[1:]:
        errors, spread = learn(known)
        found.append(errors)
        asked = Asked(spread, width, features, known, seed)
        known = torch.cat([known, rule(asked, size - len(known))])
    found.append(learn(known)[0])
    return found, known


def labels_needed(errors: np.ndarray, sizes: Sequence[int], target: float) -> float:
    """Return from how many labels on the error stays at most a target; infinity for never.

    Between two sizes the logarithm of the error is taken as linear in that of the labels.
    """
    above = np.flatnonzero(np.asarray(errors) > target)
    if not len(above):
        return float(sizes[0])
    last = int(above[-1])
    if last == len(sizes) - 1:
        return float("inf")
    (x0, x1), (y0, y1) = np.log(sizes[last : last + 2]), np.log(errors[last : last + 2])
    return float(np.exp(x0 + (np.log(target) - y0) / (y1 - y0) * (x1 - x0)))


def _order(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=generator_for(seed, "first cells"))
