"""Smoothing of interfaces: a mean over neighbours, fitted to the data's specific surface."""

import pytest
import torch

from generators.diffusion_training import DiffusionSettings, initial_objective
from generators.interface_smoothing import fit_smoothing
from generators.smoothing import MOST_SMOOTHING, smooth, smooth_in_place
from microstructures.dataset import MicrostructureDataset
from networks import TrainingSettings
from physics.processes import RandomField, SpinodalDecomposition


@pytest.mark.parametrize("shape", [(6, 8), (4, 6, 5)])
def test_smoothing_is_a_mean_over_neighbours(shape):
    logits = torch.randn(2, 3, *shape, dtype=torch.float64)
    wraps = (True,) * len(shape)
    made = smooth(logits, 0.1, periodic=wraps)
    assert torch.allclose(made.flatten(2).mean(2), logits.flatten(2).mean(2))
    assert torch.allclose(made.roll(2, 2), smooth(logits.roll(2, 2), 0.1, periodic=wraps))
    spike = torch.zeros(1, 1, *shape, dtype=torch.float64)
    spike[(0, 0, *([2] * len(shape)))] = 1.0
    spread = smooth(spike, 0.1, periodic=wraps)
    assert float(spread[(0, 0, *([2] * len(shape)))]) == pytest.approx(0.8 ** len(shape))
    assert smooth(logits, 0.0, periodic=wraps) is logits


def test_a_rim_that_does_not_wrap_stands_in_for_its_neighbour():
    ramp = torch.arange(5.0).expand(1, 1, 4, 5)
    made = smooth(ramp, 0.1, periodic=(True, False))
    assert torch.allclose(made[0, 0, 0], torch.tensor([0.1, 1.0, 2.0, 3.0, 3.9]))
    wrapped = smooth(ramp, 0.1, periodic=(True, True))
    assert float(wrapped[0, 0, 0, 0]) == pytest.approx(0.5)


def test_a_thin_phase_is_evened_out_but_not_worn_away():
    torch.manual_seed(0)
    logits = torch.zeros(1, 2, 32, 32)
    logits[:, 1] = -4.0
    logits[:, 1, 15] = 4.0  # a line one voxel thick
    logits[:, 1] += 2 * torch.randn(32, 32)
    kept = smooth_in_place(logits, 0.2, periodic=(True, True))
    worn = smooth(logits, 0.2, periodic=(True, True))
    before, after, less = (float(x.softmax(1)[:, 1].mean()) for x in (logits, kept, worn))
    assert less < 0.7 * before
    assert after == pytest.approx(before, rel=0.01)
    assert kept.argmax(1)[0, 15].float().mean() > 0.9


def fitted(process, points, shape=(16, 16)):
    cells = process.simulate(points, shape=shape, seed=0)
    data = MicrostructureDataset.from_structures(cells, process.space)
    settings = DiffusionSettings(
        widths=(16, 16), features=32, latent_dim=8, training=TrainingSettings(steps=1)
    )
    net = initial_objective(data, settings).denoiser
    share = fit_smoothing(net, data, steps=3, seed=0)
    assert net.smoothing == 0.0
    return share


def test_rough_samples_are_smoothed_and_smooth_ones_are_left():
    # An untrained net gives white noise, cut at the right fraction.
    alloy = SpinodalDecomposition()
    point = {"composition": 0.5, "temperature_k": 700.0, "ageing_time_h": 1.0}
    assert fitted(alloy, [point] * 8) == pytest.approx(MOST_SMOOTHING, abs=0.01)
    noise = RandomField(length_bounds_um=(0.1, 2.0))
    field = {"volume_fraction": 0.5, "correlation_length_um": 0.3}
    share = fitted(noise, [field] * 8)
    assert share < 0.1


def test_a_net_keeps_its_smoothing_in_its_config():
    alloy = SpinodalDecomposition()
    point = {"composition": 0.5, "temperature_k": 700.0, "ageing_time_h": 1.0}
    data = MicrostructureDataset.from_structures(
        alloy.simulate([point] * 4, shape=(16, 16), seed=0), alloy.space
    )
    settings = DiffusionSettings(widths=(8, 8), features=16, training=TrainingSettings(steps=1))
    net = initial_objective(data, settings).denoiser
    net.smoothing = 0.2
    again = type(net)(**{**net.config, "space": alloy.space})
    assert again.smoothing == 0.2
