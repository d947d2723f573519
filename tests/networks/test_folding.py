"""Space to depth: invertible, and each block of voxels lies in its own channels."""

import pytest
import torch

from networks.folding import FOLD, fold, unfold


@pytest.mark.parametrize("shape", [(2, 3, 4, 8), (1, 2, 4, 4, 6)])
def test_unfold_undoes_fold(shape):
    x = torch.randn(shape)
    assert torch.equal(unfold(fold(x), len(shape) - 2), x)


def test_a_channel_holds_every_second_voxel_of_each_axis():
    x = torch.arange(2 * 4 * 6 * 8.0).view(1, 2, 4, 6, 8)
    folded = fold(x)
    assert folded.shape == (1, 2 * FOLD**3, 2, 3, 4)
    # Channel 1, voxel (1, 0, 1) of each block: blocks are numbered with the last axis fastest.
    assert torch.equal(folded[0, FOLD**3 + 5], x[0, 1, 1::2, 0::2, 1::2])
