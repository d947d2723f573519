"""Plane sections: their axes, their place in a volume, and what they must agree on."""

import numpy as np
import pytest
import torch

from generators.plane_sections import (
    all_sections,
    section_dataset,
    volume_periodicity,
    volume_shape,
)
from microstructures import DataError, Microstructure, Parameter, ProcessSpace
from microstructures.dataset import MicrostructureDataset


def test_sections_hold_the_other_axes_in_order():
    x = torch.arange(2 * 2 * 3 * 4).view(2, 1, 2, 3, 4)
    for normal, plane in enumerate([(3, 4), (2, 4), (2, 3)]):
        found = all_sections(x, normal)
        assert found.shape == (2 * x.shape[2 + normal], 1, *plane)
        assert torch.equal(found[1], x[0].select(1 + normal, 1))


def test_three_kinds_of_sections_make_one_volume():
    assert volume_shape([(3, 4), (2, 4), (2, 3)]) == [2, 3, 4]
    assert volume_shape([(5, 5)]) == [5, 5, 5]
    assert volume_periodicity([(True, False), (True, False), (True, True)]) == [True, True, False]
    with pytest.raises(DataError, match="length of every axis"):
        volume_shape([(3, 4)])
    with pytest.raises(DataError, match="periodic"):
        volume_periodicity([(True, False), (True, True), (True, True)])
    with pytest.raises(DataError, match="one kind of plane section, or three"):
        volume_shape([(3, 4), (2, 4)])
    with pytest.raises(DataError, match="one kind of plane section, or three"):
        volume_shape([(3, 4, 5)])


def test_sections_of_a_data_set_are_found_in_their_volumes():
    space = ProcessSpace([Parameter("a", "-", 0.0, 1.0)])
    draw = np.random.default_rng(0)
    volumes = MicrostructureDataset.from_structures(
        [
            Microstructure(
                phases=draw.integers(0, 2, (4, 6, 8)).astype(np.uint8),
                voxel_size_um=0.5,
                periodic=(True, False, True),
                process={"a": a},
                phase_names=("x", "y"),
            )
            for a in (0.2, 0.7)
        ],
        space,
    )
    sections = section_dataset(volumes, seed=0, normals=[1])
    assert sections.shape == (4, 8)
    assert sections.periodic == (True, True)
    assert sections.specimens == volumes.specimens
    assert torch.equal(sections.process_units, volumes.process_units)
    for section, volume in zip(sections.phases, volumes.phases, strict=True):
        assert any(torch.equal(section, volume[:, at]) for at in range(6))
    again = section_dataset(volumes, seed=0, normals=[1])
    assert again.digest == sections.digest != section_dataset(volumes, seed=5, normals=[1]).digest
