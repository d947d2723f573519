"""Descriptors, properties, distance, seams and undecided voxels of cells with known answers."""

import numpy as np
import pytest
import torch

from generators.microbench_baselines import nearest_training_images, random_field_cells
from generators.microbench_conditions import (
    TrueCondition,
    effective_properties,
    mean_distance,
    measure_condition,
)
from generators.microbench_voxels import seam_ratio, undecided_share
from generators.structure_statistics import correlation_lengths, measure_structures
from microstructures import Microstructure, MicrostructureDataset, Parameter, ProcessSpace
from physics.processes import RandomField


def stripes(n=4, side=16, width=4):
    row = (np.arange(side) // width % 2).astype(np.uint8)
    return torch.from_numpy(np.tile(row[None, :, None], (n, 1, side)))


def test_correlation_length_of_an_exponential():
    r, length = np.arange(17), np.array([2.0, 5.0])
    s2 = 0.09 + 0.21 * np.exp(-r / length[:, None])
    # Linear between whole lags, where an exponential is convex.
    assert correlation_lengths(s2) == pytest.approx(length, abs=0.05)
    flat = np.full((1, 5), 0.3)
    assert correlation_lengths(flat + 0 * r[:5] + 0.0)[0] == 4.0
    assert correlation_lengths(np.zeros((1, 5)))[0] == 0.0


def test_descriptors_of_stripes():
    found = measure_condition(stripes(), n_phases=2).descriptors()
    assert set(found) == {"fraction", "length", "surface"}
    assert found["fraction"] == pytest.approx(np.full(4, 0.5))
    # Four faces in 16 voxels, times pi/4 for surfaces of any direction.
    assert found["surface"] == pytest.approx(np.full(4, 4 / 16 * np.pi / 4))
    three = measure_condition(stripes() * 2, n_phases=3).descriptors(("a", "b", "c"))
    assert three["fraction of b"].max() == 0
    assert three["length of b"].max() == 0
    assert three["fraction of c"] == pytest.approx(np.full(4, 0.5))
    assert len(three) == 6


@pytest.mark.parametrize("dim", [2, 3])
def test_properties_of_laminates(dim):
    layers = torch.zeros(2, *[8] * dim, dtype=torch.uint8)
    layers[0, :4] = 1
    layers[1, :, :4] = 1
    found = effective_properties(layers, 2)
    assert found["conductivity"] == pytest.approx([20 / 11, 5.5], rel=1e-3)
    stiff = 0.7 / (1.3 * 0.4)
    # Across layers the uniaxial-strain moduli add in series.
    assert found["c11"][0] == pytest.approx(stiff * 20 / 11, rel=2e-3)
    alone = effective_properties(torch.zeros(1, *[8] * dim, dtype=torch.uint8), 2)
    assert alone["c11"] == pytest.approx([stiff], rel=1e-3)
    assert alone["conductivity"] == pytest.approx([1.0], rel=1e-3)


def test_properties_are_of_the_samples_asked_for():
    labels = stripes(n=4)
    labels[1] = 0
    found = measure_condition(labels, n_phases=2, solved=[0, 1, 2])
    assert len(found.properties["c11"]) == 3
    assert found.properties["conductivity"][1] == pytest.approx(1.0, rel=1e-3)
    halves = TrueCondition({}, measure_condition(labels, n_phases=2, solved=[1, 2]), 2)
    assert halves.reference.properties["conductivity"] == pytest.approx([1.0], rel=1e-3)
    assert len(halves.others.statistics) == 2
    assert halves.others.properties["conductivity"][0] > 1.5


def test_mean_distance_between_samples():
    assert mean_distance(stripes(), 2) == 0.0
    opposite = torch.stack([torch.zeros(4, 4), torch.ones(4, 4)]).to(torch.uint8)
    assert mean_distance(opposite, 2) == pytest.approx(1.0)
    three = torch.arange(3).view(3, 1, 1).expand(3, 4, 4)
    assert mean_distance(three, 3) == pytest.approx(1.0)
    assert mean_distance(opposite[:1], 2) == 0.0


def test_a_blurred_copy_is_undecided():
    hard = torch.nn.functional.one_hot(stripes().long(), 2).movedim(-1, 1).float()
    assert undecided_share(hard) == 0.0
    blurred = (hard + hard.roll(1, 2)) / 2
    # One of four layers has two phases in equal parts.
    assert undecided_share(blurred) == pytest.approx(0.25)


def test_seams():
    # Stripes of 4 in 16: three changes in 15 places inside, one in one at the seam.
    assert seam_ratio(stripes(), (True, True)) == pytest.approx(5.0)
    assert seam_ratio(stripes().roll(2, 1), (True, False)) == 0.0
    assert seam_ratio(stripes(), (False, False)) is None
    field = RandomField().simulate(
        {"volume_fraction": 0.5, "correlation_length_um": 3.0}, shape=(32, 32), seed=0, n=200
    )
    labels = torch.from_numpy(np.stack([c.phases for c in field]))
    assert seam_ratio(labels, (True, True)) == pytest.approx(1.0, abs=0.06)


def test_the_random_field_has_the_real_fraction_and_s2():
    point = {"volume_fraction": 0.3, "correlation_length_um": 3.0}
    real = RandomField().simulate(point, shape=(32, 32), seed=0, n=64)
    made = random_field_cells(real, n=64, shape=(32, 32), seed=1)
    theirs, ours = (measure_structures(s, n_phases=2).s2.mean(0)[1] for s in (real, made))
    assert ours == pytest.approx(theirs, abs=0.02)
    full = [Microstructure(np.ones((8, 8), np.uint8), phase_names=("a", "b"))] * 3
    assert random_field_cells(full, n=2, shape=(8, 8), seed=0).float().mean() == 1


def test_nearest_training_images_are_near_in_process():
    space = ProcessSpace([Parameter("t", "-", 0.0, 1.0)])
    cells = [
        Microstructure(
            np.full((4, 4), k % 2, np.uint8), process={"t": k / 10}, phase_names=("a", "b")
        )
        for k in range(10)
    ]
    training = MicrostructureDataset.from_structures(cells, space)
    found = nearest_training_images(training, {"t": 0.32}, n=1)
    assert torch.equal(found, training.phases[3:4])
    assert len(nearest_training_images(training, {"t": 0.32}, n=4)) == 4
