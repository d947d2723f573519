"""The safe FNO: plain state dict, no embedding, even grids only."""

import pytest
import torch
from torch import nn

from microstructures import DataError
from surrogates.fourier_operator import FourierOperator


def tiny(seed: int = 0) -> FourierOperator:
    torch.manual_seed(seed)
    return FourierOperator(modes=(4, 4), in_channels=2, out_channels=3, width=4, layers=2)


def test_state_is_plain_floats_and_loads_nested():
    holder = nn.ModuleDict({"operator": tiny(0)})
    state = holder.state_dict()
    assert all(isinstance(v, torch.Tensor) and v.is_floating_point() for v in state.values())
    other = nn.ModuleDict({"operator": tiny(1)})
    other.load_state_dict({k: v.clone() for k, v in state.items()})
    x = torch.randn(1, 2, 8, 8)
    assert torch.equal(holder["operator"](x), other["operator"](x))
    lone = tiny(2)
    lone.load_state_dict(tiny(0).state_dict())
    assert torch.equal(lone(x), holder["operator"](x))


def test_every_shift_commutes():
    net, x = tiny(), torch.randn(1, 2, 8, 12)
    shifted = net(x.roll((3, 5), (2, 3)))
    assert (net(x).roll((3, 5), (2, 3)) - shifted).abs().max() < 1e-5


def test_odd_grids_are_refused():
    with pytest.raises(DataError, match="even sides"):
        tiny()(torch.randn(1, 2, 8, 9))


def test_bfloat16_autocast_keeps_transforms_in_float32():
    net, x = tiny(), torch.randn(1, 2, 8, 8)
    exact = net(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = net(x)
    assert (rough.float() - exact).norm() < 0.05 * exact.norm()


def test_the_pickled_checkpoints_of_the_library_are_closed():
    with pytest.raises(DataError, match="unpickles"):
        FourierOperator.from_checkpoint("folder", "name")
