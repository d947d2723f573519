"""The sampler: where it starts, how often it asks the net, and the noise levels of training."""

import numpy as np
import pytest
import torch

from generators.denoiser import PhaseDenoiser
from generators.diffusion_training import LEAST_SIGMA, MOST_SIGMA, noise_levels
from generators.sampler import SIGMA_MAX, SIGMA_MIN, sample_logits
from microstructures import Parameter, ProcessSpace


class Recorder(PhaseDenoiser):
    """A denoiser that notes what it is shown and answers with certainty."""

    def __init__(self, image):
        super().__init__(
            space=ProcessSpace([Parameter("a", "-", 0.0, 1.0)]),
            n_phases=2,
            periodic=(True, True),
            widths=(8, 8),
            blocks=1,
            latent_dim=2,
            features=8,
        )
        self.image, self.seen, self.levels = image, [], []

    def forward(self, x, sigma, condition):
        self.seen.append(x)
        self.levels.append(float(sigma[0]))
        return 10 * self.image.expand_as(x)


def test_the_ode_starts_around_the_mean_and_ends_at_the_image():
    image = torch.ones(1, 2, 8, 8)
    image[:, 0, :, 2:] = image[:, 1, :, :2] = -1.0
    net, noise = Recorder(image), torch.randn(4, 2, 8, 8)
    fractions = torch.tensor([[0.25, 0.75]], dtype=torch.float64).expand(4, -1)
    logits = sample_logits(net, noise, torch.zeros(4, 3), steps=5, fractions=fractions)
    mean = (net.seen[0] - SIGMA_MAX * noise).flatten(2).mean(2)
    assert torch.allclose(mean, (2 * fractions - 1).float(), atol=1e-4)
    assert len(net.seen) == 5
    assert net.levels == sorted(net.levels, reverse=True)
    assert net.levels[0] == pytest.approx(SIGMA_MAX)
    assert net.levels[-1] == pytest.approx(SIGMA_MIN)
    assert (logits.argmax(1) == image.argmax(1)).all()
    # Noise is gone in proportion to its level.
    rest = (net.seen[-1] - image).std()
    assert float(rest) == pytest.approx(SIGMA_MIN, rel=0.2)


def test_every_level_of_training_noise_is_met():
    sigma = noise_levels(16, torch.Generator().manual_seed(0))
    share = (sigma / LEAST_SIGMA).log() / np.log(MOST_SIGMA / LEAST_SIGMA)
    assert sorted((share * 16).long().tolist()) == list(range(16))
    assert (sigma.diff() < 0).any()
    assert (sigma.diff() > 0).any()
    assert LEAST_SIGMA <= SIGMA_MIN < SIGMA_MAX <= MOST_SIGMA
