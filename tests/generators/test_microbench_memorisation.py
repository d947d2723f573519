"""M9: shifted and flipped copies are found, and the value is the brute-force maximum."""

import itertools

import numpy as np
import pytest
import torch

from generators.microbench_memorisation import TrainingImages, memorisation
from microstructures import DataError
from physics.processes import RandomField

POINT = {"volume_fraction": 0.4, "correlation_length_um": 3.0}


def cells(n, *, seed, shape=(32, 32), length=3.0):
    point = {**POINT, "correlation_length_um": length}
    found = RandomField().simulate(point, shape=shape, seed=seed, n=n)
    return torch.from_numpy(np.stack([c.phases for c in found]))


@pytest.mark.parametrize("shape", [(32, 32), (16, 16, 16)])
def test_shifted_and_flipped_copies_are_found(shape):
    training = cells(20, seed=0, shape=shape)
    axes = tuple(range(1, len(shape) + 1))
    copies = training[5:10].roll((3, 7, 5)[: len(shape)], axes).flip(axes[:1])
    found = TrainingImages(training, 2).nearest(copies)
    assert found.correlation == pytest.approx(np.ones(5), abs=1e-4)
    assert found.index.tolist() == list(range(5, 10))
    fresh = TrainingImages(training, 2).nearest(cells(4, seed=1, shape=shape))
    assert fresh.correlation.max() < 0.8


def test_a_damaged_copy_has_its_known_correlation():
    training = cells(40, seed=0)
    damaged = training[:1].clone()
    damaged[0, :4, :8] = 1 - damaged[0, :4, :8]
    a, b = (x.double() - x.double().mean() for x in (damaged[0], training[0]))
    expected = float((a * b).sum() / (a.norm() * b.norm()))
    found = TrainingImages(training, 2).nearest(damaged.roll(9, 2))
    assert found.correlation[0] == pytest.approx(expected, abs=1e-4)
    assert found.index[0] == 0


def test_the_value_is_the_largest_over_all_shifts_and_flips():
    training, samples = cells(6, seed=0, shape=(12, 12)), cells(3, seed=1, shape=(12, 12))
    found = TrainingImages(training, 2).nearest(samples)
    for k, sample in enumerate(samples.numpy().astype(float)):
        best = -1.0
        for image, flips in itertools.product(
            training.numpy().astype(float), ([], [0], [1], [0, 1])
        ):
            b = np.flip(image, flips) - image.mean()
            for shift in itertools.product(range(12), repeat=2):
                a = np.roll(sample, shift, (0, 1)) - sample.mean()
                best = max(best, (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))
        assert found.correlation[k] == pytest.approx(best, abs=1e-4)


def test_several_phases_and_a_single_one():
    rng = np.random.default_rng(0)
    training = torch.from_numpy(rng.integers(0, 3, (10, 16, 16)).astype(np.uint8))
    found = TrainingImages(training, 3).nearest(training[2:3].roll((4, 4), (1, 2)))
    assert found.correlation[0] == pytest.approx(1.0, abs=1e-4)
    assert found.index[0] == 2
    alone = TrainingImages(training, 3).nearest(torch.zeros(1, 16, 16, dtype=torch.uint8))
    assert alone.correlation[0] == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(DataError, match="training images' shape"):
        TrainingImages(training, 3).nearest(training[:, :8])


def test_share_above_the_held_out_quantile():
    held_out = np.linspace(0.0, 0.5, 1001)
    found = memorisation(np.array([0.1, 0.4995, 0.49951, 1.0]), held_out)
    assert found.threshold == pytest.approx(0.4995)
    assert found.share == 0.5
    assert found.highest == 1.0
    assert (found.samples, found.held_out) == (4, 1001)
