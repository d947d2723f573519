"""Matching samples of a trained denoiser: what is drawn, which slopes run, and what it mends."""

import pytest
import torch
from torch import nn

from generators import DiffusionSettings, train_diffusion
from generators.denoised_samples import DenoisedSamples
from generators.denoiser import PhaseDenoiser
from generators.descriptor_matching import DescriptorMatching
from generators.fractions import cut_exactly
from generators.prior_matching import MatchingSettings, PriorMatching
from generators.sampler import sample_logits
from microstructures import Microstructure, Parameter, ProcessSpace
from microstructures.dataset import MicrostructureDataset
from networks import TrainingSettings
from physics.processes import SpinodalDecomposition

SHAPE = (16, 16)


@pytest.fixture(scope="module")
def cells():
    alloy = SpinodalDecomposition()
    points = [
        {"composition": 0.4 + 0.2 * k / 23, "temperature_k": 700.0, "ageing_time_h": 1.0}
        for k in range(24)
    ]
    made = alloy.simulate(points, shape=SHAPE, seed=0)
    return MicrostructureDataset.from_structures(made, alloy.space)


def denoiser(space):
    torch.manual_seed(0)
    net = PhaseDenoiser(
        space=space,
        n_phases=2,
        periodic=(True, True),
        widths=(8, 8),
        blocks=1,
        latent_dim=2,
        features=16,
    )
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.1)
    return net


@pytest.mark.parametrize("match_fractions", [True, False])
def test_samples_are_those_of_the_sampler_and_slopes_run_through_the_last_steps(
    cells, match_fractions
):
    net = denoiser(cells.space)
    samples = DenoisedSamples(net, shape=SHAPE, steps=4, match_fractions=match_fractions)
    generator = torch.Generator().manual_seed(0)
    noises = samples.noises(3, generator)
    units = cells.process_units[:3]
    hidden = torch.zeros_like(units, dtype=torch.bool)
    calls = []
    handle = net.unet.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    logits, fractions = samples(torch.zeros(3, 2, *SHAPE), units, hidden, noises)
    handle.remove()
    assert calls == [False, False, True, True]
    assert logits.requires_grad
    assert (fractions is not None) == match_fractions
    with torch.no_grad():
        condition = net.condition(net.process(units), noises[0])
        again = sample_logits(net, noises[2], condition, steps=4, fractions=fractions)
    assert torch.allclose(logits.detach(), again, atol=1e-5)


class Blurred:
    """White noise, smoothed over a width in voxels that is trained."""

    periodic = (True, True)

    def __init__(self, width):
        self.width = nn.Parameter(torch.tensor(width))

    def noises(self, n, generator):
        return [torch.randn(n, *SHAPE, generator=generator)]

    def __call__(self, clean, units, drop, noises):
        waves = torch.fft.fftfreq(SHAPE[0])
        square = waves[:, None].square() + waves.square()
        gain = (-2 * (torch.pi * self.width) ** 2 * square).exp()
        field = torch.fft.ifft2(torch.fft.fft2(noises[0]) * gain).real
        return torch.stack([-field, field], 1), torch.full((len(field), 2), 0.5)


class NoLoss(nn.Module):
    def forward(self, clean, units, drop):
        return torch.zeros(()), {}


def test_matching_finds_the_width_that_the_data_were_smoothed_over():
    generator = torch.Generator().manual_seed(0)
    true, samples, n = Blurred(1.1), Blurred(0.7), 64
    with torch.no_grad():
        fields, halves = true(None, None, None, true.noises(n, generator))
    cells = [
        Microstructure(label.numpy(), process={"a": 0.5}) for label in cut_exactly(fields, halves)
    ]
    data = MicrostructureDataset.from_structures(
        cells, ProcessSpace([Parameter("a", "-", 0.0, 1.0)])
    )
    matching = DescriptorMatching.fit(data, parameter_dropout=0.0, generator=generator)
    objective = PriorMatching(NoLoss(), samples, matching, weight=1.0)
    clean, units = torch.zeros(16, 2, *SHAPE), data.process_units[:16]
    hidden = torch.zeros_like(units, dtype=torch.bool)
    optimizer = torch.optim.Adam([samples.width], lr=0.03)
    widths = []
    for _ in range(120):
        loss, _ = objective(*samples.noises(16, generator), clean, units, hidden)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        widths.append(float(samples.width.detach()))
    # The gaps are averages over past steps, so the width circles around what it looks for.
    assert sum(widths[40:]) / 80 == pytest.approx(1.1, rel=0.1)


def test_resumed_matching_equals_uninterrupted(cells, tmp_path, monkeypatch):
    monkeypatch.setattr("generators.code_prior.STEPS", 5)
    settings = DiffusionSettings(
        widths=(8, 8),
        features=16,
        latent_dim=2,
        steps=3,
        matching=MatchingSettings(steps=4, matched=4, learning_rate=1e-3),
        training=TrainingSettings(steps=3, batch_size=4, checkpoint_every=2, warmup_steps=1),
    )
    whole = train_diffusion(cells, settings, tmp_path / "whole")

    def stop(step, total, numbers):
        if (step, total) == (2, 4):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_diffusion(cells, settings, tmp_path / "parts", progress=stop)
    parts = train_diffusion(cells, settings, tmp_path / "parts")
    a, b = whole.denoiser.state_dict(), parts.denoiser.state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)
    plain = settings.model_copy(update={"matching": None})
    before = train_diffusion(cells, plain, tmp_path / "plain").denoiser.state_dict()
    assert any(not torch.equal(a[key], before[key]) for key in a)
