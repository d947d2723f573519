"""The critic, its padding and its noise: derivatives, invariances, and losses that teach."""

import pytest
import torch
import torch.nn.functional as F

from microstructures import Parameter, ProcessSpace
from networks.critic import Critic, gradient_penalty, relativistic_loss
from networks.padding import pad
from networks.spectral_noise import SpectralNoise

SPACE = ProcessSpace(
    [Parameter("a", "-", 0.0, 1.0), Parameter("kind", "-", scale="choice", choices=("x", "y"))]
)


def critic(dim=2, *, periodic=True):
    torch.manual_seed(0)
    net = Critic(space=SPACE, n_phases=2, periodic=(periodic,) * dim, widths=(8, 12), features=16)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return net


def images(dim=2, n=3, side=8):
    generator = torch.Generator().manual_seed(1)
    phase = torch.randint(0, 2, (n, *[side] * dim), generator=generator)
    return 2 * F.one_hot(phase, 2).movedim(-1, 1).float() - 1, torch.rand(n, 2, generator=generator)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_wrapping_has_the_values_and_derivatives_of_torch(dim):
    x = torch.rand(1, 2, *[2, 3, 4][:dim], dtype=torch.float64, requires_grad=True)
    assert torch.equal(pad(x, (True,) * dim), F.pad(x, (1, 1) * dim, mode="circular"))
    assert torch.autograd.gradcheck(lambda v: pad(v, (True,) * dim), x)
    assert torch.autograd.gradgradcheck(lambda v: pad(v, (True,) * dim).square(), x)


def test_each_axis_wraps_or_reflects_on_its_own():
    x = torch.rand(2, 2, 6, 5)
    along_rows = F.pad(x, (0, 0, 1, 1), mode="circular")
    expected = F.pad(along_rows, (1, 1, 0, 0), mode="reflect")
    assert torch.equal(pad(x, (True, False)), expected)


@pytest.mark.parametrize("dim", [2, 3])
def test_critic_is_blind_to_position_and_sees_process_and_phase(dim):
    net, (x, units) = critic(dim), images(dim)
    score = net(x, units)
    assert score.shape == (3,)
    axes = tuple(range(2, x.ndim))
    assert torch.allclose(net(x.roll((4,) * dim, axes), units), score, atol=1e-4)
    assert (net(x, units.roll(1, 0)) - score).abs().max() > 1e-3
    assert (net(-x, units) - score).abs().max() > 1e-3


def test_a_wall_is_no_period():
    net, (x, units) = critic(periodic=False), images()
    assert (net(x.roll(4, 2), units) - net(x, units)).abs().max() > 1e-3


def test_unknown_parameters_are_those_that_were_dropped():
    net, (x, units) = critic(), images()
    unknown = units.clone()
    unknown[:, 0] = float("nan")
    drop = torch.tensor([True, False]).expand(3, 2)
    assert torch.allclose(net(x, unknown), net(x, units, drop))


def test_samples_that_are_all_alike_give_themselves_away():
    net, (x, units) = critic(), images(n=4)
    alike, same = x[:1].expand(4, -1, -1, -1), units[:1].expand(4, -1)
    alone = net(alike, same)[0]
    among = net(torch.cat([x[:1], x[1:]]), torch.cat([same[:1], units[1:]]))[0]
    assert (alone - among).abs() > 1e-3


def test_penalty_is_the_squared_slope():
    net, (x, units) = critic(), images(n=1)
    direction = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(2))
    point = x.double().requires_grad_()
    net = net.double()
    (slope,) = torch.autograd.grad(net(point, units.double()).sum(), point)
    step = 1e-5 * direction.double()
    change = net(x.double() + step, units.double()) - net(x.double() - step, units.double())
    assert change.item() / 2e-5 == pytest.approx((slope * direction).sum().item(), rel=1e-4)
    penalty = gradient_penalty(net, x.double(), units.double())
    assert penalty.item() == pytest.approx(0.5 * slope.square().sum().item(), rel=1e-5)
    penalty.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_relativistic_loss_asks_for_a_margin():
    level, ahead = torch.zeros(4), torch.full((4,), 3.0)
    assert float(relativistic_loss(level, level)) == pytest.approx(0.6931, abs=1e-4)
    assert relativistic_loss(ahead, level) < 0.1 < 3 < relativistic_loss(level, ahead)


def test_critic_learns_to_tell_stripes_from_checks():
    net = critic()
    checks = (torch.arange(8)[:, None] + torch.arange(8)) % 2
    stripes = (torch.arange(8) % 4 < 2).long().expand(8, 8)
    real, made = (
        2 * F.one_hot(p, 2).movedim(-1, 0).float().expand(2, -1, -1, -1) - 1
        for p in (stripes, checks)
    )
    units, optimizer = torch.full((2, 2), 0.5), torch.optim.Adam(net.parameters(), lr=4e-3)
    for _ in range(30):
        loss = relativistic_loss(net(real, units), net(made, units))
        loss = loss + gradient_penalty(net, real, units) + gradient_penalty(net, made, units)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (net(real, units) - net(made, units)).min() > 0.3


@pytest.mark.parametrize("shape", [(48, 32), (16, 12, 10)])
def test_spectral_noise_has_unit_variance_and_its_wavelength(shape):
    torch.manual_seed(0)
    noise = SpectralNoise(2, 8, wavelength=8.0)
    with torch.no_grad():
        noise.bands.weight.zero_()
        fields = noise(torch.randn(64, 2, *shape), torch.zeros(64, 8))
    assert float(fields.square().mean()) == pytest.approx(1, abs=0.1)
    assert float(fields.flatten(2).mean(2).abs().max()) < 1e-5
    neighbours = (fields * fields.roll(4, -1)).mean() / fields.square().mean()
    assert neighbours < 0  # half a wavelength away the field has turned


def test_spectral_noise_follows_its_condition():
    torch.manual_seed(0)
    noise, white = SpectralNoise(1, 8), torch.randn(2, 1, 32, 32)
    a, b = (noise(white, c.expand(2, 8)) for c in (torch.zeros(8), 3 * torch.ones(8)))
    assert (a - b).abs().max() > 0.1
