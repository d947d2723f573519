"""Baselines of MicroBench: what needs no learning."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Integer
from torch import Tensor

from microstructures import Microstructure, MicrostructureDataset
from physics.processes import RandomField


def random_field_cells(
    real: Sequence[Microstructure], *, n: int, shape: Sequence[int], seed: int
) -> Integer[Tensor, "n *space"]:
    """Return level cuts of a Gaussian field with the real samples' mean fraction and S2.

    Fitted to phase 1 of two. Where one phase fills all the real samples, so it does here.
    """
    fraction = float(np.mean([m.volume_fractions[1] if m.n_phases > 1 else 0 for m in real]))
    if not 0 < fraction < 1:
        return torch.full((n, *shape), round(fraction), dtype=torch.uint8)
    field = RandomField.fit(real)
    cells = field.simulate(field.space.from_unit([0.5, 0.5]), shape=shape, seed=seed, n=n)
    return torch.from_numpy(np.stack([c.phases for c in cells]))


def nearest_training_images(
    training: MicrostructureDataset, process: Mapping[str, Any], *, n: int
) -> Integer[Tensor, "n *space"]:
    """Return the n training images whose process is nearest, in the unit cube.

    A generator that has only memorised: right in its statistics, caught by M9.
    """
    point = torch.tensor(training.space.to_unit(process), dtype=torch.float32)
    distance = (training.process_units - point).square().nan_to_num().sum(1)
    return training.phases[distance.argsort(stable=True)[:n]]
