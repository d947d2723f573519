"""Moves of training cells: along each axis as the data allows."""

import numpy as np
import pytest
import torch

from generators.augmentation import augment
from microstructures import DataError


def moves(flips):
    cell = torch.arange(6).view(1, 2, 3)
    generator = torch.Generator().manual_seed(0)
    drawn = [
        augment(cell, periodic=(False, False), isotropic=False, flips=flips, generator=generator)
        for _ in range(40)
    ]
    return {tuple(d.flatten().tolist()) for d in drawn}


def test_only_the_named_axes_are_mirrored():
    cell = np.arange(6).reshape(2, 3)
    across, up = tuple(cell[::-1].flatten()), tuple(cell[:, ::-1].flatten())
    both = tuple(cell[::-1, ::-1].flatten())
    same = tuple(cell.flatten())
    assert moves((True, False)) == {same, across}
    assert moves((False, True)) == {same, up}
    assert moves(True) == {same, across, up, both}
    assert moves(False) == {same}
    with pytest.raises(DataError, match="one flag of flips per axis"):
        moves((True, False, True))
