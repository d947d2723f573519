"""Grad-CAM and activation maps of nets whose answer is known, and scores of rankings."""

import pytest
import torch

from microstructures import DataError
from surrogates import PropertySurrogate
from surrogates.activation_maps import (
    activation_maps,
    grad_cam,
    strongest_channels,
    upsampled,
)
from surrogates.familiarity import Familiarity, describe
from surrogates.pooled_net import PooledNet
from surrogates.quantities import Stiffness, local_moduli, scaled
from surrogates.saliency import (
    exact_sensitivity,
    near_interface,
    ranking_score,
    replacement_curve,
    share_inside,
)


@pytest.fixture
def net_of(blobs, materials):
    """Make a net of random weights, of one or more members."""

    def make(members: int = 1) -> PropertySurrogate:
        torch.manual_seed(0)
        net = PooledNet(
            quantity="stiffness", dim=2, widths=(8, 8), features=8, steps=1, members=members
        )
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(0.2 * torch.randn(parameter.shape))
        phases = blobs(4, seed=90)
        moduli, _ = scaled(local_moduli(phases, Stiffness().phase_moduli(materials, 2)[None]))
        return PropertySurrogate(net, Familiarity.fit(describe(moduli), (16, 16)), torch.ones(3, 3))

    return make


def test_a_net_that_answers_by_one_region_lights_it(net_of, blobs, materials):
    surrogate, phases = net_of(), blobs(2, seed=91)
    block = surrogate.net.members[0].encoder.blocks[-1]
    region = torch.zeros(4, 4)
    region[:2, 1:3] = 1
    # Whatever the cell, the level reports this region in one channel, and nothing in others.
    block.register_forward_hook(
        lambda _module, _inputs, out: (
            torch.zeros_like(out).index_fill(1, torch.tensor([3]), 1.0) * region
        )
    )
    fine = upsampled(region.expand(1, 4, 4), (16, 16))[0]
    lit = grad_cam(surrogate, phases, materials)
    # The channel may raise or lower C11: it is lit for one sign of the entry's slope only.
    other = grad_cam(surrogate, phases, materials, entry=(1, 0))
    shown = [cam for found in (lit, other) for cam in found if cam.max() > 0]
    assert shown
    for cam in shown:
        assert torch.allclose(cam, fine, atol=1e-6)
        assert float(share_inside(cam[None], (fine > 0)[None])) == pytest.approx(1)


def test_grad_cam_is_the_papers_sum(net_of, blobs, materials):
    """The weights are slopes: of a channel moved by a little everywhere, per voxel."""
    surrogate, phases = net_of(), blobs(1, seed=92)
    maps = activation_maps(surrogate, phases, materials)
    block = surrogate.net.members[0].encoder.blocks[-1]
    weights = []
    for channel in range(maps.shape[1]):
        values = []
        for step in (1e-2, -1e-2):
            move = torch.zeros(1, maps.shape[1], 1, 1)
            move[0, channel] = step
            handle = block.register_forward_hook(lambda _m, _i, out, move=move: out + move)
            values.append(float(surrogate.predict(phases, materials).value[0, 0, 0]))
            handle.remove()
        weights.append((values[0] - values[1]) / 2e-2)
    expected = torch.relu((torch.tensor(weights).view(1, -1, 1, 1) * maps).sum(1))
    expected = upsampled(expected / expected.max(), (16, 16))
    found = grad_cam(surrogate, phases, materials)
    assert expected.max() > 0.5
    assert torch.allclose(found, expected.float(), atol=0.02)
    assert not block._forward_hooks, "hooks are taken off again"


@pytest.mark.parametrize("level", [0, -1])
def test_maps_shift_with_the_cell(net_of, blobs, materials, level):
    surrogate, phases = net_of(2), blobs(2, seed=93)
    step = surrogate.net.size_multiple
    moved = phases.roll((step, 2 * step), (1, 2))
    cam = grad_cam(surrogate, phases, materials, level=level)
    again = grad_cam(surrogate, moved, materials, level=level)
    assert cam.max() > 0
    assert torch.allclose(again, cam.roll((step, 2 * step), (1, 2)), atol=1e-3)
    maps = activation_maps(surrogate, phases, materials, level=level, member=1)
    coarse = step // (16 // maps.shape[2])
    there = activation_maps(surrogate, moved, materials, level=level, member=1)
    assert torch.allclose(there, maps.roll((coarse, 2 * coarse), (2, 3)), atol=1e-3)


def test_the_strongest_channels_vary_most():
    maps = torch.zeros(1, 3, 4, 4)
    maps[0, 0] = 9.0  # high, but the same everywhere
    maps[0, 1, 0, 0], maps[0, 2, 0, 0] = 1.0, 2.0
    assert strongest_channels(maps, 2).tolist() == [[2, 1]]
    with pytest.raises(DataError, match="1 to 3 channels"):
        strongest_channels(maps, 4)


def test_interpolation_wraps_and_keeps_means():
    coarse = torch.rand(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    fine = upsampled(coarse, (8, 16, 4))
    assert fine.shape == (1, 8, 16, 4)
    assert float(fine.mean()) == pytest.approx(float(coarse.mean()), rel=1e-6)
    assert torch.allclose(upsampled(coarse.roll(1, 1), (8, 16, 4)), fine.roll(2, 1))
    with pytest.raises(DataError, match="multiples"):
        upsampled(coarse, (8, 6, 4))


def test_scores_are_0_at_random_and_1_at_exact(blobs, materials):
    shares = (0.1, 0.2)
    phases = blobs(2, seed=94)
    exact = exact_sensitivity(phases, materials)
    noise = torch.rand(exact.shape, generator=torch.Generator().manual_seed(0))
    for label in (0, 1):
        curves = [
            replacement_curve(phases, rank, materials, shares, label=label).mean(0).tolist()
            for rank in (noise, exact, -exact)
        ]
        kept = {"at_random": curves[0], "exact": curves[1]}
        assert ranking_score(shares, curves[0], **kept) == 0
        assert ranking_score(shares, curves[1], **kept) == 1
        assert ranking_score(shares, curves[2], **kept) < 0, "the worst voxels first"
    middle = [(a + b) / 2 for a, b in zip(kept["at_random"], kept["exact"], strict=True)]
    assert ranking_score(shares, middle, **kept) == pytest.approx(0.5)
    with pytest.raises(DataError, match="one value for each share"):
        ranking_score(shares, [1.0], **kept)
    with pytest.raises(DataError, match="better than chance"):
        ranking_score(shares, middle, at_random=middle, exact=middle)


def test_the_interface_is_where_labels_meet():
    phases = torch.zeros(1, 8, 8, dtype=torch.uint8)
    phases[:, :, 4:] = 1
    near = near_interface(phases, 1)[0]
    # The cell is periodic: the labels also meet between the last and the first column.
    assert near.all(0).tolist() == [True, False, False, True, True, False, False, True]
    assert near_interface(phases, 2).all()


def test_what_does_not_fit_is_refused(net_of, blobs, materials):
    surrogate, phases = net_of(), blobs(1, seed=95)
    for word, level in (("level 0 to 1", 2), ("level 0 to 1", -3)):
        with pytest.raises(DataError, match=word):
            grad_cam(surrogate, phases, materials, level=level)
    with pytest.raises(DataError, match="member 0 to 0"):
        activation_maps(surrogate, phases, materials, member=1)
    with pytest.raises(DataError, match="multiples"):
        grad_cam(surrogate, phases[:, :15], materials)
    with pytest.raises(DataError, match=r"region of shape \(1, 16, 16\)"):
        share_inside(torch.ones(1, 16, 16), torch.ones(1, 8, 8).bool())
    with pytest.raises(DataError, match="two phases"):
        exact_sensitivity(phases, [*materials, materials[0]])
