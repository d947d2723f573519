"""The any-dimension net: shapes, equivariance on periodic axes, conditioning."""

import pytest
import torch

from networks import Encoder, UNet


def build(kind, periodic, **change):
    torch.manual_seed(0)
    arguments = {"widths": (8, 16), "condition": 4, "periodic": periodic, **change}
    if kind is UNet:
        net = UNet(in_channels=2, out_channels=3, blocks=1, **arguments)
    else:
        net = Encoder(in_channels=2, out_features=5, **arguments)
    for parameter in net.parameters():  # also the layers that start at zero
        torch.nn.init.normal_(parameter, std=0.2)
    return net.eval()


@pytest.mark.parametrize("shape", [(8, 12), (8, 4, 12)])
def test_shapes_in_two_and_three_dimensions(shape):
    net = build(UNet, (True,) * len(shape))
    assert net(torch.randn(2, 2, *shape), torch.randn(2, 4)).shape == (2, 3, *shape)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 8)])
def test_periodic_net_commutes_with_shifts_of_its_grid(shape):
    net, x, c = build(UNet, (True,) * len(shape)), torch.randn(1, 2, *shape), torch.randn(1, 4)
    shift, axes = (2,) * len(shape), tuple(range(2, 2 + len(shape)))
    moved = net(x.roll(shift, axes), c)
    assert torch.allclose(moved, net(x, c).roll(shift, axes), atol=1e-4)


def test_reflecting_axis_does_not_see_the_other_side():
    net, c = build(UNet, (False, True), widths=(8,)), torch.zeros(1, 4)
    x = torch.zeros(1, 2, 32, 8, requires_grad=True)
    # One level, so only padding could carry influence from the far end; group norm sees all of
    # the image and is kept out by differencing against a change in the middle.
    net(x, c)[0, :, 0].sum().backward()
    gradient = x.grad[0].abs().sum((0, 2))
    wrapped = build(UNet, (True, True), widths=(8,))
    y = torch.zeros(1, 2, 32, 8, requires_grad=True)
    wrapped(y, c)[0, :, 0].sum().backward()
    assert y.grad[0].abs().sum((0, 2))[-1] > 2 * gradient[-1]


def test_code_is_blind_to_periodic_shifts():
    net, x, c = build(Encoder, (True, True)), torch.randn(2, 2, 16, 16), torch.randn(2, 4)
    assert torch.allclose(net(x, c), net(x.roll((2, 4), (2, 3)), c), atol=1e-4)


def test_condition_changes_the_answer():
    net, x = build(UNet, (True, True)), torch.randn(1, 2, 8, 8)
    assert not torch.allclose(net(x, torch.zeros(1, 4)), net(x, torch.ones(1, 4)))
