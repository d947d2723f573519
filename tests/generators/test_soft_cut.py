"""The soft cut: what moves an interface has a slope, what only changes its profile has none."""

import pytest
import torch

from generators.soft_cut import cut_through, slope


def smooth_field(dim=2, n_phases=2, side=32):
    generator = torch.Generator().manual_seed(0)
    white = torch.randn(2, n_phases, *[side] * dim, generator=generator)
    axes = tuple(range(2, 2 + dim))
    waves = torch.meshgrid(*[torch.fft.fftfreq(side)] * dim, indexing="ij")
    low = torch.exp(-150 * torch.stack(waves).square().sum(0))
    field = torch.fft.ifftn(torch.fft.fftn(white, dim=axes) * low, dim=axes).real
    return field / field.std()


WANTED = {2: [[0.25, 0.75], [0.5, 0.5]], 3: [[0.25, 0.25, 0.5], [0.5, 0.25, 0.25]]}


@pytest.mark.parametrize(("dim", "n_phases"), [(2, 2), (2, 3), (3, 2)])
def test_cut_is_hard_exact_and_its_slope_soft(dim, n_phases):
    field = smooth_field(dim, n_phases, 16).requires_grad_()
    wanted = torch.tensor(WANTED[n_phases])
    hard, soft = cut_through(field, wanted, periodic=(True,) * dim)
    assert torch.equal((hard.detach() > 0).float().flatten(2).mean(2), wanted)
    assert torch.allclose((soft.flatten(2).mean(2) + 1) / 2, wanted, atol=0.05)
    weights = torch.rand_like(hard)
    a, b = (
        torch.autograd.grad((x * weights).sum(), field, retain_graph=True)[0] for x in (hard, soft)
    )
    assert torch.equal(a, b)
    # Hard and soft interfaces are in the same places, of two phases exactly.
    same = ((hard.detach() > 0) == (soft > 0)).float().mean()
    assert same > (0.99 if n_phases == 2 else 0.9)


@pytest.mark.parametrize("n_phases", [2, 3])
def test_amounts_have_no_slope_under_fixed_fractions(n_phases):
    field = smooth_field(n_phases=n_phases).requires_grad_()
    _, soft = cut_through(field, torch.tensor(WANTED[n_phases]), periodic=(True, True))
    amount, shape = (
        torch.autograd.grad((soft[:, 0] * w).sum(), field, retain_graph=True)[0].abs().max()
        for w in (1.0, smooth_field()[:, 0])
    )
    assert amount < 1e-4 * shape


def test_the_profile_across_interfaces_has_hardly_a_slope():
    field = smooth_field(side=64)
    wanted = torch.tensor(WANTED[2])
    edge = field[:, 1:] - field[:, :1]
    level = torch.stack([e.quantile(1 - w[1]) for e, w in zip(edge, wanted, strict=True)])
    beyond = (edge - level.view(-1, 1, 1, 1)) * torch.tensor([-0.5, 0.5]).view(1, 2, 1, 1)
    steeper = (1 + torch.sin(torch.arange(64) / 64 * 2 * torch.pi)) / 2
    stretched = steeper * beyond  # the interfaces stay
    strength = torch.zeros((), requires_grad=True)
    changed = field + strength * stretched
    plain = 2 * (2.5 * (changed[:, 1:] - changed[:, :1] - level.view(-1, 1, 1, 1))).sigmoid() - 1
    _, told = cut_through(changed, wanted, periodic=(True, True))
    old, new = (
        torch.autograd.grad((1 - soft.square()).mean(), strength, retain_graph=True)[0].abs()
        for soft in (plain, told)
    )
    assert new < 0.3 * old


def test_slope_is_the_steepness_of_a_ramp_and_has_a_floor():
    ramp = 0.3 * torch.arange(16.0).expand(16, 16)
    field = torch.stack([-ramp / 2, ramp / 2])[None]
    found = slope(field, (False, False))
    assert found[0, 0, 4:12, 4:12] == pytest.approx(torch.full((8, 8), 0.3), rel=0.06)
    assert slope(torch.zeros(1, 2, 8, 8), (True, True)).min() > 0


def test_without_fractions_the_largest_field_wins():
    field = smooth_field(n_phases=3)
    hard, _ = cut_through(field, None, periodic=(True, True))
    assert torch.equal(hard.argmax(1), field.argmax(1))
